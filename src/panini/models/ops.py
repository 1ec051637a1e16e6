"""The operators that StyleGAN2 is made of, in pure PyTorch.

Weights are stored unscaled and multiplied by their fan-in constant in `forward` (equalized
learning rate): an optimiser's step then has the same relative size in every layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLUR_TAPS = (1.0, 3.0, 3.0, 1.0)
"""The anti-aliasing filter of StyleGAN2, one axis of a separable kernel."""

LEAKY_SLOPE = 0.2
DEMODULATION_EPS = 1e-8


def blur_kernel(gain: float = 1.0) -> Tensor:
    """The 4x4 blur kernel, whose elements sum to `gain`."""
    taps = torch.tensor(BLUR_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel * (gain / kernel.sum())


def upfirdn2d(
    x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Tensor:
    """Insert zeros, pad, filter each channel, and keep every `down`-th sample.

    Args:
        x: (N, C, H, W).
        kernel: FIR filter, (kh, kw).
        up: Each sample is followed by `up - 1` zeros along both axes.
        down: Step of the output samples.
        pad: Zeros before and after, both axes alike; negative crops.

    Returns:
        (N, C, (H·up + sum(pad) - kh) // down + 1, likewise for W).
    """
    batch, channels, height, width = x.shape
    if up > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(batch, channels, height * up, width * up)
    padding = 0
    if pad[0] == pad[1] and pad[0] >= 0:
        padding = pad[0]  # the convolution pads by itself, without a copy
    else:
        x = F.pad(x, (pad[0], pad[1], pad[0], pad[1]))
    # A convolution layer correlates: flip to filter.
    weight = kernel.to(x.dtype).flip((0, 1)).expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, stride=down, padding=padding, groups=channels)


def bias_act(x: Tensor, bias: Tensor) -> Tensor:
    """Leaky ReLU of x + bias, times √2 so that the variance stays.

    Args:
        x: (N, C) or (N, C, H, W).
        bias: (C,).

    Returns:
        Shape of x.
    """
    bias = bias.to(x.dtype).reshape(-1, *[1] * (x.ndim - 2))
    # The factor commutes with the leaky ReLU; in place, it costs no further large tensor.
    return F.leaky_relu((x + bias).mul_(math.sqrt(2)), LEAKY_SLOPE, inplace=True)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each vector (last axis) to a root mean square of 1."""
    return x / (x.square().mean(dim=-1, keepdim=True).sqrt() + 1e-6)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    *,
    demodulate: bool = True,
    upsampling: Tensor | None = None,
) -> Tensor:
    """Convolve with weights whose input channels are scaled per sample.

    The scale is put on the features and the normalisation on the result, so that one ordinary
    convolution serves the whole batch.

    Args:
        x: (N, I, H, W).
        weight: Already scaled for its fan-in, (O, I, k, k).
        style: Scale of each input channel, (N, I).
        demodulate: Normalise each output channel to the variance of its input.
        upsampling: Double the side by a transposed convolution of stride 2 and this blur kernel
            of gain 4 (three of four samples were zeros); k must be 3. None keeps the side.

    Returns:
        (N, O, H, W), or (N, O, 2H, 2W).
    """
    weight = weight.to(x.dtype)
    style = style.to(x.dtype)
    x = x * style[:, :, None, None]
    if upsampling is None:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    else:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = upfirdn2d(x, upsampling, pad=(1, 1))
    if demodulate:
        power = style.square() @ weight.square().sum(dim=(2, 3)).t()  # (N, O)
        x = x * torch.rsqrt(power + DEMODULATION_EPS)[:, :, None, None]
    return x


def upsample_2x(x: Tensor, kernel: Tensor) -> Tensor:
    """Interpolate an image with a blur kernel of gain 4: (N, C, 2H, 2W)."""
    return upfirdn2d(x, kernel, up=2, pad=(2, 1))


class EqualLinear(nn.Module):
    """Linear layer with equalized learning rate.

    Args:
        in_features: Length of the input.
        out_features: Length of the output.
        lr_mul: Multiplies the effective learning rate of weight and bias.
        bias_init: Initial effective bias.
        activate: Leaky ReLU, times √2, after the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        lr_mul: float = 1.0,
        bias_init: float = 0.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_mul))
        self.lr_mul = lr_mul
        self.scale = lr_mul / math.sqrt(in_features)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) to (N, out_features)."""
        bias = self.bias * self.lr_mul
        if self.activate:
            return bias_act(F.linear(x, self.weight * self.scale), bias)
        return F.linear(x, self.weight * self.scale, bias)


class EqualConv2d(nn.Module):
    """Convolution with equalized learning rate, optionally blurred and halved.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, odd.
        downsample: Blur, then stride 2.
        activate: Add a bias, then leaky ReLU, times √2; otherwise the layer is purely linear.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        downsample: bool = False,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if activate else None
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.blur: Tensor | None
        self.register_buffer("blur", blur_kernel() if downsample else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W), or half of the side."""
        weight = self.weight * self.scale
        margin = weight.shape[-1] // 2
        if self.blur is None:
            x = F.conv2d(x, weight, padding=margin)
        else:
            # The blur pads for both itself (1 px) and the convolution.
            x = upfirdn2d(x, self.blur, pad=(margin + 1, margin + 1))
            x = F.conv2d(x, weight, stride=2)
        return x if self.bias is None else bias_act(x, self.bias)
