"""Restored faces back into their photo, without a seam."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.faces.align import Matrix, apply, invert, rescale, warp
from panini.images import RgbImage

_REACH = 0.47  # Half-width of the mask, in shares of the crop: 0 from here outwards.
_SOLID = 0.74  # Share of the reach up to which the mask is 1.
_MASK_SIDE = 256  # The mask is smooth: drawn at this size, it is good for every crop.


@dataclass(frozen=True, kw_only=True)
class PasteOptions:
    """How a restored face goes back into its photo."""

    match_colour: bool = True
    """Shift the face's broad colours and brightness to those of the photo."""
    grain: bool = False
    """Give the face the grain of the photo around it."""
    seed: int = 0
    """Of the grain's generator."""


def paste_into(
    canvas: RgbImage,
    restored: RgbImage,
    matrix: Matrix,
    *,
    coverage: NDArray[np.float32] | None = None,
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
    side = restored.shape[0]
    back = invert(matrix)
    corners = apply(back, np.array([(0, 0), (side, 0), (0, side), (side, side)], float))
    limit = np.array(canvas.shape[1::-1])
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limit)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, limit)
    if x0 >= x1 or y0 >= y1:
        return
    back[:, 2] -= (x0, y0)
    size = (int(x1 - x0), int(y1 - y0))
    mask = face_mask(_MASK_SIDE)
    # Beyond the crop the mask is 0; its colours go on, so that none darkens the blend.
    colours = warp(restored, back, size).astype(np.float32)
    shrunk = rescale(back, source=_MASK_SIDE / side)
    weight = np.clip(warp(mask, shrunk, size, border=cv2.BORDER_CONSTANT), 0.0, 1.0)
    region = canvas[y0:y1, x0:x1]
    region[...] = np.rint(region + weight[..., None] * (colours - region)).astype(np.uint8)
    if coverage is not None:
        part = coverage[y0:y1, x0:x1]
        np.maximum(part, weight, out=part)


@lru_cache(maxsize=4)
def face_mask(size: int) -> NDArray[np.float32]:
    """Weight of an aligned crop, (size, size) in [0, 1].

    A rounded box over face and hair: 1 inside, falling smoothly to 0 before the crop's edges.
    """
    axis = np.abs((np.arange(size) + 0.5) / size - 0.5) / _REACH
    distance = (axis[:, None] ** 4 + axis[None, :] ** 4) ** 0.25
    ramp = np.clip((1 - distance) / (1 - _SOLID), 0.0, 1.0)
    mask = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    mask.setflags(write=False)
    return mask
