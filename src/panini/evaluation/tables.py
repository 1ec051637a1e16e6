"""A report as numbers to read on: JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from panini.evaluation.cases import THETA_RATES
from panini.evaluation.floor import verdicts
from panini.evaluation.plan import FULL_SIZE, SETS, THETA, Degradations
from panini.evaluation.report import MILD_FROM, Report
from panini.evaluation.results import finite
from panini.evaluation.sizes import DEGRADED_SIZE
from panini.metrics import DESCRIPTIONS, Description
from panini.metrics.bootstrap import Interval

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
NOTHING, MISSED = "–", "missed"
VERDICT_HEAD = ["system", "floor", "measured", ""]
_PARAMS = ("sigma", "rate", "noise", "jpeg")
_DRAWN: Mapping[Degradations, str] = {
    "floor": "Degraded as shipped weights are judged: a low side of 16 to 100 px of 512, blur σ "
    "0.5 to 4.5 px, noise 0 to 15 levels, JPEG quality 50 to 95.",
    "paper": "Degraded as the paper prints it: rate 10 to 200, which is a low side of 51 to 3 px "
    "of 512, noise 0 to 25 levels, JPEG quality 5 to 50; blur σ 0.2 to 10 px as GFP-GAN has it.",
}
"""What a report says of the degradations that were drawn."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one system over one group of faces."""

    group: str
    metric: str
    system: str
    mean: Interval
    change: Interval | None
    """Difference from the input; None of the input itself, and of θ, which it has not."""
    ratio: Interval | None
    """Mean over the input's."""


def summarise(report: Report) -> list[Line]:
    """Every mean with its interval, and how it differs from the input."""
    lines = []
    for group in report.groups:
        for metric in report.totals:
            for system in report.systems:
                own = (system, metric, group)
                alone = system == report.input or metric == THETA
                lines.append(
                    Line(
                        group=group,
                        metric=metric,
                        system=system,
                        mean=report.mean(*own),
                        change=None if alone else report.change(*own),
                        ratio=None if alone else report.ratio(*own),
                    )
                )
    return lines


def to_dict(report: Report, lines: Sequence[Line], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything for JSON but the pictures; numbers that are not finite become None.

    Args:
        report: What was found.
        lines: `summarise(report)`.
        about: What goes beside it.
    """
    plan = report.plan
    return finite(
        {
            **about,
            "task": plan.task,
            "data": plan.data.name,
            "lq": None if plan.lq is None else plan.lq.name,
            "seed": plan.seed,
            "degradations": drawn(report),
            "count": len(report.rows[report.input]),
            "metrics": [*(name for name in plan.wanted if name not in SETS), *_sets(report)],
            "names": dict(report.names),
            "systems": report.systems,
            "summary": [asdict(line) for line in lines],
            "sets": report.sets,
            "set_distances": {
                name: {of: asdict(distance) for of, distance in own.items()}
                for name, own in report.set_distances.items()
            },
            "gt_sharpness": asdict(report.gt_sharpness),
            "verdicts": {
                name: [asdict(verdict) for verdict in verdicts(report, name)]
                for name in report.systems[1:]
            },
            "theta": {
                name: {
                    "rates": list(found.rates),
                    "means": found.means,
                    "intervals": [asdict(interval) for interval in found.intervals],
                    "deviations": found.deviations,
                    "rising": found.rising,
                    "rising_interval": asdict(found.rising_interval),
                }
                for name, found in report.theta.items()
            },
            "seconds": report.seconds,
            "faces": {name: [asdict(row) for row in rows] for name, rows in report.rows.items()},
        }
    )


def to_csv(report: Report) -> str:
    """One line a face and system; what is not known is empty."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    rates = [f"theta_{rate}" for rate in THETA_RATES] if report.theta else []
    head = ["system", "key", *_PARAMS, "low_side", "theta", *rates, *report.metrics]
    writer.writerow([*head, "gt_sharpness"])
    for system, rows in report.rows.items():
        for row in rows:
            followed = row.rates or (math.nan,) * len(rates)
            numbers = [
                *(row.params.get(name, math.nan) for name in _PARAMS),
                math.nan if row.low_side is None else row.low_side,
                row.theta,
                *followed[: len(rates)],
                *(row.scores[name] for name in report.metrics),
                row.gt_sharpness,
            ]
            writer.writerow([system, row.key, *("" if math.isnan(n) else n for n in numbers)])
    return buffer.getvalue()


def summary_csv(report: Report, lines: Sequence[Line]) -> str:
    """Every total with its interval, a line each; metrics are named with their networks.

    Args:
        report: What was found.
        lines: `summarise(report)`.
    """
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["system", "stratum", "metric", "mean", "low", "high", "n"])
    for system, stratum, metric, found in _totals(report, lines):
        numbers = (found.mean, found.low, found.high)
        told = ["" if math.isnan(number) else number for number in numbers]
        writer.writerow([system, stratum, metric, *told, found.count])
    return buffer.getvalue()


def _totals(report: Report, lines: Sequence[Line]) -> Iterator[tuple[str, str, str, Interval]]:
    """System, stratum, metric and mean: of the faces, of sets, and of θ over the rates."""
    for line in lines:
        if line.metric != THETA or line.mean.count:
            yield line.system, line.group, report.names.get(line.metric, line.metric), line.mean
    for system, own in report.set_distances.items():
        for metric, distance in own.items():
            yield system, "all", metric, distance.interval
    for system, found in report.theta.items():
        for rate, interval in zip(found.rates, found.intervals, strict=True):
            yield system, "all", f"theta_{rate}", interval


def markdown(report: Report, lines: Sequence[Line]) -> str:
    """The tables for README, model card and terminal."""
    parts = [
        table(["faces", "metric", *report.systems], mean_rows(report, lines)),
        table(["faces", "metric", *against(report)], change_rows(report, lines)),
        _told(report),
        table(["system", *set_names(report)], set_rows(report)),
        table(theta_head(), theta_rows(report)),
        table(VERDICT_HEAD, [_stressed(row) for row in verdict_rows(report)]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; "" without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in lines
    )


def mean_rows(report: Report, lines: Sequence[Line]) -> list[list[str]]:
    """Group, metric, and each system's mean with its interval."""
    return [
        [
            f"{own[0].group} ({count})",
            title(report.describe(own[0].metric)),
            *(counted(_mean(one), one.mean, count) for one in own),
        ]
        for own, count in _by_metric(report, lines)
    ]


def change_rows(report: Report, lines: Sequence[Line]) -> list[list[str]]:
    """Group, metric, and each system's change against the input."""
    return [
        [
            f"{own[0].group} ({count})",
            report.describe(own[0].metric).label,
            *(counted(change(one), one.change, count) for one in own[1:]),
        ]
        for own, count in _by_metric(report, lines)
        if own[0].metric != THETA
    ]


def set_names(report: Report) -> list[str]:
    """Titles of the distances between sets."""
    return [title(DESCRIPTIONS[name]) for name in _sets(report)]


def set_rows(report: Report) -> list[list[str]]:
    """System, and its distances from the truth with their intervals."""
    return [
        [system, *(_distance(found.interval) for found in own.values())]
        for system, own in report.set_distances.items()
    ]


def theta_head() -> list[str]:
    """Of `theta_rows`."""
    return ["θ, mean [interval] ± deviation", *(f"rate {rate}" for rate in THETA_RATES), "rising"]


def theta_rows(report: Report) -> list[list[str]]:
    """System, θ at each rate, share of the faces whose θ rises at every step."""
    return [
        [
            system,
            *(
                f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}] ± {deviation:.3f}"
                if mean.count
                else NOTHING
                for mean, deviation in zip(found.intervals, found.deviations, strict=True)
            ),
            _share(found.rising_interval),
        ]
        for system, found in report.theta.items()
    ]


def verdict_rows(report: Report) -> list[list[str]]:
    """System, demand, what was measured, whether it is met."""
    return [
        [system, verdict.demand, verdict.measured, "met" if verdict.passed else MISSED]
        for system in report.systems[1:]
        for verdict in verdicts(report, system)
    ]


def counted(text: str, found: Interval | None, faces: int) -> str:
    """A mean, and on how many of the faces it stands where they are not all."""
    if found is None or found.count in (0, faces):
        return text
    return f"{text} ({found.count} of {faces})"


def title(description: Description) -> str:
    """Label, unit, and an arrow to where better is."""
    unit = f", {description.unit}" if description.unit else ""
    return f"{description.label}{unit}{ARROWS[description.better]}"


def change(line: Line) -> str:
    """Against the input: a difference where there is a unit, else a share."""
    assert line.change is not None
    assert line.ratio is not None
    if not line.change.count:
        return NOTHING
    if unit := DESCRIPTIONS[line.metric].unit:
        found, digits = line.change, _digits(line)
        low, high = f"{found.low:+.{digits}f}", f"{found.high:+.{digits}f}"
        return f"{found.mean:+.{digits}f} {unit} [{low}, {high}]"
    if not line.ratio.count:
        return NOTHING
    mean, low, high = (
        100 * (value - 1) for value in (line.ratio.mean, line.ratio.low, line.ratio.high)
    )
    return f"{mean:+.1f} % [{low:+.1f}, {high:+.1f}]"


def notes(report: Report) -> list[str]:
    """What has to be known to read the numbers."""
    plan = report.plan
    found = [f"Intervals are 95 %, from the bootstrap over faces; compared at {plan.size} px."]
    sharpness = report.gt_sharpness
    if sharpness.count:
        interval = f"[{sharpness.low:.4f}, {sharpness.high:.4f}]"
        found.append(f"Sharpness of the truth: {sharpness.mean:.4f} {interval}.")
    if (degraded := drawn(report)) is not None:
        found.append(_DRAWN[degraded])
    if "mild" in report.groups or "severe" in report.groups:
        found.append(f"Mild: low side of the resize at least {MILD_FROM} px; severe: less.")
    if plan.task == "sr16":
        found.append(
            "Full size: the truth's own. Faithfulness: the enlarged face, reduced again, against "
            "the input."
        )
    elif FULL_SIZE in report.metrics:
        found.append(f"Full size: {max(DEGRADED_SIZE, plan.size)} px.")
    if report.set_distances:
        found.append(
            "Distances of sets are biased upwards for few faces: compare within this table only. "
            "Their intervals are 1.96 deviations over random halves of the faces, and do not hold "
            "that bias."
        )
    elif any(name in plan.wanted for name in SETS):
        found.append("Distances of sets need at least two faces, so there are none.")
    return found


def drawn(report: Report) -> Degradations | None:
    """What the faces were degraded by; None of sr16 and of ready pairs."""
    plan = report.plan
    return plan.degradations if plan.task == "mfr" and plan.lq is None else None


def against(report: Report) -> list[str]:
    """Titles of the columns of `change_rows`."""
    return [f"{name} against {report.input}" for name in report.systems[1:]]


def _sets(report: Report) -> list[str]:
    """The distances of sets that were computed, named with their network."""
    return list(next(iter(report.set_distances.values()), {}))


def _stressed(row: Sequence[str]) -> list[str]:
    return [f"**{cell}**" if cell == MISSED else cell for cell in row]


def _told(report: Report) -> str:
    return " ".join(notes(report))


def _by_metric(report: Report, lines: Sequence[Line]) -> Iterator[tuple[list[Line], int]]:
    """The lines of all systems side by side, and how many faces their group has."""
    width = len(report.systems)
    for start in range(0, len(lines), width):
        own = list(lines[start : start + width])
        yield own, len(report.values(report.input, own[0].metric, own[0].group))


def _share(found: Interval) -> str:
    mean, low, high = (f"{100 * value:.1f}" for value in (found.mean, found.low, found.high))
    return f"{mean} % [{low}, {high}] of faces"


def _distance(found: Interval) -> str:
    """A distance of sets with its interval where that is known: not of fewer than 4 faces."""
    text = f"{found.mean:.4g}"
    return text if math.isnan(found.low) else f"{text} [{found.low:.4g}, {found.high:.4g}]"


def _mean(line: Line) -> str:
    found = line.mean
    if not found.count:
        return NOTHING
    digits = _digits(line)
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _digits(line: Line) -> int:
    """Decimals that a mean is told with."""
    return 2 if DESCRIPTIONS[line.metric].unit in ("dB", "levels") else 4
