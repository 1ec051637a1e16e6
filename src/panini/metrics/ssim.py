"""Structural similarity (Wang et al. 2004) with the paper's Gaussian window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from panini.metrics.psnr import check_pair, to_levels

WINDOW = 11
SIGMA = 1.5


def ssim(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean SSIM over positions and channels of stored images (8 bits).

    Gaussian window of 11 px, sigma 1.5, K1 = 0.01, K2 = 0.03, peak 255; only windows that lie
    wholly inside the image count. Equal to scikit-image's `structural_similarity` with
    `gaussian_weights=True, use_sample_covariance=False`.

    Args:
        restored: (N, 3, H, W) of at least 11 px a side, uint8, or float in [-1, 1], which is
            rounded to 8 bits first.
        gt: The same for the truth.

    Returns:
        (N,), 1 for equal images.

    Raises:
        ValueError: The shapes differ, or the images are smaller than the window.
    """
    check_pair(restored, gt)
    if min(restored.shape[2:]) < WINDOW:
        raise ValueError(f"expected images of at least {WINDOW} px, got {tuple(restored.shape)}")
    luminance, structure = ssim_maps(to_levels(restored), to_levels(gt))
    return (luminance * structure).mean(dim=(1, 2, 3))


def ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM at every window that lies wholly inside: luminance and structure.

    Args:
        x: Levels 0..255, (N, 3, H, W).
        y: The same for the truth.

    Returns:
        Two of (N, 3, H - 10, W - 10); structure includes contrast.
    """
    mean_x, mean_y = _blur(x), _blur(y)
    # Variances are small differences of large squares: shift the levels towards zero first.
    offset = 127.5
    u, v = x - offset, y - offset
    mean_u, mean_v = mean_x - offset, mean_y - offset
    variances = _blur(u * u + v * v) - mean_u.square() - mean_v.square()
    covariance = _blur(u * v) - mean_u * mean_v
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return luminance, structure


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean over every window wholly inside: (N, C, H, W) → (N, C, H - 10, W - 10)."""
    steps = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    kernel = torch.exp(-steps.square() / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(x, kernel, groups=x.shape[1])
    return F.conv2d(x, kernel.transpose(2, 3), groups=x.shape[1])
