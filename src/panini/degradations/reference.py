"""Eq. 10 of the paper image by image, and the 16x reduction of its SR task: the reference."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from panini.degradations.params import DegradationParams, blur_radius
from panini.images import RgbImage


def degrade(image: RgbImage, params: DegradationParams, generator: np.random.Generator) -> RgbImage:
    """Degrade one image by Eq. 10: blur, shrink and grow, noise, JPEG.

    Args:
        image: uint8 RGB, (H, W, 3). It is not changed.
        params: What to do.
        generator: Source of the noise.

    Returns:
        uint8 RGB, (H, W, 3). The same image, parameters and generator state give the same bytes.

    Raises:
        ValueError: The image is not uint8 RGB.
    """
    _check_rgb(image)
    height, width = image.shape[:2]
    levels = image.astype(np.float32)
    if params.sigma > 0:
        side = 2 * blur_radius(params.sigma) + 1
        levels = cv2.GaussianBlur(
            levels, (side, side), params.sigma, borderType=cv2.BORDER_REFLECT_101
        )
    low = (params.low_side(width), params.low_side(height))
    if low != (width, height):
        # No antialias in either direction: so were the authors' own examples made.
        levels = cv2.resize(levels, low, interpolation=cv2.INTER_LINEAR)
        levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    if params.noise > 0:
        levels = levels + params.noise * generator.standard_normal(image.shape, dtype=np.float32)
    degraded = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return _jpeg(degraded, params.jpeg) if params.jpeg else degraded


def _check_rgb(image: RgbImage) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"expected a uint8 RGB image of shape (H, W, 3), got {image.dtype} {image.shape}"
        )


def _jpeg(image: RgbImage, quality: int) -> RgbImage:
    """Compress with 4:2:0 chroma and decode again."""
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    _, data = cv2.imencode(".jpg", image[..., ::-1], settings)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)


# ----------------------------------------------------------------------------------------------
# 16x super-resolution


def bilinear_antialias(image: RgbImage, side: int) -> RgbImage:
    """Resize a square image to `side` px, bilinear with antialias (Pillow's), as the SR task does.

    Args:
        image: uint8 RGB, (H, H, 3).
        side: Side of the result, px.

    Returns:
        uint8 RGB, (side, side, 3).
    """
    _check_rgb(image)
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"expected a square image, got {image.shape[0]}x{image.shape[1]}")
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def downscale16(image: RgbImage) -> RgbImage:
    """The low-resolution input of the SR task: a square image reduced 16 times per side."""
    _check_rgb(image)
    if image.shape[0] % 16:
        raise ValueError(f"expected a side divisible by 16, got {image.shape[0]}")
    return bilinear_antialias(image, image.shape[0] // 16)
