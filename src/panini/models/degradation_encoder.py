"""The degradation representation encoder (DRE): what was done to an image, not what it shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAKY_SLOPE = 0.1
HALF_LEVELS = 4.0
"""Size of a frequency, levels of 0..255, at which `_block_frequencies` gives half of its limit."""

Kind = Literal["paper", "mobile"]


def _frequencies(lq: Tensor) -> Tensor:
    """What blur, downsampling, noise and JPEG change, (N, 192, H/8, W/8) in (-1, 1).

    The 8×8 blocks' frequencies (`_block_frequencies`) of the image (N, 3, H, W) in [-1, 1], and of
    the image at a quarter of its side, where coarse downsampling shows; each block of the
    latter stands in the place of the sixteen that it covers.
    """
    coarse = _block_frequencies(F.avg_pool2d(lq, 4))
    return torch.cat([_block_frequencies(lq), F.interpolate(coarse, scale_factor=4.0)], dim=1)


def _block_frequencies(image: Tensor) -> Tensor:
    """Blocks of 8×8 px under the cosine transform that JPEG uses: 64 of luma, 16 of each chroma.

    Compressed by x / (|x| + 4 levels): what a degradation leaves is small, and a face is a
    thousand times larger.
    """
    steps = torch.arange(8, dtype=torch.float32, device=image.device)
    cosines = torch.cos(math.pi / 8 * steps[:, None] * (steps + 0.5)) / 2
    cosines[0] /= 2**0.5
    filters = torch.einsum("ai,bj->abij", cosines, cosines)[:, :, None].to(image.dtype)
    luma, blue, red = (_mixed(image * 127.5, shares) for shares in _YCC)
    few = filters[:4, :4].flatten(0, 1)
    parts = ((luma, filters.flatten(0, 1)), (blue, few), (red, few))
    found = torch.cat([F.conv2d(x[:, None], f, stride=8) for x, f in parts], dim=1)
    return found / (found.abs() + HALF_LEVELS)


def _mixed(image: Tensor, shares: tuple[float, float, float]) -> Tensor:
    """A weighted sum of the colours, (N, H, W)."""
    # Not by a tensor of shares: the GPU would be waited for until it is there.
    red, green, blue = image.unbind(1)
    return shares[0] * red + shares[1] * green + shares[2] * blue


_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class _Layout(NamedTuple):
    """The convolutions of a kind of encoder and what is done to the image before them."""

    prepare: Callable[[Tensor], Tensor]
    """Image (N, 3, H, W) to the input of the first convolution."""
    channels: int
    """Channels of that input."""
    convs: tuple[tuple[int | None, int], ...]
    """Output channels (None is the length of the representation) and stride of each 3x3."""
    divisor: int
    """Image sides must be multiples of it."""
    pointwise: bool
    """Whether a 1x1 convolution brings the channels to the length of the representation."""


_LAYOUTS: dict[Kind, _Layout] = {
    # The image is brought to 256 px, whatever its size.
    "paper": _Layout(
        prepare=lambda lq: F.adaptive_avg_pool2d(lq, 256),
        channels=3,
        convs=((64, 1), (64, 1), (128, 2), (128, 1), (None, 2), (None, 1)),
        divisor=1,
        pointwise=False,
    ),
    # Pooling drops the noise and JPEG traces; frequencies show them, at a 64th of the area.
    "mobile": _Layout(
        prepare=_frequencies,
        channels=192,
        convs=((96, 1), (128, 2), (192, 2)),
        divisor=32,
        pointwise=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class DegradationEncoderConfig:
    """Which degradation encoder."""

    kind: Kind = "paper"
    """"paper" as the authors built it; "mobile" is lighter and sees the frequencies of all pixels
    of 512 px, which blur, noise and JPEG change."""
    dim: int = 256
    """Length of the degradation representation."""

    def __post_init__(self) -> None:
        if self.kind not in _LAYOUTS:
            raise ValueError(f"expected a kind among {sorted(_LAYOUTS)}, got {self.kind!r}")

    @property
    def divisor(self) -> int:
        """Sides of the images must be multiples of it, px."""
        return _LAYOUTS[self.kind].divisor


class DegradationEncoder(nn.Module):
    """Degraded image to its degradation representation v_DR (Eq. 5).

    `head` serves contrastive pre-training alone (Eq. 4); Panini-Net reads what comes before it.

    Args:
        config: The kind; None is the paper's.
    """

    def __init__(self, config: DegradationEncoderConfig | None = None) -> None:
        super().__init__()
        config = config or DegradationEncoderConfig()
        self.config = config
        layout = _LAYOUTS[config.kind]
        self.blocks = nn.ModuleList()
        channels = layout.channels
        for width, stride in layout.convs:
            self.blocks.append(_ConvNorm(channels, width or config.dim, stride))
            channels = width or config.dim
        self.pointwise = nn.Conv2d(channels, config.dim, 1) if layout.pointwise else nn.Identity()
        self.head = nn.Sequential(
            nn.Linear(config.dim, config.dim),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Linear(config.dim, config.dim),
        )

    def forward(self, lq: Tensor) -> Tensor:
        """Encode the degradation.

        Args:
            lq: RGB in [-1, 1], (N, 3, H, W); H and W multiples of 32 for mobile.

        Returns:
            v_DR, (N, dim), not normalised.

        Raises:
            ValueError: The image does not fit.
        """
        layout = _LAYOUTS[self.config.kind]
        if lq.ndim != 4 or lq.shape[1] != 3 or any(s % layout.divisor for s in lq.shape[2:]):
            raise ValueError(
                f"expected lq of shape (N, 3, H, W), H and W multiples of {layout.divisor},"
                f" got {tuple(lq.shape)}"
            )
        x = layout.prepare(lq)
        for block in self.blocks:
            x = block(x)
        return self.pointwise(x).mean(dim=(2, 3))

    def project(self, degradation: Tensor) -> Tensor:
        """Map v_DR (N, dim) to where the contrastive loss compares: (N, dim), not normalised."""
        return self.head(degradation)


class _ConvNorm(nn.Module):
    """3x3 convolution, batch norm, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        return F.leaky_relu(self.norm(self.conv(x)), LEAKY_SLOPE)
