"""Restored faces back into their photo, without a seam."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.faces.align import Matrix, apply, invert, rescale, warp
from panini.images import RgbImage

_REACH = 0.47  # Half-width of the mask, in shares of the crop: 0 from here outwards.
_SOLID = 0.74  # Share of the reach up to which the mask is 1.
_MASK_SIDE = 256  # The mask is smooth: drawn at this size, it is good for every crop.


def paste(
    photo: RgbImage, crop: RgbImage, matrix: Matrix, mask: NDArray[np.float32] | None = None
) -> RgbImage:
    """Blend a restored crop into a copy of its photo.

    Args:
        photo: uint8 (H, W, 3) RGB.
        crop: uint8 (size, size, 3) RGB.
        matrix: From photo to crop, as `align` gives it for a crop of this size.
        mask: Weight of the crop in [0, 1], square, of any size; None is `face_mask`.

    Returns:
        uint8 (H, W, 3) RGB; where the mask is 0, bit for bit the photo.
    """
    result = photo.copy()
    paste_into(result, crop, matrix, mask)
    return result


def paste_into(
    photo: RgbImage, crop: RgbImage, matrix: Matrix, mask: NDArray[np.float32] | None = None
) -> None:
    """`paste` that changes `photo` itself, and reads no more of it than the face covers."""
    side = crop.shape[0]
    back = invert(matrix)
    corners = apply(back, np.array([(0, 0), (side, 0), (0, side), (side, side)], float))
    limit = np.array(photo.shape[1::-1])
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limit)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, limit)
    if x0 >= x1 or y0 >= y1:
        return
    back[:, 2] -= (x0, y0)
    size = (int(x1 - x0), int(y1 - y0))
    if mask is None:
        mask = face_mask(_MASK_SIDE)
    # Beyond the crop the mask is 0; its colours go on, so that none darkens the blend.
    colours = warp(crop, back, size).astype(np.float32)
    shrunk = rescale(back, source=mask.shape[0] / side)
    weight = warp(mask, shrunk, size, border=cv2.BORDER_CONSTANT)
    weight = np.clip(weight, 0.0, 1.0)[..., None]
    region = photo[y0:y1, x0:x1]
    blended = region + weight * (colours - region)
    region[...] = np.rint(blended).astype(np.uint8)


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
