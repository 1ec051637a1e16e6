"""Copies of a photo that show faces which the photo hides.

Upright copies undo what old and tiny photos suffer from: grain, too few pixels, faded and tinted
colours. Turned ones show faces of people who lie, and photos scanned on their side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.faces.align import Matrix, apply, invert, rescale, warp
from panini.images import RgbImage

_LARGEST_COPY = 1600  # px, longer side: larger photos are shrunk to it, they have the pixels.
_LARGEST_TURNED = 480  # px: seven turned copies then cost about as much as one upright look,
_SMALLEST_TURNED = 24.0  # when only faces from this size on are looked for in them, px.

QUARTERS = (90, 180, 270)
BETWEEN = (45, 135, 225, 315)
"""Degrees by which copies are turned: each face is upright enough in two of both together."""


@dataclass(frozen=True, eq=False)
class Look:
    """An image to search, and where it lies in the photo."""

    image: RgbImage
    matrix: Matrix = field(default_factory=lambda: np.eye(2, 3))
    """From photo to image: scale and rotation."""
    smallest: float = 12.0
    """Side of the smallest face to look for, px of the image; MTCNN sees none below 12."""

    @property
    def scale(self) -> float:
        """Side of a face here, of one in the photo."""
        return float(np.hypot(*self.matrix[:, 0]))

    def to_photo(self, boxes: NDArray, points: NDArray) -> tuple[NDArray, NDArray]:
        """Bring boxes with scores (K, 5) and landmarks (K, 5, 2) from the image to the photo.

        A box keeps its sides when the image was turned by quarters, else it becomes a square.
        """
        back = invert(self.matrix)
        sides = (boxes[:, 2:4] - boxes[:, :2]) / self.scale
        cosine = abs(self.matrix[0, 0]) / self.scale
        if cosine < 0.01:
            sides = sides[:, ::-1]
        elif cosine < 0.99:
            sides = np.repeat(sides.mean(axis=1, keepdims=True), 2, axis=1)
        centres = apply(back, (boxes[:, :2] + boxes[:, 2:4]) / 2)
        corners = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        moved = np.concatenate([corners, boxes[:, 4:5]], axis=1).astype(np.float32)
        return moved, apply(back, points.reshape(-1, 2)).reshape(points.shape).astype(np.float32)


def upright_looks(photo: RgbImage) -> Iterator[Look]:
    """Smoothed; enlarged and smoothed; colours and contrast evened out."""
    scale = min(1.0, _LARGEST_COPY / max(photo.shape[:2]))
    small = _scaled(photo, scale)
    yield Look(_smooth(small.image, 0.7), small.matrix)
    if scale == 1.0:
        larger = _scaled(photo, 2.0)
        yield Look(_smooth(larger.image, 1.5), larger.matrix)
    yield Look(_smooth(_even_out(small.image), 0.7), small.matrix)


def turned_looks(photo: RgbImage, angles: Iterable[int]) -> Iterator[Look]:
    """Small smoothed copies, turned by these degrees."""
    scale = min(1.0, _LARGEST_TURNED / max(photo.shape[:2]))
    small = _scaled(photo, scale)
    smoothed = _smooth(small.image, 0.7)
    height, width = smoothed.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], dtype=np.float64)
    for degrees in angles:
        turn = np.asarray(cv2.getRotationMatrix2D((0, 0), degrees, 1.0), np.float64)
        low, high = apply(turn, corners).min(axis=0), apply(turn, corners).max(axis=0)
        turn[:, 2] -= low
        size = (int(np.ceil(high[0] - low[0])), int(np.ceil(high[1] - low[1])))
        turned = warp(smoothed, turn, size, border=cv2.BORDER_CONSTANT)
        yield Look(turned, rescale(turn, source=1 / scale), _SMALLEST_TURNED)


def _scaled(photo: RgbImage, scale: float) -> Look:
    if scale == 1.0:
        return Look(photo)
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    copy = cv2.resize(photo, (width, height), interpolation=method)
    return Look(np.asarray(copy, dtype=np.uint8), rescale(np.eye(2, 3), target=scale))


def _smooth(image: RgbImage, sigma: float) -> RgbImage:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.uint8)


def _even_out(image: RgbImage) -> RgbImage:
    """Grey-world white balance, and contrast made equal over the photo."""
    mean = image.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    gain = mean.mean() / np.maximum(mean, 1.0)
    table = np.clip(np.arange(256)[:, None] * gain, 0, 255).astype(np.uint8)
    balanced = cv2.LUT(image, table[None])
    lab = np.asarray(cv2.cvtColor(balanced, cv2.COLOR_RGB2LAB))
    equalise = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    lab[..., 0] = equalise.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)
