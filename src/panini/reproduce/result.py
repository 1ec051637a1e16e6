"""What a table of a study holds, as JSON and as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from panini.evaluation import Report
from panini.evaluation.results import finite
from panini.evaluation.tables import NOTHING, counted
from panini.evaluation.tables import table as grid
from panini.evaluation.tables import title as titled
from panini.images import write_whole
from panini.metrics import DESCRIPTIONS
from panini.metrics.bootstrap import Interval, paired_interval

_MILLION = 1e6


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system of a table."""

    label: str
    """What it is."""
    system: str
    """Its name in the evaluation."""
    source: str
    """Where it comes from: trained here, shipped, official weights."""
    parameters: int | None = None
    fusion_parameters: int | None = None
    """Of what joins the two features, image branches included."""
    images: int | None = None
    """That it was trained on here."""
    seconds: float | None = None
    """Of that training."""
    faces: int = 0
    """That it was measured on."""
    scores: dict[str, Interval] = field(default_factory=dict)
    sets: dict[str, float] = field(default_factory=dict)
    """Distances of the whole set from the truths."""
    set_intervals: dict[str, Interval] = field(default_factory=dict)
    """Of these, where they are known."""
    against: dict[str, Interval] = field(default_factory=dict)
    """Paired difference from the table's reference row: the reference less this one."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table, whole."""

    name: str
    """Of its files."""
    title: str
    about: dict[str, Any]
    """Command, budget, seeds, data."""
    rows: list[Row] = field(default_factory=list)
    reference: str | None = None
    """System that the others are set against."""
    published: list[tuple[str, ...]] = field(default_factory=list)
    """The paper's own table, its head first."""
    published_note: str = ""
    """How its numbers are to be read."""
    absent: dict[str, str] = field(default_factory=dict)
    """Rows that are not there, and why."""
    notes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """What else the JSON has."""
    sections: list[str] = field(default_factory=list)
    """What else the Markdown has."""


def measured(row: Row, report: Report, reference: str | None = None) -> Row:
    """A row with what a report says of its system; metrics are named with their networks."""
    names = {report.names.get(metric, metric): metric for metric in report.metrics}
    scores = {name: report.mean(row.system, metric) for name, metric in names.items()}
    against = {}
    if reference is not None and reference != row.system:
        against = {
            name: paired_interval(
                report.values(reference, metric), report.values(row.system, metric)
            )
            for name, metric in names.items()
            if DESCRIPTIONS[name].better is not None
        }
    faces = len(report.rows[row.system])
    sets = dict(report.sets.get(row.system, {}))
    intervals = {
        name: distance.interval
        for name, distance in report.set_distances.get(row.system, {}).items()
        if not math.isnan(distance.interval.low)
    }
    found = {"scores": scores, "sets": sets, "set_intervals": intervals, "against": against}
    return replace(row, faces=faces, **found)


def with_comparable_sets(rows: Sequence[Row]) -> list[Row]:
    """Without the distances of sets where a row has more or fewer faces than the first.

    Their bias follows the number of faces: side by side, they would compare just that.
    """
    return [
        row if row.faces == rows[0].faces else replace(row, sets={}, set_intervals={})
        for row in rows
    ]


def verdict(name: str, difference: Interval) -> str:
    """Whether the reference is better, worse or undecided, by the interval of a difference.

    "" of no faces, beside the "–" of `number`.
    """
    if not difference.count:
        return ""
    # One face has no spread, so its interval is a point.
    if difference.count > 1 and not difference.low <= 0 <= difference.high:
        higher = DESCRIPTIONS[name].better == "higher"
        return "better" if (difference.mean > 0) == higher else "worse"
    return "undecided"


# ----------------------------------------------------------------------------------------------
# Files


def write_table(table: Table, out: Path) -> list[Path]:
    """Write NAME.json and NAME.md into a folder, each whole or not at all; returns the files."""
    content = {key: value for key, value in asdict(table).items() if key != "sections"}
    content |= content.pop("more")
    files = {
        out / f"{table.name}.json": json.dumps(finite(content), indent=1, allow_nan=False),
        out / f"{table.name}.md": markdown(table),
    }
    for path, text in files.items():
        write_whole(path, text.encode())
    return list(files)


def markdown(table: Table) -> str:
    """The table for people."""
    about = "; ".join(f"{key} {value}" for key, value in table.about.items() if key != "command")
    parts = [f"# {table.title}", f"{about}.", f"```\n{table.about['command']}\n```"]
    if table.rows:
        parts.append(_scores_table(table.rows))
    if table.reference is not None and any(row.against for row in table.rows):
        parts.append(_against_table(table))
    parts += table.sections
    if table.published:
        head, *rows = table.published
        parts += ["The paper's own, with its networks, data and degradations:", grid(head, rows)]
        parts += [table.published_note] if table.published_note else []
    if table.absent:
        parts.append(grid(("not there", "why"), list(table.absent.items())))
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _scores_table(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    sets = list(dict.fromkeys(name for row in rows for name in row.sets))
    head = ["method", "source", "parameters", "of the fusion", "images", "faces"]
    head += [_title(name) for name in names + sets]
    return grid(head, [_cells(row, names, sets) for row in rows])


def _cells(row: Row, names: Sequence[str], sets: Sequence[str]) -> list[str]:
    cells = [row.label, row.source, _millions(row.parameters), _millions(row.fusion_parameters)]
    cells += [NOTHING if row.images is None else f"{row.images:,}", str(row.faces)]
    cells += [_score(row, name) for name in names]
    return cells + [_distance(row, name) for name in sets]


def _score(row: Row, name: str) -> str:
    found = row.scores.get(name)
    return NOTHING if found is None else counted(number(name, found), found, row.faces)


def _distance(row: Row, name: str) -> str:
    if name not in row.sets:
        return NOTHING
    text, found = f"{row.sets[name]:.4g}", row.set_intervals.get(name)
    return text if found is None else f"{text} [{found.low:.4g}, {found.high:.4g}]"


def _against_table(table: Table) -> str:
    rows = [row for row in table.rows if row.against]
    names = list(dict.fromkeys(name for row in rows for name in row.against))
    head = [f"{table.reference} less …", *(_title(name) for name in names)]
    lines = []
    for row in rows:
        cells = [row.label]
        for name in names:
            found = row.against.get(name)
            said = "" if found is None else verdict(name, found)
            cells.append(f"{number(name, found, signed=True)} {said}".rstrip())
        lines.append(cells)
    text = "Paired differences over the same faces, with 95 % intervals; "
    return f"{text}better and worse are said of {table.reference}.\n\n{grid(head, lines)}"


def _title(name: str) -> str:
    return titled(DESCRIPTIONS[name]) if name in DESCRIPTIONS else name


def number(name: str, value: Interval | None, *, signed: bool = False) -> str:
    """A mean with its interval."""
    if value is None or not value.count:
        return NOTHING
    known = DESCRIPTIONS.get(name)
    digits = 2 if known is not None and known.unit == "dB" else 3
    sign = "+" if signed else ""
    low, high = (f"{bound:{sign}.{digits}f}" for bound in (value.low, value.high))
    return f"{value.mean:{sign}.{digits}f} [{low}, {high}]"


def _millions(count: int | None) -> str:
    return NOTHING if count is None else f"{count / _MILLION:.2f} M"
