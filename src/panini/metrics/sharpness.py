"""How much fine detail an image holds, without a reference."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


def sharpness(images: Tensor) -> Tensor:
    """Share of the spectral energy of the luma above a quarter of the Nyquist frequency.

    The mean is removed and a Hann window applied, so that neither brightness nor the borders
    count. Noise counts as detail: read it beside a metric that compares with the truth.

    Args:
        images: RGB in [-1, 1], (N, 3, H, W).

    Returns:
        (N,) in [0, 1]; 0 for a flat image.

    Raises:
        ValueError: The images are not RGB batches.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected RGB images (N, 3, H, W), got {tuple(images.shape)}")
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    luma = (images.float() * weights).sum(dim=1)
    height, width = luma.shape[1:]
    window = torch.outer(_hann(height, luma), _hann(width, luma))
    # The windowed mean goes, lest the window's own side lobes count as detail.
    luma = (luma - (luma * window).sum(dim=(1, 2), keepdim=True) / window.sum()) * window
    energy = torch.fft.fft2(luma).abs().square()
    rows = torch.fft.fftfreq(height, device=luma.device)
    columns = torch.fft.fftfreq(width, device=luma.device)
    # Frequencies are in cycles a pixel: Nyquist is 0.5.
    fine = torch.hypot(rows[:, None], columns[None]) > 0.5 / 4
    # Below a deviation of 1e-4, far less than a level of 8 bits, an image is flat.
    floor = (height * width * 1e-4) ** 2
    return (energy * fine).sum(dim=(1, 2)) / energy.sum(dim=(1, 2)).clamp(min=floor)


def _hann(length: int, like: Tensor) -> Tensor:
    return torch.hann_window(length, periodic=False, device=like.device)
