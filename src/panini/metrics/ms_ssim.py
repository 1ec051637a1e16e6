"""Structural similarity over five scales (Wang et al. 2003)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from panini.metrics.psnr import check_pair, to_levels
from panini.metrics.ssim import WINDOW, ssim_maps

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, fine to coarse; the paper's."""
LEAST = WINDOW * 2 ** (len(WEIGHTS) - 1)
"""Smallest side of an image, px: the coarsest scale must hold a window."""


def ms_ssim(images: Tensor, gt: Tensor) -> Tensor:
    """MS-SSIM of stored images (8 bits).

    The structure of four scales, each half the one before (mean of 2 x 2 px), and the whole SSIM
    of the fifth, each the mean over positions and channels, to the powers `WEIGHTS`, multiplied.
    A negative mean counts as 0. Window and constants are those of `ssim`, and as there only windows
    that lie wholly inside count; torchmetrics counts the border too, at the coarsest scale, and
    differs in the fourth digit.

    Args:
        images: (N, 3, H, W) of at least 176 px a side, uint8, or float in [-1, 1], which is
            rounded to 8 bits first.
        gt: The same for the truth.

    Returns:
        (N,), 1 for equal images.

    Raises:
        ValueError: The shapes differ, or the images are too small.
    """
    check_pair(images, gt)
    if min(images.shape[2:]) < LEAST:
        raise ValueError(f"expected images of at least {LEAST} px, got {tuple(images.shape)}")
    x, y = to_levels(images), to_levels(gt)
    product = torch.ones(len(x), device=x.device)
    for weight in WEIGHTS[:-1]:
        _, structure = ssim_maps(x, y)
        product = product * _mean(structure) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    luminance, structure = ssim_maps(x, y)
    return product * _mean(luminance * structure) ** WEIGHTS[-1]


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(1, 2, 3)).clamp(min=0)
