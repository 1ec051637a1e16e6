"""Similarity alignment of faces to the FFHQ template, and the warp that both ways share.

Points are continuous: a photo spans (0, 0) to (width, height), and the centre of its first pixel
is (0.5, 0.5). So a template or a matrix scales with the image, without half-pixel corrections.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.images import RgbImage

Matrix = NDArray[np.float64]
"""(2, 3): affine map between continuous points, `x' = matrix[:, :2] @ x + matrix[:, 2]`."""

TEMPLATE = (
    np.array(
        [
            [192.98138, 239.94708],
            [318.90277, 240.19360],
            [256.63416, 314.01935],
            [201.26117, 371.41043],
            [313.08905, 371.15118],
        ]
    )
    / 512
)
"""(5, 2): eye, eye, nose, mouth corner, mouth corner of an FFHQ face, in shares of the side."""

_MARGIN = 4  # Pixels around the part of the source that a warp reads: more than its kernel.


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> Matrix:
    """Rotation, scale and shift that bring `source` to `target` with the least squared error.

    The least squares beat the median of squares (LMedS) on MTCNN's landmarks: with five points,
    throwing away the two worst costs more than an outlier does.

    Args:
        source: (K, 2) points.
        target: (K, 2) points.

    Returns:
        (2, 3), never a reflection.
    """
    # As complex numbers, a rotation with scale is one factor: the problem is linear in it.
    p = source[:, 0] + 1j * source[:, 1]
    q = target[:, 0] + 1j * target[:, 1]
    centred = p - p.mean()
    energy = float(np.sum(np.abs(centred) ** 2))
    factor = np.sum(np.conj(centred) * (q - q.mean())) / energy if energy else 1.0
    shift = q.mean() - factor * p.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def align(image: RgbImage, landmarks: NDArray[np.floating], size: int) -> tuple[RgbImage, Matrix]:
    """Cut out a face so that its landmarks lie on the template.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (5, 2) px, in the order of the template.
        size: Side of the crop, px.

    Returns:
        uint8 (size, size, 3) RGB, mirrored beyond the photo's edges; (2, 3) from photo to crop.
    """
    matrix = similarity(landmarks, TEMPLATE * size)
    return warp(image, matrix, (size, size), border=cv2.BORDER_REFLECT_101), matrix


def invert(matrix: Matrix) -> Matrix:
    """The map the other way, (2, 3)."""
    return cv2.invertAffineTransform(matrix).astype(np.float64)


def rescale(matrix: Matrix, *, source: float = 1.0, target: float = 1.0) -> Matrix:
    """The same map after the source and target images were enlarged by these factors, (2, 3)."""
    return np.concatenate([matrix[:, :2] / source, matrix[:, 2:]], axis=1) * target


def apply(matrix: Matrix, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map (K, 2) points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def warp(
    image: NDArray[np.uint8] | NDArray[np.float32],
    matrix: Matrix,
    size: tuple[int, int],
    *,
    border: int = cv2.BORDER_REPLICATE,
) -> NDArray:
    """Resample an image under an affine map, without aliasing.

    Args:
        image: (H, W, 3) or (H, W).
        matrix: From source to target.
        size: (width, height) of the target, px.
        border: OpenCV's name for what lies beyond the source.

    Returns:
        (height, width, 3) or (height, width), same type.
    """
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    # A shrinking warp reads between few source pixels and skips the rest. Drawn at a whole
    # multiple of the size, at which it does not shrink, the area mean then uses all of them.
    fine = max(1, math.ceil(1 / scale - 1e-6))
    image, matrix = _cut(image, rescale(matrix, target=fine), (size[0] * fine, size[1] * fine))
    # OpenCV counts from the centre of the first pixel.
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    # Faces are enlarged as Eq. 10 enlarges them (linearly): that is what the networks know.
    flags = cv2.INTER_LINEAR if scale >= 1 else cv2.INTER_CUBIC
    drawn = cv2.warpAffine(
        image, centred, (size[0] * fine, size[1] * fine), flags=flags, borderMode=border
    )
    return cv2.resize(drawn, size, interpolation=cv2.INTER_AREA) if fine > 1 else drawn


def _cut(image: NDArray, matrix: Matrix, size: tuple[int, int]) -> tuple[NDArray, Matrix]:
    """The part of the source that a target of `size` reads, and the map from there.

    OpenCV's warp refuses sources of more than 32767 px a side.
    """
    corners = np.array([(0, 0), (size[0], 0), (0, size[1]), size], dtype=np.float64)
    read = apply(invert(matrix), corners)
    limit = np.array(image.shape[1::-1])
    # A face near the edge shows the photo's mirror image: keep as much as it can reflect.
    beyond = max(0.0, float(-read.min()), float((read - limit).max()))
    low = np.floor(read.min(axis=0) - beyond).astype(int) - _MARGIN
    high = np.ceil(read.max(axis=0) + beyond).astype(int) + _MARGIN
    x0, y0 = np.clip(low, 0, np.maximum(limit - 1, 0))
    x1, y1 = np.clip(high, (x0 + 1, y0 + 1), limit)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ (x0, y0)
    return np.ascontiguousarray(image[y0:y1, x0:x1]), moved
