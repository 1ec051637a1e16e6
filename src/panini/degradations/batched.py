"""Eq. 10 on batches, for training on an accelerator: nothing here waits for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from panini.degradations.params import DegradationParams, blur_radius


@torch.no_grad()
def degrade_batch(
    images: Tensor, params: Sequence[DegradationParams], generator: torch.Generator
) -> Tensor:
    """Degrade a batch on its own device, every image by its own parameters.

    What `degrade` computes, but for the noise's values and for rounding: without noise the PSNR
    between the two is 54 dB in the median over the grid of the tests, and 38 dB at least, where a
    coarse JPEG rounds a block the other way. Not differentiable. Matrix products in TF32, where
    the caller has them on, cost about a tenth of a level.

    Args:
        images: RGB in [-1, 1], (N, 3, H, W).
        params: One entry an image.
        generator: Source of the noise; its own device may differ from that of the images.

    Returns:
        RGB in [-1, 1], (N, 3, H, W), at 256 levels, of the device and dtype of `images`.

    Raises:
        ValueError: The batch is not (N, 3, H, W), or `params` is not of length N.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected images (N, 3, H, W), got {tuple(images.shape)}")
    if len(params) != len(images):
        raise ValueError(f"expected {len(images)} parameters, one an image, got {len(params)}")
    # Half precision would lose levels: mixed precision stays outside.
    with torch.autocast(images.device.type, enabled=False):
        levels = _blur_and_resize((images.float() + 1) * 127.5, params)
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        deviation = _on([p.noise for p in params], levels.device).view(-1, 1, 1, 1)
        levels = (levels + deviation * noise.to(levels.device)).clamp(0, 255).round()
        levels = _jpeg_batch(levels, [p.jpeg for p in params])
        return (levels / 127.5 - 1).to(images.dtype)


def _blur_and_resize(levels: Tensor, params: Sequence[DegradationParams]) -> Tensor:
    """Blur, shrink and grow (N, 3, H, W): each is linear and separable, hence four matrices."""
    height, width = levels.shape[2:]
    down_rows, up_rows = _resize_matrices(height, params, levels.device)
    down_columns, up_columns = (
        (down_rows, up_rows) if height == width else _resize_matrices(width, params, levels.device)
    )
    low = down_rows @ levels @ down_columns.mT
    return up_rows @ low @ up_columns.mT


def _resize_matrices(
    side: int, params: Sequence[DegradationParams], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Blur and shrink a side, (N, 1, S, side), and grow it again, (N, 1, side, S).

    S is the largest low side of the batch; the others' matrices end in zeros.
    """
    low_sides = [p.low_side(side) for p in params]
    low = _on(low_sides, device).view(-1, 1)  # (N, 1)
    full = torch.full_like(low, side)
    rows = torch.arange(max(low_sides), device=device)
    left, share = _bilinear_positions(low, full, rows)  # (N, S)
    right = (left + 1).clamp(max=side - 1)
    share = share.unsqueeze(-1)
    down = (1 - share) * _blur_rows(left, side, params) + share * _blur_rows(right, side, params)
    down = down * (rows < low).unsqueeze(-1)

    left, share = _bilinear_positions(full, low, torch.arange(side, device=device))  # (N, side)
    position = (left + share).unsqueeze(-1)
    up = (1 - (position - rows).abs()).clamp(min=0)
    return down.unsqueeze(1), up.unsqueeze(1)


def _bilinear_positions(target: Tensor, source: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Where pixel `index` of a side of `target` px lies on one of `source` px, centre on centre.

    Returns:
        The pixel to the left and the share, in [0, 1), of its right neighbour.
    """
    position = (index + 0.5) * (source / target) - 0.5
    position = position.clamp(min=0).minimum(source - 1.0)
    left = position.floor()
    return left.long(), position - left


def _blur_rows(rows: Tensor, side: int, params: Sequence[DegradationParams]) -> Tensor:
    """The rows (N, S) of each image's blur matrix, (N, S, side), borders mirrored (reflect 101)."""
    if side == 1:
        return torch.ones(*rows.shape, 1, device=rows.device)
    radius = max(blur_radius(p.sigma) for p in params)
    kernel = _on([_blur_kernel(p.sigma, radius) for p in params], rows.device)  # (N, radius + 2)
    columns = torch.arange(side, device=rows.device)
    inner = (columns > 0) & (columns < side - 1)
    weights = torch.zeros(*rows.shape, side, device=rows.device)
    period = 2 * (side - 1)
    repeats = radius // period + 1
    for shift in range(-repeats * period, repeats * period + 1, period):
        # A mirrored line holds pixel j at j + shift and at -j + shift; the ends only once.
        for mirrored, counted in ((columns + shift, 1), (shift - columns, inner)):
            distance = (rows.unsqueeze(-1) - mirrored).abs().clamp(max=radius + 1)
            taps = kernel.gather(1, distance.flatten(1)).view_as(distance)
            weights += taps * counted
    return weights


def _on(values: ArrayLike, device: torch.device) -> Tensor:
    """Numbers on a device, float32 or (whole numbers) int64.

    Not blocking: the host does not wait until the device has done all it was asked for before.
    """
    array = np.asarray(values)
    kind = np.int64 if array.dtype.kind in "iu" else np.float32
    return torch.from_numpy(array.astype(kind)).to(device, non_blocking=True)


def _blur_kernel(sigma: float, radius: int) -> list[float]:
    """Weights of the distances 0..radius, and a last zero for everything beyond."""
    own = blur_radius(sigma)
    taps = cv2.getGaussianKernel(2 * own + 1, sigma or 1.0, cv2.CV_64F)[own:, 0]
    return [*taps.tolist(), *[0.0] * (radius + 1 - own)]


def _jpeg_batch(levels: Tensor, qualities: Sequence[int]) -> Tensor:
    """Compress and decode (N, 3, H, W) of whole levels as libjpeg would; quality 0 = leave."""
    if not any(qualities):
        return levels
    height, width = levels.shape[2:]
    padded = F.pad(levels, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc = _on(_RGB_TO_YCC, levels.device)
    centre = _on([0.0, 128.0, 128.0], levels.device).view(3, 1, 1)
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, padded).add(centre).round()
    steps = np.stack([_quantisation_tables(quality) for quality in qualities])
    tables = _on(steps, levels.device)  # (N, 2, 64)

    luma = _code_blocks(ycc[:, :1], tables[:, 0])
    # libjpeg rounds halves down and up in turn, lest the colour drift.
    bias = (torch.arange(padded.shape[3] // 2, device=levels.device) % 2 + 1) / 4
    chroma = (F.avg_pool2d(ycc[:, 1:], 2) + bias).floor()
    chroma = _code_blocks(chroma, tables[:, 1])[:, :, : (height + 1) // 2, : (width + 1) // 2]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()

    ycc = torch.cat([luma[..., :height, :width], chroma[..., :height, :width]], dim=1) - centre
    to_rgb = _on(_YCC_TO_RGB, levels.device)
    coded = torch.einsum("ij,njhw->nihw", to_rgb, ycc).round().clamp(0, 255)
    compressed = _on(qualities, levels.device).view(-1, 1, 1, 1) > 0
    return torch.where(compressed, coded, levels)


def _code_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise the DCT of the 8x8 blocks of (N, C, H, W), with a table (N, 64) an image."""
    number, channels, height, width = planes.shape
    shape = (number, channels, height // 8, 8, width // 8, 8)
    blocks = (planes - 128).reshape(shape).transpose(3, 4).flatten(-2)  # (N, C, h, w, 64)
    basis = _on(_DCT, planes.device)
    steps = table.view(number, 1, 1, 1, 64)
    # libjpeg's transform gives whole eighths, and its quotient rounds halves away from zero; in
    # flat areas both decide.
    eighths = (blocks @ basis.T * 8).round()
    quotients = eighths.sign() * ((eighths.abs() + 4 * steps) / (8 * steps)).floor()
    blocks = (quotients * steps) @ basis
    planes = blocks.unflatten(-1, (8, 8)).transpose(3, 4).reshape(number, channels, height, width)
    return (planes + 128).round().clamp(0, 255)


def _quantisation_tables(quality: int) -> NDArray[np.float32]:
    """Steps of luma and chroma, (2, 64), by the IJG's rule; quality 0 gives ones."""
    if not quality:
        return np.ones((2, 64), np.float32)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_IJG_TABLES * scale + 50) // 100, 1, 255).astype(np.float32)


def _dct_basis() -> NDArray[np.float32]:
    """The orthonormal 8x8 DCT-II of a flattened block as a matrix, (64, 64)."""
    frequency, position = np.mgrid[:8, :8]
    basis = np.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return np.kron(basis, basis).astype(np.float32)


_DCT = _dct_basis()

_RGB_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
"""JFIF's colour transform, without the offset of 128 of the two chroma planes."""

_YCC_TO_RGB = np.linalg.inv(np.array(_RGB_TO_YCC))

# fmt: off
_IJG_TABLES = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
    [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
     24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32],
])
# fmt: on
"""Steps of luma and chroma at quality 50, (2, 64): the examples of the JPEG standard, annex K."""
