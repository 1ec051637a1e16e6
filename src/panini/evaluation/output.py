"""The files of a report, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from panini.evaluation.cases import Cases
from panini.evaluation.page import page
from panini.evaluation.report import Report
from panini.evaluation.results import FILES, Results
from panini.evaluation.sheet import contact_sheet, shown
from panini.evaluation.tables import drawn, markdown, summarise, summary_csv, to_csv, to_dict
from panini.images import write_whole


def write_report(
    report: Report, cases: Cases, results: Results, about: Mapping[str, Any]
) -> list[Path]:
    """Write `FILES` into the folder of the results.

    Args:
        report: What was found.
        cases: Its faces.
        results: Where the restored ones are.
        about: What was evaluated: models, versions; JSON values.

    Returns:
        The files.
    """
    lines = summarise(report)
    faces = shown(report, cases, results)
    head = f"{', '.join(report.systems[1:])} on {report.plan.data.name}"
    told = f"{len(cases.keys)} faces, task {report.plan.task}, seed {report.plan.seed}"
    told += "." if (degraded := drawn(report)) is None else f", degradations {degraded}."
    sheet = BytesIO()
    contact_sheet(report, faces).save(sheet, "PNG")
    data = to_dict(report, lines, about)
    contents = (
        json.dumps(data, indent=1, allow_nan=False).encode(),
        to_csv(report).encode(),
        summary_csv(report, lines).encode(),
        f"# {head}\n\n{told}\n\n{markdown(report, lines)}".encode(),
        sheet.getvalue(),
        page(report, lines, faces, heading=head, told=told).encode(),
    )
    for name, content in zip(FILES, contents, strict=True):
        write_whole(report.plan.out / name, content)
    return [report.plan.out / name for name in FILES]
