"""A report as one HTML page that needs nothing else: tables, plots and pictures are inside."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO

from panini.evaluation.plots import Axes, Point, bars, legend, line_plot, scatter
from panini.evaluation.report import Report
from panini.evaluation.results import FaceRow
from panini.evaluation.sheet import Shown, tile, titles
from panini.evaluation.tables import (
    MISSED,
    VERDICT_HEAD,
    Line,
    against,
    change_rows,
    mean_rows,
    notes,
    set_names,
    set_rows,
    theta_head,
    theta_rows,
    title,
    verdict_rows,
)
from panini.images import RgbImage

_SIDE = 256  # Of a picture, px.

# Label → what of a face; θ is shown against each.
_NUMBERS: dict[str, Callable[[FaceRow], float]] = {
    "low side, px": lambda row: math.nan if row.low_side is None else row.low_side,
    "blur σ, px": lambda row: row.params.get("sigma", math.nan),
    "noise, levels": lambda row: row.params.get("noise", math.nan),
    "JPEG quality": lambda row: row.params.get("jpeg", math.nan),
}

_STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1em;max-width:75em;color:#222;
background:#fff}
h1{font-size:1.4em;overflow-wrap:anywhere}h2{font-size:1.15em;margin-top:2em}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums}
td,th{border-bottom:1px solid #ddd;padding:.3em .7em;text-align:right;white-space:nowrap}
td:first-child,th:first-child,.labels td:nth-child(2),.labels th:nth-child(2){text-align:left}
.labels td:nth-child(2){white-space:normal;min-width:7em}
.missed{font-weight:bold}.legend span{margin-right:1.2em;white-space:nowrap}
.legend svg{vertical-align:-3px;overflow:visible}
.plots{display:grid;gap:1em;grid-template-columns:repeat(auto-fill,minmax(min(100%,21em),1fr))}
.plots svg{width:100%;height:auto;overflow:visible}
.title{font-size:13px;font-weight:600}.name,.value,.mark,.label{font-size:11px}.mark{fill:#555}
.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:#e8e8e8}.axis{stroke:#888;fill:none}.equal{stroke:#888;stroke-dasharray:4 3}
.whisker{stroke:#111;fill:none;stroke-width:1.3}
.face{display:grid;gap:.4em;grid-template-columns:repeat(auto-fill,minmax(min(45%,10em),1fr));
margin:0 0 1.2em}
figure{margin:0}figure img{width:100%;height:auto;display:block}
figcaption{font-size:.8em;color:#555;overflow-wrap:anywhere}
h3{font-size:.9em;font-weight:normal;color:#555;margin:.5em 0;overflow-wrap:anywhere}
.honest{background:#fff4d6;padding:.7em 1em}
"""

_HONEST = (
    "A restored face is a likely face, not the true one. Numbers are means over faces: look at the "
    "pictures too."
)


def page(
    report: Report, lines: Sequence[Line], faces: Sequence[Shown], *, heading: str, told: str
) -> str:
    """The page.

    Args:
        report: What was found.
        lines: `tables.summarise(report)`.
        faces: Pictures to show.
        heading: Of the page.
        told: A sentence below it.
    """
    body = [
        f"<h1>{escape(heading)}</h1><p>{escape(told)}</p>",
        f'<p class="honest">{escape(_HONEST)}</p>',
        _section("Floor of shipped weights", _verdicts(report)),
        _section("Means", _table(["faces", "metric", *report.systems], mean_rows(report, lines))),
        _section(
            "Change", _table(["faces", "metric", *against(report)], change_rows(report, lines))
        ),
        f"<p>{escape(' '.join(notes(report)))}</p>",
        _section("Sets of faces", _table(["system", *set_names(report)], set_rows(report))),
        _section("Means with their 95 % intervals, all faces", _bars(report, lines)),
        _section("θ", _table(theta_head(), theta_rows(report)) + _theta(report)),
        _section("Face by face, against the input", _by_face(report)),
        _section("Pictures", _pictures(report, faces)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    kind = "labels" if "metric" in head or head == VERDICT_HEAD else ""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    kind = ' class="missed"' if text == MISSED else ""
    return f"<td{kind}>{escape(text)}</td>"


def _verdicts(report: Report) -> str:
    return _table(VERDICT_HEAD, verdict_rows(report))


def _bars(report: Report, lines: Sequence[Line]) -> str:
    plots = []
    for metric in report.totals:
        own = [line for line in lines if line.group == "all" and line.metric == metric]
        plots.append(
            bars(title(report.describe(metric)), [(line.system, line.mean) for line in own])
        )
    return _plots(plots)


def _theta(report: Report) -> str:
    """θ over the rates, and against each number of the degradation."""
    numbers = {name: index for index, name in enumerate(report.systems)}
    rates = {
        name: list(zip(map(float, found.rates), found.means, found.deviations, strict=True))
        for name, found in report.theta.items()
    }
    axes = Axes(
        title="θ over the downsampling rate", x="rate, all else equal", y="mean θ ± deviation"
    )
    plots = [line_plot(axes, rates, numbers)]
    for label, number in _NUMBERS.items():
        series = {
            name: [Point(number(row), row.theta, row.key) for row in report.rows[name]]
            for name in report.systems[1:]
        }
        plots.append(scatter(Axes(title=f"θ against {label}", x=label, y="θ"), series, numbers))
    seen = {
        name: numbers[name]
        for name in report.systems[1:]
        if any(math.isfinite(row.theta) for row in report.rows[name])
    }
    content = _plots(plots)
    return legend(seen) + content if content else ""


def _by_face(report: Report) -> str:
    """Each metric of each face, the input's across and the systems' up."""
    numbers = {name: index for index, name in enumerate(report.systems)}
    keys = [row.key for row in report.rows[report.input]]
    plots = []
    for metric in report.metrics:
        known = report.describe(metric)
        if known.better is None:
            continue
        across = report.values(report.input, metric)
        series = {
            name: [
                Point(x, y, key)
                for x, y, key in zip(across, report.values(name, metric), keys, strict=True)
            ]
            for name in report.systems[1:]
        }
        where = "above" if known.better == "higher" else "below"
        axes = Axes(
            title=f"{known.label}: better {where} the line",
            x=report.input,
            y="restored",
            diagonal=True,
        )
        plots.append(scatter(axes, series, numbers))
    content = _plots(plots)
    return legend({name: numbers[name] for name in report.systems[1:]}) + content if content else ""


def _plots(plots: Sequence[str]) -> str:
    drawn = [plot for plot in plots if plot]
    return f'<div class="plots">{"".join(drawn)}</div>' if drawn else ""


def _pictures(report: Report, faces: Sequence[Shown]) -> str:
    names = titles(report)
    parts = []
    for face in faces:
        figures = "".join(
            f'<figure><img src="{_data(picture)}" alt="{escape(name)}" '
            f'width="{_SIDE}" height="{_SIDE}">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, picture in zip(names, face.pictures, strict=True)
        )
        parts.append(f'<h3>{escape(face.caption)}</h3><div class="face">{figures}</div>')
    return "".join(parts)


def _data(picture: RgbImage) -> str:
    """A picture as the address of itself."""
    buffer = BytesIO()
    tile(picture, _SIDE).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
