"""Restored faces back into their photo, without a seam.

Three things give a pasted face away: its outline, a cast of colour or brightness, and skin without
the grain of the rest. The outline is feathered (`panini.faces.mask`). The cast goes because the
photo, however bad, is right in its broad colours: blur, noise, JPEG and few pixels leave them be.
The grain is measured in the photo and drawn anew, when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.faces.align import Matrix, apply, invert, rescale, warp
from panini.faces.mask import face_mask
from panini.images import RgbImage

Floats = NDArray[np.float32]

_MASK_SIDE = 256  # The mask is smooth: drawn at this size, it is good for every crop.
_BROAD_SIDE = 64  # Broad colours are compared at this size of the crop,
_BROAD_SIGMA = 5.0  # blurred by this many of its px: coarser than what 16 times fewer px leave.

_GRAIN_SIGMAS = (1.0, 2.0, 4.0)  # px: the grain is matched in bands between these blurs.
# Brightness and two colour differences, so that a grey photo gets grey grain.
_TO_LUMA = np.array([[0.25, 0.5, 0.25], [1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
_FROM_LUMA = np.linalg.inv(_TO_LUMA)


@dataclass(frozen=True, kw_only=True)
class PasteOptions:
    """How a restored face goes back into its photo."""

    match_colour: bool = True
    """Shift the face's broad colours and brightness to those of the photo."""
    grain: bool = False
    """Give the face the grain that the photo has there."""
    seed: int = 0
    """Of the grain's generator."""


def paste_into(
    canvas: RgbImage,
    restored: RgbImage,
    matrix: Matrix,
    *,
    coverage: Floats | None = None,
    options: PasteOptions | None = None,
) -> None:
    """Blend a restored face into its photo, reading no more of it than the face covers.

    Args:
        canvas: uint8 (H, W, 3) RGB, changed in place; where the mask is 0, not by a bit.
        restored: uint8 (size, size, 3) RGB.
        matrix: From canvas to `restored`, as `align` gives it for a crop of this size.
        coverage: float32 (H, W) in [0, 1], raised in place to the mask: tells afterwards which
            pixels are the photo's own (0).
        options: None is `PasteOptions()`.
    """
    options = options or PasteOptions()
    side = restored.shape[0]
    back = invert(matrix)
    x0, y0, x1, y1 = _window(back, side, canvas)
    if x0 >= x1 or y0 >= y1:
        return
    moved = back.copy()
    moved[:, 2] -= (x0, y0)
    size = (x1 - x0, y1 - y0)
    region = canvas[y0:y1, x0:x1]
    # Beyond the crop the mask is 0; its colours go on, so that none darkens the blend.
    colours = warp(restored, moved, size).astype(np.float32)
    weight = _shrunk_warp(face_mask(_MASK_SIDE), moved, side, size, border=cv2.BORDER_CONSTANT)
    weight = np.clip(weight, 0.0, 1.0)
    if options.match_colour:
        shift = _broad_difference(region, restored, invert(moved))
        colours += _shrunk_warp(shift, moved, side, size)
    if options.grain:
        generator = np.random.default_rng((options.seed, x0, y0))
        colours += _missing_grain(region, colours, weight > 0.5, generator)
    blended = region + weight[..., None] * (colours - region)
    region[...] = np.rint(np.clip(blended, 0, 255)).astype(np.uint8)
    if coverage is not None:
        part = coverage[y0:y1, x0:x1]
        np.maximum(part, weight, out=part)


def _window(back: Matrix, side: int, canvas: RgbImage) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of the canvas that the crop covers, px."""
    corners = apply(back, np.array([(0, 0), (side, 0), (0, side), (side, side)], float))
    limit = np.array(canvas.shape[1::-1])
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limit).tolist()
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, limit).tolist()
    return x0, y0, x1, y1


def _shrunk_warp(
    drawn: Floats,
    back: Matrix,
    side: int,
    size: tuple[int, int],
    *,
    border: int = cv2.BORDER_REPLICATE,
) -> Floats:
    """Warp something square that stands for the crop of `side` px, but has another size."""
    return warp(drawn, rescale(back, source=drawn.shape[0] / side), size, border=border)


def _broad_difference(photo: RgbImage, restored: RgbImage, matrix: Matrix) -> Floats:
    """By how much the photo's broad colours differ from those of the restored face.

    Args:
        photo: uint8 (H, W, 3): what the face covers.
        restored: uint8 (size, size, 3).
        matrix: From `photo` to `restored`.

    Returns:
        float32 (64, 64, 3), levels, smooth: to be added to the crop.
    """
    side = _BROAD_SIDE
    shrunk = rescale(matrix, target=side / restored.shape[0])
    here = warp(photo, shrunk, (side, side)).astype(np.float32)
    drawn = cv2.resize(restored, (side, side), interpolation=cv2.INTER_AREA)
    # Compared where the face goes and the photo reaches: beyond its edge nothing is known.
    grid = np.indices((side, side))[::-1].reshape(2, -1).T + 0.5
    read = apply(invert(shrunk), grid)
    inside = np.all((read >= 0) & (read <= photo.shape[1::-1]), axis=1).reshape(side, side)
    known = ((face_mask(side) > 0) & inside).astype(np.float32)
    difference = (here - drawn) * known[..., None]
    blurred = cv2.GaussianBlur(difference, (0, 0), _BROAD_SIGMA)
    share = cv2.GaussianBlur(known, (0, 0), _BROAD_SIGMA)
    return (blurred / np.maximum(share, 1e-3)[..., None]).astype(np.float32)


def _missing_grain(
    photo: RgbImage, face: Floats, where: NDArray[np.bool_], generator: np.random.Generator
) -> Floats:
    """Grain that makes a face as grainy as the photo, in every band and colour.

    Args:
        photo: uint8 (H, W, 3): what the face covers.
        face: float32 (H, W, 3), levels: what is to cover it.
        where: (H, W): where the two are compared.
        generator: Source of the grain.

    Returns:
        float32 (H, W, 3), levels: to be added to `face`; zero where the face is grainier.
    """
    grain = np.zeros_like(face)
    if not where.any():
        return grain
    noise = _bands(generator.standard_normal(face.shape, dtype=np.float32))
    parts = [_bands(_mix(image, _TO_LUMA)) for image in (photo.astype(np.float32), face)]
    for wanted, there, drawn in zip(*parts, noise, strict=True):
        lacking = _strength(wanted, where) ** 2 - _strength(there, where) ** 2
        grain += drawn / drawn.std() * np.sqrt(np.maximum(lacking, 0))
    return _mix(grain, _FROM_LUMA)


def _bands(image: Floats) -> list[Floats]:
    """What each blur of `_GRAIN_SIGMAS` takes away that the one before it left."""
    blurs = [image, *(cv2.GaussianBlur(image, (0, 0), sigma) for sigma in _GRAIN_SIGMAS)]
    return [np.asarray(finer - coarser, np.float32) for finer, coarser in pairwise(blurs)]


def _strength(band: Floats, where: NDArray[np.bool_]) -> Floats:
    """Standard deviation (3,) of the grain in a band, whatever edges there are: from the median."""
    return np.asarray(1.4826 * np.median(np.abs(band[where]), axis=0), np.float32)


def _mix(image: Floats, channels: NDArray[np.float64]) -> Floats:
    return np.asarray(cv2.transform(image, channels), np.float32)
