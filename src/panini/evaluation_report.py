"""What an `Evaluation` says: means with intervals, the floor's verdicts, a contact sheet."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from panini.degradations import DegradationParams
from panini.evaluation import DEGRADED_SIZE, Case, Evaluation, FaceResult
from panini.images import RgbImage, write_whole
from panini.metrics.judge import METRICS

MILD_FROM = 50
"""Low side of the resize, px, from which a degradation counts as mild."""

LATTICE_LIMIT = 1.0
"""Levels of 255. One level is the step of 8 bits; the mobile prior's own faces have 0.3 to 0.7."""

_DIGITS = {"ssim": 3, "lpips": 3, "identity": 3, "sharpness": 4}
_DECIBELS = {
    "psnr": "PSNR",
    "psnr_full": "PSNR at full size",
    "faithfulness": "faithfulness",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric over one group of faces; intervals are 95 %, from the bootstrap over faces."""

    group: str
    """Of faces; or, of a super-resolution, how they were enlarged."""
    metric: str
    count: int
    input: float
    restored: float
    ratio: float
    """Restored / input."""
    ratio_interval: tuple[float, float]
    difference: float
    """Restored - input."""
    difference_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One demand of the floor for shipped weights."""

    demand: str
    measured: str
    passed: bool


def summarise(evaluation: Evaluation, *, resamples: int = 2000) -> list[Row]:
    """Means, ratios and intervals of every metric over all, mild and severe faces.

    Args:
        evaluation: What `evaluate` found.
        resamples: Draws of the bootstrap.
    """
    rows = []
    faces = evaluation.faces
    groups = {
        "all": faces,
        "mild": [face for face in faces if face.low_side >= MILD_FROM],
        "severe": [face for face in faces if face.low_side < MILD_FROM],
    }
    for group, members in groups.items():
        if not members:
            continue
        draws = bootstrap(len(members), resamples)
        for metric in METRICS:
            before, after = (_values(members, side, metric) for side in ("input", "restored"))
            rows.append(compare(group, metric, before, after, draws))
    return rows


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """The floor's demands that numbers can decide; eyes, teeth and hair are for a person to see."""
    rows = {row.metric: row for row in summarise(evaluation, resamples=1) if row.group == "all"}
    lpips, identity, psnr = rows["lpips"], rows["identity"], rows["psnr"]
    rising = evaluation.theta.rising
    grid = float(np.max([face.grid for face in evaluation.faces]))
    return [
        Verdict(
            demand=f"{evaluation.lpips_name} at least 25 % below the input's",
            measured=f"{100 * (lpips.ratio - 1):+.1f} %",
            passed=lpips.ratio <= 0.75,
        ),
        Verdict(
            demand="identity distance below the input's",
            measured=f"{identity.restored:.3f} against {identity.input:.3f}",
            passed=identity.restored < identity.input,
        ),
        Verdict(
            demand="PSNR at least the input's less 0.5 dB",
            measured=f"{psnr.difference:+.2f} dB",
            passed=psnr.difference >= -0.5,
        ),
        Verdict(
            demand="θ rises with the rate on at least 90 % of the faces",
            measured=f"{100 * rising:.1f} %",
            passed=rising >= 0.9,
        ),
        Verdict(
            demand="no lattice of a whole level (of 255) in any restored face",
            measured=f"at most {grid:.2f} levels",
            passed=grid < LATTICE_LIMIT,
        ),
    ]


def to_dict(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """Everything for JSON but the pictures; numbers that are not finite become None.

    Args:
        evaluation: What `evaluate` found.
        about: What was evaluated: model, data, versions.
    """
    theta = evaluation.theta
    return finite(
        {
            **about,
            "seed": evaluation.seed,
            "lpips": evaluation.lpips_name,
            "summary": [asdict(row) for row in summarise(evaluation)],
            "verdicts": [asdict(verdict) for verdict in verdicts(evaluation)],
            "theta": {
                "rates": list(theta.rates),
                "means": theta.means,
                "rising": theta.rising,
                "faces": theta.thetas,
            },
            "faces": [asdict(face) for face in evaluation.faces],
        }
    )


def markdown(evaluation: Evaluation) -> str:
    """The tables for README and model card."""
    lines = [
        "| faces | metric | input | restored | change [95 %] |",
        "|---|---|---|---|---|",
        *(table_line(row, evaluation.lpips_name) for row in summarise(evaluation)),
        "",
        f"Sharpness of the truth: {np.mean([f.gt_sharpness for f in evaluation.faces]):.4f}. "
        f"Mild: low side of the resize at least {MILD_FROM} px; severe: less.",
        "",
        "| downsampling rate | " + " | ".join(map(str, evaluation.theta.rates)) + " | rising |",
        "|---" * (len(evaluation.theta.rates) + 2) + "|",
        "| mean θ | "
        + " | ".join(f"{value:.3f}" for value in evaluation.theta.means)
        + f" | {100 * evaluation.theta.rising:.1f} % of faces |",
        "",
        "| floor | measured | |",
        "|---|---|---|",
        *(
            f"| {v.demand} | {v.measured} | {'met' if v.passed else '**missed**'} |"
            for v in verdicts(evaluation)
        ),
    ]
    return "\n".join(lines) + "\n"


def contact_sheet(
    evaluation: Evaluation,
    cases: Sequence[Case],
    *,
    rows: int | None = 8,
    side: int = 256,
) -> Image.Image:
    """Input, restored and truth side by side, mild to severe.

    Args:
        evaluation: What `evaluate` found on `cases`.
        cases: The same cases in the same order.
        rows: So many faces, evenly spread over the order; None shows all.
        side: Side of a picture, px.
    """
    order = sorted(range(len(cases)), key=lambda i: (-cases[i].low_side, cases[i].key))
    if rows is not None and rows < len(order):
        order = [order[round(i)] for i in np.linspace(0, len(order) - 1, rows)]
    pictures = [
        (
            caption(cases[index].params, evaluation.faces[index].theta),
            (cases[index].lq, evaluation.restored[index], cases[index].gt),
        )
        for index in order
    ]
    return picture_table(("input", "restored", "truth"), pictures, side=side)


def caption(params: DegradationParams, theta: float) -> str:
    """What was done to a face of 512 px, and θ; in letters that Pillow's own font has."""
    return (
        f"{params.low_side(DEGRADED_SIZE)} px   blur {params.sigma:.1f}   "
        f"noise {params.noise:.0f}   JPEG {params.jpeg}   theta {theta:.2f}"
    )


def picture_table(
    titles: Sequence[str], rows: Sequence[tuple[str, Sequence[RgbImage]]], *, side: int = 256
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
            sheet.paste(_tile(picture, side), (column * (side + gap), top + head))
    return sheet


def write_report(
    evaluation: Evaluation, cases: Sequence[Case], folder: Path, about: dict[str, Any]
) -> list[Path]:
    """Write report.json, report.md and sheet.png into a folder, each whole or not at all.

    Returns:
        The files.
    """
    table = f"{len(cases)} faces, seed {evaluation.seed}.\n\n{markdown(evaluation)}"
    sheet = contact_sheet(evaluation, cases)
    return write_files(folder, to_dict(evaluation, about), table, sheet)


def write_files(folder: Path, report: dict[str, Any], table: str, sheet: Image.Image) -> list[Path]:
    """Write report.json, report.md and sheet.png into a folder, each whole or not at all.

    Args:
        folder: It is made.
        report: JSON; its `model` and `data` are the title.
        table: Markdown below the title.
        sheet: The pictures.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = " on ".join(str(report[key]) for key in ("model", "data") if key in report)
    picture = BytesIO()
    sheet.save(picture, "PNG")
    contents = {
        "report.json": json.dumps(report, indent=1, allow_nan=False).encode(),
        "report.md": f"# {title}\n\n{table}".encode(),
        "sheet.png": picture.getvalue(),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def compare(
    group: str,
    metric: str,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    draws: NDArray[np.int64],
) -> Row:
    """One metric of a group's faces before and after.

    Args:
        group: Name of the group.
        metric: Name of the metric.
        before: (N,).
        after: (N,), in the same order.
        draws: (resamples, N) numbers of faces, see `bootstrap`.
    """
    drawn_before, drawn_after = before[draws].mean(axis=1), after[draws].mean(axis=1)
    return Row(
        group=group,
        metric=metric,
        count=len(before),
        input=float(before.mean()),
        restored=float(after.mean()),
        ratio=float(_ratio(after.mean(), before.mean())),
        ratio_interval=_interval(_ratio(drawn_after, drawn_before)),
        difference=float(after.mean() - before.mean()),
        difference_interval=_interval(drawn_after - drawn_before),
    )


def bootstrap(count: int, resamples: int = 2000) -> NDArray[np.int64]:
    """So many draws of all of `count` faces, with a fixed seed: a report can be made again."""
    return np.random.default_rng(0).integers(0, count, (resamples, count))


def _values(faces: Sequence[FaceResult], side: str, metric: str) -> NDArray[np.float64]:
    return np.array([getattr(getattr(face, side), metric) for face in faces])


def _ratio(after: Any, before: Any) -> Any:
    return after / np.maximum(before, 1e-12)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def table_line(row: Row, lpips_name: str) -> str:
    """A row of a Markdown table: group, metric, before, after, change."""
    digits = _DIGITS.get(row.metric, 2)
    if row.metric in _DECIBELS:
        low, high = row.difference_interval
        change = f"{row.difference:+.2f} dB [{low:+.2f}, {high:+.2f}]"
    else:
        low, high = (100 * (bound - 1) for bound in row.ratio_interval)
        change = f"{100 * (row.ratio - 1):+.1f} % [{low:+.1f}, {high:+.1f}]"
    names = {"lpips": lpips_name, "ssim": "SSIM"}
    names |= {metric: f"{name}, dB" for metric, name in _DECIBELS.items()}
    return (
        f"| {row.group} ({row.count}) | {names.get(row.metric, row.metric)} "
        f"| {row.input:.{digits}f} | {row.restored:.{digits}f} | {change} |"
    )


def _tile(picture: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)


def finite(value: Any) -> Any:
    """Containers for JSON, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
