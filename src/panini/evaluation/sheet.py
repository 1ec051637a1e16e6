"""Pictures of a report: the input, what each system made of it, and the truth, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from panini.degradations import DegradationParams
from panini.evaluation.cases import Case, Cases
from panini.evaluation.report import Report
from panini.evaluation.results import Results
from panini.evaluation.sizes import COMPARED_SIZE, DEGRADED_SIZE
from panini.images import RgbImage

_SHOWN = ("psnr", "lpips", "identity", "faithfulness")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One face in all its versions."""

    caption: str
    pictures: list[RgbImage]
    """Square, of any size, in the order of `titles`."""


def titles(report: Report) -> list[str]:
    """What the pictures of a face are, from left to right."""
    first = ["input"] if report.plan.task == "sr16" else []
    return [*first, *report.systems, "truth"]


def shown(report: Report, cases: Cases, results: Results, *, rows: int | None = 8) -> list[Shown]:
    """Faces to look at, mild to severe where that is known.

    Args:
        report: What was found.
        cases: Its faces.
        results: Where the restored ones are.
        rows: So many, evenly spread over the order; None takes all.
    """
    order = sorted(report.rows[report.input], key=lambda row: -(row.low_side or 0))
    keys = [row.key for row in order]
    if rows is not None and rows < len(keys):
        keys = [keys[round(index)] for index in np.linspace(0, len(keys) - 1, rows)]
    made = {case.key: case for case in (make() for make in cases.jobs(set(keys), rates=False))}
    return [_shown(report, results, made[key]) for key in keys]


def contact_sheet(report: Report, faces: Sequence[Shown], *, side: int = 256) -> Image.Image:
    """Faces below each other, their versions side by side; `side` px each."""
    return picture_table(titles(report), [(face.caption, face.pictures) for face in faces], side)


def caption(params: DegradationParams, theta: float) -> str:
    """What was done to a face of 512 px, and θ; in letters that Pillow's own font has."""
    return (
        f"{params.low_side(DEGRADED_SIZE)} px   blur {params.sigma:.1f}   "
        f"noise {params.noise:.0f}   JPEG {params.jpeg}   theta {theta:.2f}"
    )


def picture_table(
    titles: Sequence[str], rows: Sequence[tuple[str, Sequence[RgbImage]]], side: int = 256
) -> Image.Image:
    """Pictures in a grid: a title above each column, a caption above each row.

    Args:
        titles: One a column.
        rows: (caption, square uint8 RGB pictures of any size, one a column).
        side: Side of a picture, px.
    """
    gap, head = 4, 22
    width = len(titles) * (side + gap) - gap
    sheet = Image.new("RGB", (width, len(rows) * (side + head) + head), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for column, title in enumerate(titles):
        draw.text((column * (side + gap) + 4, 4), title, fill=(0, 0, 0), font=font)
    for row, (text, pictures) in enumerate(rows):
        top = head + row * (side + head)
        draw.text((4, top + 4), text, fill=(90, 90, 90), font=font)
        for column, picture in enumerate(pictures):
            sheet.paste(tile(picture, side), (column * (side + gap), top + head))
    return sheet


def tile(picture: RgbImage, side: int) -> Image.Image:
    """A picture at `side` px."""
    return Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)


def _shown(report: Report, results: Results, case: Case) -> Shown:
    pictures = [results.read(system, case.key) for system in report.systems]
    if report.plan.task == "sr16":
        # Its pixels as they are: smoothing would show a second interpolation.
        times = COMPARED_SIZE // case.lq.shape[0]
        pictures.insert(0, case.lq.repeat(times, 0).repeat(times, 1))
    return Shown(caption=_caption(report, case), pictures=[*pictures, case.gt])


def _caption(report: Report, case: Case) -> str:
    """What was done to a face, or how well the first system restored it."""
    row = next(row for row in report.rows[report.systems[1]] if row.key == case.key)
    if case.params is not None:
        return caption(case.params, row.theta)
    numbers = [f"{name} {row.scores[name]:.2f}" for name in _SHOWN if name in row.scores]
    return "   ".join([case.key, *numbers])
