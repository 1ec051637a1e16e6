"""Peak signal-to-noise ratio, in the two conventions that the papers of this field mix."""

from __future__ import annotations

import torch
from torch import Tensor


def to_levels(images: Tensor) -> Tensor:
    """Images as they are stored: levels 0..255 in float.

    Args:
        images: uint8, or float in [-1, 1], which is clipped and rounded. Any shape.

    Returns:
        float32 of the same shape, whole numbers in [0, 255].
    """
    if images.dtype == torch.uint8:
        return images.float()
    return ((images.float() + 1) * 127.5).clamp(0, 255).round()


def stored(images: Tensor) -> Tensor:
    """Images as a file holds them, in [-1, 1] again: clipped, 8 bits. Input as of `to_levels`."""
    return to_levels(images) / 127.5 - 1


def psnr(restored: Tensor, gt: Tensor) -> Tensor:
    """PSNR of stored images: uint8 RGB, peak 255.

    10 log10(255² / MSE), over all pixels and channels of an image.

    Args:
        restored: (N, 3, H, W), uint8, or float in [-1, 1], which is rounded to 8 bits first.
        gt: The same for the truth.

    Returns:
        dB, (N,); infinite for equal images.

    Raises:
        ValueError: The shapes differ.
    """
    check_pair(restored, gt)
    error = (to_levels(restored) - to_levels(gt)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255.0**2 / error)


def psnr_peak1(images: Tensor, gt: Tensor) -> Tensor:
    """PSNR of tensors in [-1, 1] with peak 1, not rounded: 6.02 dB below `psnr`.

    10 log10(1 / MSE). Only for comparison with the paper's tables: its 18.01 dB (restoration) and
    21.19 dB (16x) fit its authors' published results in this convention and in no other known.

    Args:
        images: float in [-1, 1], (N, 3, H, W).
        gt: The same for the truth.

    Returns:
        dB, (N,); infinite for equal images.

    Raises:
        ValueError: The shapes differ.
    """
    check_pair(images, gt)
    error = (images.float() - gt.float()).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def check_pair(restored: Tensor, gt: Tensor) -> None:
    """Raise ValueError unless both are batches of RGB images of one shape."""
    if restored.shape != gt.shape or restored.ndim != 4 or restored.shape[1] != 3:
        raise ValueError(
            "expected `restored` and `gt` of one shape (N, 3, H, W), "
            f"got {tuple(restored.shape)} and {tuple(gt.shape)}"
        )
