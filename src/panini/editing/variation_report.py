"""Variations of a whole photo as files: a photo each, and a sheet that compares them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from panini.editing.evidence import rms, shrink
from panini.editing.invention import spread_of
from panini.editing.pictures import balanced, close_up, heat_map, png, sheet
from panini.editing.variation import Variations, vary
from panini.errors import ConfigError
from panini.images import RgbImage, check_output, to_tensor, write_whole
from panini.photos import variation_files
from panini.restored import Restoration, RestoredFace
from panini.restorer import Restorer

if TYPE_CHECKING:
    from panini.metrics.lpips import LPIPS

PIXEL_RMS = "pixel_rms_levels"
"""Name of the distance where no LPIPS weights are given: RMS of the difference, levels of 255."""

_COMPARED_AT = 256  # Side at which faces are compared, px: that of every metric here.
_MUCH = 16.0  # Spread that has the last colour on the sheet, levels.
_HEADS, _VGG = "lpips_vgg_heads.safetensors", "vgg16_caffe.safetensors"


@dataclass(frozen=True, kw_only=True)
class VariationOptions:
    """Which variations are written, and how."""

    count: int
    """So many, 1 to 64."""
    seed: int = 0
    """At least 0."""
    lpips_dir: Path | None = None
    """Folder of the frozen networks of the metrics: pairwise distances are LPIPS. None: they are
    the RMS of the pixels."""
    quality: int | None = None
    """Of the photos in lossy formats, 1 to 100; None is each format's default."""
    mark: bool = True
    """The photos say that an algorithm altered them."""
    overwrite: bool = False
    """Replace files that are there."""


@dataclass(frozen=True, kw_only=True)
class FaceVariations:
    """The variations of one face in numbers."""

    face: int
    """Its number in the photo, 1 is the largest."""
    own_resolution_px: int
    """Where all agree with the input."""
    result_agreement_db: float
    """PSNR of the result with the input at that resolution."""
    agreement_db: list[float]
    """The same of each variation."""
    shares: list[float]
    """Share of the codes' variance that each drew anew."""
    distances: list[list[float]]
    """Pairwise, 0 on the diagonal; the name is the report's `measure`."""


@dataclass(frozen=True, kw_only=True)
class VariationReport:
    """What `write_variations` wrote, and how different the photos are."""

    photos: list[Path]
    """One a variation."""
    sheet: Path
    """Input, result and variations of every face."""
    seed: int
    measure: str
    """Name of the distance: "lpips_vgg_caffe" and the like, or `PIXEL_RMS`."""
    faces: list[FaceVariations]

    @property
    def least_distance(self) -> float:
        """Between the two variations that are nearest to one another; 0 when there is but one."""
        pairs = [
            row[j] for face in self.faces for i, row in enumerate(face.distances) for j in range(i)
        ]
        return min(pairs, default=0.0)

    def to_json(self) -> str:
        """The numbers as one line of JSON; files by their names."""
        data: dict[str, Any] = asdict(self)
        data["photos"] = [path.name for path in self.photos]
        data["sheet"] = self.sheet.name
        return json.dumps(data, ensure_ascii=False)


def write_variations(
    restorer: Restorer, restoration: Restoration, target: Path, options: VariationOptions
) -> VariationReport:
    """Write a photo for each variation, and the sheet.

    Args:
        restorer: What restored the photo.
        restoration: The restored photo; all of its faces vary.
        target: Name of the restored photo, `a/b.jpg`: the variations are `a/b_v1.jpg`, …, the
            sheet is `a/b_variations.png`.
        options: How many, and how they are written.

    Returns:
        Files and numbers.

    Raises:
        ConfigError: A bad count, seed or quality, or a photo without faces.
        CheckpointError: The weights of LPIPS are missing or damaged.
        ImageError: A file exists already, or cannot be written.
    """
    if not restoration.faces:
        raise ConfigError(f"{target}: variations need a face, and none was found")
    *photos, comparison = variation_files(target, options.count)
    for path in (*photos, comparison):
        check_output(path, overwrite=options.overwrite)
    folder = options.lpips_dir
    lpips = None if folder is None else load_distance(folder, restorer.device)
    bias = restoration.options.prior_bias
    varied = [
        vary(restorer, face, options.count, seed=options.seed, prior_bias=bias)
        for face in restoration.faces
    ]
    for k, path in enumerate(photos):
        drawn = restorer.redraw(restoration, [each.faces[k] for each in varied])
        drawn.save(path, overwrite=options.overwrite, quality=options.quality, mark=options.mark)
    write_whole(comparison, png(comparison_sheet(restoration.faces, varied)))
    return VariationReport(
        photos=photos,
        sheet=comparison,
        seed=options.seed,
        measure=PIXEL_RMS if lpips is None else lpips.name,
        faces=[_numbers(number, each, lpips) for number, each in enumerate(varied, start=1)],
    )


def comparison_sheet(faces: Sequence[RestoredFace], varied: Sequence[Variations]) -> Image.Image:
    """Close-ups of input, result and variations of each face, and where they differ; RGB."""
    cells: list[tuple[str, Image.Image]] = []
    for number, (face, each) in enumerate(zip(faces, varied, strict=True), start=1):
        name = f"face {number}: " if len(faces) > 1 else ""
        cells += [(name + label, close_up(picture)) for label, picture in _labelled(face, each)]
        cells.append((f"{name}where they differ", close_up(_difference_map(face, each))))
    # One row a face; a single one is broken into rows of at most five.
    per_face = len(cells) // len(faces)
    return sheet(cells, columns=per_face if len(faces) > 1 else balanced(per_face, 5), side=256)


def _labelled(face: RestoredFace, varied: Variations) -> list[tuple[str, Image.Image]]:
    return [
        (f"input, own resolution {varied.own_side} px", face.lq),
        (f"result, agrees to {varied.result_agreement:.1f} dB", face.restored),
        *(
            (f"variation {number}, {agreement:.1f} dB", other.restored)
            for number, (other, agreement) in enumerate(
                zip(varied.faces, varied.agreement, strict=True), start=1
            )
        ),
    ]


def _difference_map(face: RestoredFace, varied: Variations) -> Image.Image:
    result = np.asarray(face.restored.convert("RGB"))
    spread = spread_of(result, [np.asarray(other.restored) for other in varied.faces])
    return heat_map(result, (spread / _MUCH).clip(0, 1), ends=None)


def distances(pictures: Sequence[RgbImage], lpips: LPIPS | None) -> list[list[float]]:
    """Pairwise distances of faces at 256 px: LPIPS, or else the RMS in levels.

    Args:
        pictures: uint8 (S, S, 3) RGB, at least one.
        lpips: The metric; None is the RMS.

    Returns:
        One row a picture, 0 on the diagonal.
    """
    small = [shrink(picture.astype(np.float32), _COMPARED_AT) for picture in pictures]
    table = np.zeros((len(small), len(small)))
    between = _rms_between(small) if lpips is None else _lpips_between(small, lpips)
    for (i, j), value in between.items():
        table[i, j] = table[j, i] = round(value, 5)
    return table.tolist()


def _rms_between(pictures: Sequence[np.ndarray]) -> dict[tuple[int, int], float]:
    return {(i, j): rms(pictures[i] - pictures[j]) for i in range(len(pictures)) for j in range(i)}


def _lpips_between(pictures: Sequence[np.ndarray], lpips: LPIPS) -> dict[tuple[int, int], float]:
    import torch

    device = next(iter(lpips.network.parameters()), torch.zeros(1)).device
    with torch.inference_mode():
        features = [
            lpips.features(to_tensor(np.rint(x.clip(0, 255)).astype(np.uint8)).to(device))
            for x in pictures
        ]
        return {
            (i, j): lpips.distance(features[i], features[j]).item()
            for i in range(len(features))
            for j in range(i)
        }


def _numbers(number: int, varied: Variations, lpips: LPIPS | None) -> FaceVariations:
    return FaceVariations(
        face=number,
        own_resolution_px=varied.own_side,
        result_agreement_db=round(varied.result_agreement, 3),
        agreement_db=[round(value, 3) for value in varied.agreement],
        shares=[round(value, 4) for value in varied.shares],
        distances=distances([np.asarray(face.restored) for face in varied.faces], lpips),
    )


@cache
def load_distance(folder: Path, device: str) -> LPIPS:
    """LPIPS, by which variations are compared; once for all photos.

    Raises:
        CheckpointError: Its weights are missing or damaged.
    """
    from panini.metrics.lpips import load_lpips

    return load_lpips(folder / _VGG, folder / _HEADS).to(device)
