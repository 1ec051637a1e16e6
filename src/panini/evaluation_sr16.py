"""16× super-resolution: faces reduced as the paper does, enlarged, and compared with the truth.

A face of 1024 px is reduced to 64 px (bilinear with antialias, Pillow's) and enlarged in three
ways: by bicubic interpolation, which a model has to beat; by the model; and by the model with its
faces brought to agree with their inputs (`panini.consistency`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from panini.consistency import project
from panini.degradations import bilinear_antialias
from panini.errors import DataError
from panini.evaluation import COMPARED_SIZE, Progress, Restore, check_face, resize
from panini.evaluation_report import (
    Row,
    Verdict,
    bootstrap,
    compare,
    finite,
    picture_table,
    table_line,
    write_files,
)
from panini.images import RgbImage, to_tensor, to_uint8
from panini.metrics.judge import Judge, Scores
from panini.metrics.psnr import psnr

LQ_SIZE = 64
GT_SIZE = 1024
BICUBIC, RESTORED, CONSISTENT = "bicubic", "restored", "consistent"
MOST_DB = 100.0
"""Where PSNR is cut, so that equal images do not make a mean infinite."""


@dataclass(frozen=True, kw_only=True)
class SrCase:
    """One face to enlarge."""

    key: str
    """Name of the face in its data set."""
    lq: RgbImage
    """(64, 64, 3)."""
    gt: RgbImage
    """True face, (S, S, 3), S at most 1024."""


@dataclass(frozen=True, kw_only=True)
class SrScores(Scores):
    """One enlarged face against its truth at 256 px, and more."""

    psnr_full: float
    """dB at the truth's own size, at most 1024 px."""
    faithfulness: float
    """PSNR, dB, between the input and the enlarged face reduced again in the same way."""


METRICS = tuple(field.name for field in fields(SrScores))


@dataclass(frozen=True, kw_only=True)
class SrFace:
    """One face, enlarged in all ways."""

    key: str
    theta: float
    """θ of Eq. 11; the same for all faces, for their degradation is one. NaN without masks."""
    ways: dict[str, SrScores]
    """By `BICUBIC`, `RESTORED`, `CONSISTENT`."""


@dataclass(frozen=True, kw_only=True)
class SrEvaluation:
    """What `evaluate` found."""

    lpips_name: str
    """"lpips_vgg_caffe" or "lpips_vgg": depends on the weights."""
    faces: list[SrFace]
    pictures: list[tuple[RgbImage, ...]]
    """Input, bicubic, restored and truth of each face, at most 256 px."""


def make_cases(faces: Iterable[tuple[str, RgbImage]], *, limit: int | None = None) -> list[SrCase]:
    """Reduce faces to 64 px.

    Args:
        faces: (key, aligned uint8 RGB face, square, at least 256 px). Those above 1024 px are
            reduced to that first.
        limit: Take only the first so many; None takes all.

    Raises:
        DataError: No faces, or a face is too small or not square.
    """
    cases = []
    for key, image in faces:
        if limit is not None and len(cases) == limit:
            break
        check_face(key, image)
        gt = image
        if image.shape[0] > GT_SIZE:
            gt = cv2.resize(image, (GT_SIZE, GT_SIZE), interpolation=cv2.INTER_AREA)
        gt = np.asarray(gt, dtype=np.uint8)
        cases.append(SrCase(key=key, lq=bilinear_antialias(gt, LQ_SIZE), gt=gt))
    if not cases:
        raise DataError("no faces to evaluate on; expected at least one")
    return cases


@torch.inference_mode()
def evaluate(
    restore: Restore,
    cases: Sequence[SrCase],
    judge: Judge,
    *,
    progress: Progress | None = None,
) -> SrEvaluation:
    """Enlarge every face, one at a time, and compare what would be written with its truth.

    Args:
        restore: The model; it gets faces of 64 px.
        cases: What to enlarge.
        judge: The metrics; the model's inputs are put on its device.
        progress: Told of every face.
    """
    faces: list[SrFace] = []
    pictures: list[tuple[RgbImage, ...]] = []
    for case in cases:
        lq, gt = (to_tensor(image).to(judge.device) for image in (case.lq, case.gt))
        image, theta = restore(lq)
        ways = {
            BICUBIC: _bicubic(case.lq, gt.shape[-1]).to(judge.device),
            RESTORED: _stored(image),
            CONSISTENT: _stored(project(image, lq)),
        }
        small = [resize(x, COMPARED_SIZE) for x in (gt, *ways.values())]
        scores = [found for (found,) in judge(small[0], *small[1:])]
        faces.append(
            SrFace(
                key=case.key,
                theta=theta.item(),
                ways={
                    way: _scores(at_256, ways[way], gt, case.lq)
                    for way, at_256 in zip(ways, scores, strict=True)
                },
            )
        )
        shown = [picture for x in (*small[1:3], small[0]) for picture in to_uint8(x)]
        pictures.append((case.lq, *shown))
        if progress is not None:
            progress(len(faces), len(cases))
    return SrEvaluation(lpips_name=judge.lpips.name, faces=faces, pictures=pictures)


def summarise(evaluation: SrEvaluation, *, resamples: int = 2000) -> list[Row]:
    """Means of both ways of the model beside bicubic's, with intervals; `group` is the way."""
    draws = bootstrap(len(evaluation.faces), resamples)
    return [
        compare(
            way,
            metric,
            _values(evaluation, BICUBIC, metric),
            _values(evaluation, way, metric),
            draws,
        )
        for way in (RESTORED, CONSISTENT)
        for metric in METRICS
    ]


def verdicts(evaluation: SrEvaluation) -> list[Verdict]:
    """What is asked of shipped weights, of the faces as the model draws them."""
    rows = {row.metric: row for row in summarise(evaluation, resamples=1) if row.group == RESTORED}
    lpips, identity, full = rows["lpips"], rows["identity"], rows["psnr_full"]
    return [
        Verdict(
            demand="PSNR at full size at least bicubic's",
            measured=f"{full.difference:+.2f} dB",
            passed=full.difference >= 0,
        ),
        Verdict(
            demand=f"{evaluation.lpips_name} at least 50 % below bicubic's",
            measured=f"{100 * (lpips.ratio - 1):+.1f} %",
            passed=lpips.ratio <= 0.5,
        ),
        Verdict(
            demand="identity distance at most half of bicubic's",
            measured=f"{identity.restored:.3f} against {identity.input:.3f}",
            passed=identity.ratio <= 0.5,
        ),
    ]


def markdown(evaluation: SrEvaluation) -> str:
    """The tables for model card and documentation."""
    lines = [
        "| way | metric | bicubic | this way | change [95 %] |",
        "|---|---|---|---|---|",
        *(table_line(row, evaluation.lpips_name) for row in summarise(evaluation)),
        "",
        f"Compared at {COMPARED_SIZE} px; full size: the truth's own. Faithfulness: the enlarged "
        "face, reduced again, against the input.",
        "",
        "| target | measured | |",
        "|---|---|---|",
        *(
            f"| {v.demand} | {v.measured} | {'met' if v.passed else '**missed**'} |"
            for v in verdicts(evaluation)
        ),
    ]
    return "\n".join(lines) + "\n"


def to_dict(evaluation: SrEvaluation, about: dict[str, Any]) -> dict[str, Any]:
    """Everything for JSON but the pictures; numbers that are not finite become None.

    Args:
        evaluation: What `evaluate` found.
        about: What was evaluated: model, data, versions.
    """
    return finite(
        {
            **about,
            "lpips": evaluation.lpips_name,
            "summary": [asdict(row) for row in summarise(evaluation)],
            "verdicts": [asdict(verdict) for verdict in verdicts(evaluation)],
            "faces": [asdict(face) for face in evaluation.faces],
        }
    )


def contact_sheet(
    evaluation: SrEvaluation, *, rows: int | None = 8, side: int = 256
) -> Image.Image:
    """Input, bicubic, restored and truth side by side.

    Args:
        evaluation: What `evaluate` found.
        rows: So many faces, evenly spread over their order; None shows all.
        side: Side of a picture, px.
    """
    count = len(evaluation.faces)
    order = list(range(count))
    if rows is not None and rows < count:
        order = [round(i) for i in np.linspace(0, count - 1, rows)]
    pictures = []
    for index in order:
        found = evaluation.faces[index].ways[RESTORED]
        text = f"PSNR {found.psnr:.1f} dB   LPIPS {found.lpips:.2f}   "
        text += f"identity {found.identity:.2f}   faithfulness {found.faithfulness:.1f} dB"
        lq, *others = evaluation.pictures[index]
        # Its pixels as they are: smoothing would show a second interpolation.
        pixels = lq.repeat(COMPARED_SIZE // LQ_SIZE, 0).repeat(COMPARED_SIZE // LQ_SIZE, 1)
        pictures.append((text, (pixels, *others)))
    return picture_table(("input", BICUBIC, RESTORED, "truth"), pictures, side=side)


def write_report(evaluation: SrEvaluation, folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write report.json, report.md and sheet.png into a folder, each whole or not at all.

    Returns:
        The files.
    """
    table = f"{len(evaluation.faces)} faces, 16× super-resolution.\n\n{markdown(evaluation)}"
    return write_files(folder, to_dict(evaluation, about), table, contact_sheet(evaluation))


def _bicubic(lq: RgbImage, side: int) -> Tensor:
    """(1, 3, side, side) in [-1, 1]: Pillow's, as the reduction is."""
    enlarged = Image.fromarray(lq).resize((side, side), Image.Resampling.BICUBIC)
    return to_tensor(np.asarray(enlarged))


def _stored(images: Tensor) -> Tensor:
    """As a file holds them: clamped, 8 bits."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _scores(at_256: Scores, image: Tensor, gt: Tensor, lq: RgbImage) -> SrScores:
    (stored,) = to_uint8(image)
    again = to_tensor(bilinear_antialias(stored, lq.shape[0]))
    return SrScores(
        **asdict(at_256),
        psnr_full=_decibels(resize(image, gt.shape[-1]), gt),
        faithfulness=_decibels(again, to_tensor(lq)),
    )


def _decibels(image: Tensor, truth: Tensor) -> float:
    return psnr(image, truth).clamp(max=MOST_DB).item()


def _values(evaluation: SrEvaluation, way: str, metric: str) -> np.ndarray:
    return np.array([getattr(face.ways[way], metric) for face in evaluation.faces])
