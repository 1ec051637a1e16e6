"""Plots as SVG, drawn by hand: bars with intervals, scatters, lines; no library, no network.

Systems differ in colour (Okabe and Ito's palette, told apart by the colour-blind) and in shape; of
more systems than colours, each further round pairs the two otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from panini.metrics.bootstrap import Interval

COLOURS = ("#555555", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""By the number of a system; the input, number 0, is grey."""

# Shapes about a point, as relative SVG paths: disc (a dot with round ends), square, triangle, …
_SHAPES = (
    "h0",
    "m-3 -3h6v6h-6z",
    "m0 -4l4 7h-8z",
    "m-3 -3l6 6m0 -6l-6 6",
    "m0 -4l4 4l-4 4l-4 -4z",
    "m-4 0h8m-4 -4v8",
    "m0 4l4 -7h-8z",
)
_WIDTH, _HEIGHT = 360, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 40
_NAMED = 300  # Points of a plot up to which each tells the name of its face.


@dataclass(frozen=True)
class Point:
    """A face in a scatter."""

    x: float
    y: float
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a scatter or a line plot is about."""

    title: str
    x: str
    y: str
    diagonal: bool = False
    """Both axes have the same range, and a line shows where both are equal."""


def bars(title: str, values: Sequence[tuple[str, Interval]]) -> str:
    """Means of systems as bars with their 95 % intervals; they begin at 0.

    Args:
        title: Metric, unit and direction.
        values: (system, mean), in the order of their colours; systems without a value get no bar.
    """
    known = [v for _, found in values if found.count for v in (found.low, found.high, 0.0)]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    row = 38
    height = _TOP + row * len(values) + 8
    parts = [_text(8, 16, title, "title")]

    def at(value: float) -> float:
        return 8 + (value - low) / span * (_WIDTH - 80)

    for index, (name, found) in enumerate(values):
        top = _TOP + index * row
        parts.append(_text(8, top + 12, name, "name"))
        if not found.count:
            continue
        start, end = sorted((at(0.0), at(found.mean)))
        parts.append(
            f'<rect x="{start:.1f}" y="{top + 17}" width="{max(end - start, 1):.1f}" height="13" '
            f'fill="{colour(index)}"/>'
        )
        middle = top + 23.5
        parts.append(_whisker(at(found.low), at(found.high), middle))
        parts.append(_text(at(high) + 8, middle + 4, f"{found.mean:.4g}", "value"))
    return _svg("".join(parts), height, title)


def scatter(axes: Axes, series: Mapping[str, Sequence[Point]], numbers: Mapping[str, int]) -> str:
    """Points of several systems.

    Args:
        axes: Title and labels.
        series: System → its points; those that are not finite are left out.
        numbers: System → its number, for colour and shape.

    Returns:
        SVG; "" if no point is left.
    """
    kept = {
        name: [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
        for name, points in series.items()
    }
    points = [point for own in kept.values() for point in own]
    if not points:
        return ""
    frame = _Frame.around(axes, points)
    parts = [frame.draw(axes)]
    for name, own in kept.items():
        parts.append(_dots(frame, own, numbers[name], named=len(points) <= _NAMED))
    return _svg("".join(parts), _HEIGHT, axes.title)


def line_plot(
    axes: Axes,
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    numbers: Mapping[str, int],
) -> str:
    """Means with their deviation, joined; x is spaced evenly.

    Args:
        axes: Title and labels.
        series: System → (x, mean, deviation).
        numbers: System → its number, for colour and shape.
    """
    kept = {name: [v for v in own if math.isfinite(v[1])] for name, own in series.items()}
    steps = sorted({x for own in kept.values() for x, _, _ in own})
    if not steps:
        return ""
    ends = [
        Point(steps.index(x), mean + sign * deviation)
        for own in kept.values()
        for x, mean, deviation in own
        for sign in (-1, 1)
    ]
    frame = _Frame.around(axes, ends, marks=[f"{step:g}" for step in steps])
    parts = [frame.draw(axes)]
    for name, own in kept.items():
        number = numbers[name]
        places = [(frame.x(steps.index(x)), mean, deviation) for x, mean, deviation in own]
        joined = "L".join(f"{x:.1f} {frame.y(mean):.1f}" for x, mean, _ in places)
        parts.append(f'<path d="M{joined}" fill="none" stroke="{colour(number)}"/>')
        for x, mean, deviation in places:
            top, bottom = frame.y(mean + deviation), frame.y(mean - deviation)
            parts.append(
                f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="{colour(number)}" '
                'opacity="0.6"/>'
            )
        dots = [Point(steps.index(x), mean) for x, mean, _ in own]
        parts.append(_dots(frame, dots, number, named=False))
    return _svg("".join(parts), _HEIGHT, axes.title)


def legend(systems: Mapping[str, int]) -> str:
    """Which colour and shape is which system, as HTML."""
    entries = [
        f'<span><svg viewBox="0 0 16 16" width="16" height="16">'
        f"{_path(f'M8 8{shape(number)}', number)}</svg> {escape(name)}</span>"
        for name, number in systems.items()
    ]
    return f'<p class="legend">{" ".join(entries)}</p>'


def colour(number: int) -> str:
    """Of a system by its number."""
    return COLOURS[number % len(COLOURS)]


def shape(number: int) -> str:
    """Path of a system's mark, relative to its point."""
    rounds = number // len(COLOURS)
    return _SHAPES[(number + rounds) % len(_SHAPES)]


@dataclass(frozen=True)
class _Frame:
    """Where values are on the picture, and the marks of the axes."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]

    @classmethod
    def around(cls, axes: Axes, points: Sequence[Point], marks: list[str] | None = None) -> _Frame:
        """A frame that holds all points; `marks` name the x 0, 1, 2 and so on."""
        xs, ys = [p.x for p in points], [p.y for p in points]
        if axes.diagonal:
            xs = ys = [*xs, *ys]
        across, up = _widened(xs), _widened(ys)
        named = _ticks(*across) if marks is None else list(enumerate(marks))
        return cls(across, up, [(float(x), text) for x, text in named], _ticks(*up))

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def draw(self, axes: Axes) -> str:
        """Axes, marks, labels, and the diagonal."""
        right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        parts = [_text(8, 16, axes.title, "title")]
        for value, text in self.y_marks:
            y = self.y(value)
            parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" class="grid"/>')
            parts.append(_text(_LEFT - 5, y + 4, text, "mark end"))
        for value, text in self.x_marks:
            x = self.x(value)
            parts.append(f'<path d="M{x:.1f} {_TOP}V{floor}" class="grid"/>')
            parts.append(_text(x, floor + 15, text, "mark middle"))
        if axes.diagonal:
            low, high = self.x_range
            ends = (self.x(low), self.y(low), self.x(high), self.y(high))
            parts.append('<path d="M{:.1f} {:.1f}L{:.1f} {:.1f}" class="equal"/>'.format(*ends))
        parts.append(f'<path d="M{_LEFT} {_TOP}V{floor}H{right}" class="axis"/>')
        parts.append(_text((_LEFT + right) / 2, _HEIGHT - 6, axes.x, "label middle"))
        middle = (_TOP + floor) / 2
        parts.append(
            f'<text class="label middle" transform="translate(12 {middle:.0f}) rotate(-90)">'
            f"{escape(axes.y)}</text>"
        )
        return "".join(parts)


def _dots(frame: _Frame, points: Sequence[Point], number: int, *, named: bool) -> str:
    mark = shape(number)
    places = [(f"M{frame.x(p.x):.1f} {frame.y(p.y):.1f}{mark}", p.name) for p in points]
    if not named:
        return _path("".join(place for place, _ in places), number) if places else ""
    return "".join(_path(place, number, name) for place, name in places)


def _path(places: str, number: int, name: str = "") -> str:
    told = f"<title>{escape(name)}</title>" if name else ""
    # A path without length shows its round ends: a disc.
    width = 7 if shape(number) == "h0" else 1.8
    return (
        f'<path d="{places}" fill="none" stroke="{colour(number)}" stroke-width="{width}" '
        f'stroke-linecap="round" stroke-linejoin="round" opacity="0.75">{told}</path>'
    )


def _whisker(left: float, right: float, y: float) -> str:
    return (
        f'<path d="M{left:.1f} {y}H{right:.1f}M{left:.1f} {y - 4}v8M{right:.1f} {y - 4}v8" '
        'class="whisker"/>'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _svg(content: str, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{content}</svg>"
    )


def _widened(values: Sequence[float]) -> tuple[float, float]:
    """Range of the values with some air, never empty."""
    low, high = min(values), max(values)
    air = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - air, high + air


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """About five round numbers in a range, and how they are written."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.8 * rough)
    first = math.ceil(low / step) * step
    # Rounded to the step, lest 0.3 become 0.30000000000000004; plus 0 makes no "-0".
    values = [round(value / step) * step + 0.0 for value in np.arange(first, high, step).tolist()]
    return [(value, f"{value:.10g}") for value in values]
