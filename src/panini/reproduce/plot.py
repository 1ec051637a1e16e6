"""Plots of `evaluation.plots`, gathered in an SVG file that stands by itself."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH, _HEIGHT, _COLUMNS = 360, 260, 2
_STYLE = (
    "text{font:11px sans-serif;fill:#222}.title{font-weight:600}.mark{font-size:10px;fill:#666}"
    ".middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#ddd;fill:none}"
    ".axis{stroke:#444;fill:none}"
)


def plot_sheet(plots: Sequence[str]) -> str:
    """Plots, two in a row, on white.

    Args:
        plots: SVG elements without namespace and size, as `evaluation.plots` makes them.
    """
    width, height = _COLUMNS * _WIDTH, -(-len(plots) // _COLUMNS) * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{_STYLE}</style>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, plot in enumerate(plots):
        row, column = divmod(index, _COLUMNS)
        place = f'x="{column * _WIDTH}" y="{row * _HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
        parts.append(plot.replace("<svg ", f"<svg {place} ", 1))
    return "\n".join([*parts, "</svg>"]) + "\n"
