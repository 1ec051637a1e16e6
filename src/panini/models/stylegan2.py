"""StyleGAN2 (Karras et al. 2020): the generator that is the paper's GAN prior, and its critic."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from panini.models.ops import (
    EqualConv2d,
    EqualLinear,
    bias_act,
    blur_kernel,
    modulated_conv2d,
    pixel_norm,
    upsample_2x,
)
from panini.models.prior import Fuse, GanPrior, Window

SIZES = (32, 64, 128, 256, 512, 1024)
LARGEST_FUSED_LEVEL = 64
HALO = 3
"""Pixels kept around a window at every level.

An upsampling block reads so far beyond its output: with them the window is exactly the part
that it would be of the whole image.
"""


@dataclass(frozen=True, kw_only=True)
class _Pyramid:
    """Sides and channels that generator and discriminator have in common."""

    size: int = 1024
    """Side of the image, a power of two from 32 to 1024."""
    channel_multiplier: float = 2.0
    """Channels at side r are 16384 · channel_multiplier / r, at most `max_channels`."""
    max_channels: int = 512
    """Channels of the coarse levels."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"expected a size among {SIZES}, got {self.size}")

    def channels_at(self, level: int) -> int:
        """Channels of the feature whose side is `level` px."""
        return min(self.max_channels, int(16384 * self.channel_multiplier / level))


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Config(_Pyramid):
    """Size of a StyleGAN2 generator; the defaults are config-f of FFHQ at 1024 px."""

    style_dim: int = 512
    """Length of z and of w."""
    mapping_layers: int = 8
    """Linear layers between z and w."""
    mapping_lr_mul: float = 0.01
    """Learning rate of the mapping network relative to the rest."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(_Pyramid):
    """Size of a StyleGAN2 discriminator."""

    stddev_group: int = 4
    """Samples among which the minibatch standard deviation is taken."""


class MappingNetwork(nn.Module):
    """z to w: normalise, then linear layers with leaky ReLU."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EqualLinear(
                config.style_dim, config.style_dim, lr_mul=config.mapping_lr_mul, activate=True
            )
            for _ in range(config.mapping_layers)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(N, style_dim) to (N, style_dim)."""
        x = pixel_norm(z)
        for layer in self.layers:
            x = layer(x)
        return x


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, level: int, *, upsample: bool
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.style = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise: Tensor
        self.register_buffer("noise", torch.randn(1, 1, level, level))
        self.scale = 1 / math.sqrt(in_channels * 9)
        self.blur: Tensor | None
        self.register_buffer("blur", blur_kernel(4.0) if upsample else None, persistent=False)

    def forward(
        self, x: Tensor, w: Tensor, region: _Region | None, random: torch.Generator | None
    ) -> Tensor:
        """Feature (N, in, H, W) and w (N, style_dim) to (N, out, H, W) or twice the side.

        `region` says which part of this layer's level the result is; None is the whole. `random`
        draws other noise for each sample; None takes the stored one.
        """
        weight = self.weight * self.scale
        x = modulated_conv2d(x, weight, self.style(w), upsampling=self.blur)
        if random is not None:
            shape = (x.shape[0], 1, *x.shape[2:])
            noise = torch.randn(shape, generator=random, device=x.device)
        else:
            noise = self.noise if region is None else region.cut(self.noise)
        x = x + self.noise_strength.to(x.dtype)[:, None, None] * noise.to(x.dtype)
        return bias_act(x, self.bias)


class ToRGB(nn.Module):
    """Feature to its contribution to the image: modulated 1x1, not demodulated."""

    def __init__(self, in_channels: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.style = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.bias = nn.Parameter(torch.zeros(3))
        self.scale = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in, H, W) to (N, 3, H, W)."""
        rgb = modulated_conv2d(x, self.weight * self.scale, self.style(w), demodulate=False)
        return rgb + self.bias.to(rgb.dtype)[:, None, None]


class SynthesisBlock(nn.Module):
    """One level: upsampling convolution (absent at 4 px), convolution, RGB."""

    def __init__(self, config: StyleGAN2Config, level: int) -> None:
        super().__init__()
        out, dim = config.channels_at(level), config.style_dim
        self.conv0: StyledConv | None = None
        if level > 4:
            self.conv0 = StyledConv(config.channels_at(level // 2), out, dim, level, upsample=True)
        self.conv1 = StyledConv(out, out, dim, level, upsample=False)
        self.to_rgb = ToRGB(out, dim)
        self.blur: Tensor
        self.register_buffer("blur", blur_kernel(4.0), persistent=False)

    def forward(
        self,
        x: Tensor,
        rgb: Tensor | None,
        ws: list[Tensor],
        region: _Region | None,
        random: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Go on from the feature and the image of the level below.

        Args:
            x: Feature of the level below, or the constant input.
            rgb: Image of the level below, None at 4 px.
            ws: Styles of this block's layers, conv0 (if there is one), conv1, to_rgb.
            region: Part of this level that x and rgb stand for; None is the whole.
            random: Draws the noise; None takes the stored one.

        Returns:
            Feature (N, C, H, W) and image (N, 3, H, W) of this level.
        """
        if self.conv0 is not None:
            x = self.conv0(x, ws[0], region, random)
        x = self.conv1(x, ws[-2], region, random)
        contribution = self.to_rgb(x, ws[-1])
        return x, contribution if rgb is None else upsample_2x(rgb, self.blur) + contribution


class StyleGAN2(GanPrior):
    """The StyleGAN2 generator, with W+ styles and fixed noise buffers.

    `channels` holds the levels 4, 8, … up to 64 px that another block follows. `synthesis`
    calls `fuse` at those of them that lie below the size asked for, after the level's
    convolutions: the level's own RGB comes from the feature as it was, the next level from the
    one that `fuse` returned.

    Args:
        config: The size.
    """

    def __init__(self, config: StyleGAN2Config | None = None) -> None:
        super().__init__()
        config = config or StyleGAN2Config()
        self.config = config
        self.size = config.size
        self.z_dim = self.w_dim = config.style_dim
        self.levels = _levels(config.size)
        self.num_ws = 2 * len(self.levels)
        top = min(LARGEST_FUSED_LEVEL, config.size // 2)
        self.channels = {lvl: config.channels_at(lvl) for lvl in self.levels if lvl <= top}
        self.mapping_network = MappingNetwork(config)
        self.constant = nn.Parameter(torch.randn(1, config.channels_at(4), 4, 4))
        self.blocks = nn.ModuleDict({str(lvl): SynthesisBlock(config, lvl) for lvl in self.levels})
        self.register_buffer("w_avg", torch.zeros(config.style_dim))

    def mapping(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """Map latents to styles; see `GanPrior.mapping`."""
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"expected z of shape (N, {self.z_dim}), got {tuple(z.shape)}")
        w = self.mapping_network(z)
        return w if truncation_psi == 1 else torch.lerp(self.w_avg.to(w), w, truncation_psi)

    def synthesis(
        self,
        ws: Tensor,
        *,
        size: int | None = None,
        fuse: Fuse | None = None,
        window: Window | None = None,
        anchor: int | None = None,
        random: torch.Generator | None = None,
    ) -> Tensor:
        """Draw faces; see `GanPrior.synthesis`. There is no anchor: the image of every size is
        part of that of the next already.

        A window costs the share of its area and equals that part of the whole image. The noise of
        every layer is a stored map, so that a result can be had again; `random` (a generator on
        the device of ws) draws it anew for each face, as training does.

        Raises:
            ValueError: Shape of ws, size or window do not fit the network.
        """
        if anchor is not None:
            raise ValueError(f"StyleGAN2 adds up the images of all sizes, got anchor {anchor}")
        size = self.size if size is None else size
        self._check(ws, size, fuse, window)
        styles = list(ws.unbind(dim=1))
        x = self.constant.to(ws.dtype).expand(ws.shape[0], -1, -1, -1)
        rgb, region = None, None
        for index, level in enumerate(self.levels):
            # to_rgb of one level and conv0 of the next read the same style.
            first = max(2 * index - 1, 0)
            region = None if region is None else region.doubled()
            block = self.blocks[str(level)]
            x, rgb = block(x, rgb, styles[first : 2 * index + 2], region, random)
            if level == size:
                break
            if fuse is not None and level in self.channels:
                x = fuse(level, x)
            if window is not None and level >= window.level:
                kept = _Region.around(window, level, HALO)
                x, rgb = kept.cut(x, region), kept.cut(rgb, region)
                region = kept
        assert rgb is not None
        return rgb if window is None else _Region.around(window, size, 0).cut(rgb, region)

    def modules_above(self, level: int) -> list[nn.Module]:
        """See `GanPrior.modules_above`."""
        return [block for size, block in self.blocks.items() if int(size) > level]

    def _check(self, ws: Tensor, size: int, fuse: Fuse | None, window: Window | None) -> None:
        num_ws, dim = self.num_ws, self.w_dim
        if ws.ndim != 3 or ws.shape[1:] != (num_ws, dim):
            raise ValueError(f"expected ws of shape (N, {num_ws}, {dim}), got {tuple(ws.shape)}")
        if size not in self.levels:
            raise ValueError(f"expected a size among {self.levels}, got {size}")
        if window is None:
            return
        if window.level not in self.levels or window.level > size:
            raise ValueError(f"expected a window at a level up to {size} px, got {window}")
        first, last = min(window.top, window.left), max(window.top, window.left) + window.side
        if first < 0 or window.side < 1 or last > window.level:
            raise ValueError(f"expected a window inside its level, got {window}")
        fused = max((lvl for lvl in self.channels if lvl < size), default=0)
        if fuse is not None and window.level < fused:
            raise ValueError(f"expected a window above the fused levels ({fused} px), got {window}")


class Discriminator(nn.Module):
    """The StyleGAN2 critic: residual blocks down to 4 px, minibatch deviation, two linear layers.

    Args:
        config: The size.
    """

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        config = config or DiscriminatorConfig()
        self.config = config
        levels = list(reversed(_levels(config.size)))
        coarse = config.channels_at(4)
        self.from_rgb = EqualConv2d(3, config.channels_at(config.size), 1)
        self.blocks = nn.ModuleDict(
            {
                str(fine): _CriticBlock(config.channels_at(fine), config.channels_at(next_level))
                for fine, next_level in itertools.pairwise(levels)
            }
        )
        self.final_conv = EqualConv2d(coarse + 1, coarse, 3)
        self.final_linear = EqualLinear(coarse * 16, coarse, activate=True)
        self.logit = EqualLinear(coarse, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Judge images.

        Args:
            image: RGB in [-1, 1], (N, 3, size, size).

        Returns:
            Logits, (N, 1): positive is real. They depend on the other samples of the batch.

        Raises:
            ValueError: The image has another size.
        """
        side = self.config.size
        if image.ndim != 4 or image.shape[1:] != (3, side, side):
            raise ValueError(
                f"expected images of shape (N, 3, {side}, {side}), got {tuple(image.shape)}"
            )
        x = self.from_rgb(image)
        for block in self.blocks.values():
            x = block(x)
        x = torch.cat([x, minibatch_stddev(x, self.config.stddev_group)], dim=1)
        x = self.final_conv(x)
        return self.logit(self.final_linear(x.flatten(1)))


class _CriticBlock(nn.Module):
    """Residual block that halves the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualConv2d(in_channels, in_channels, 3)
        self.conv1 = EqualConv2d(in_channels, out_channels, 3, downsample=True)
        self.skip = EqualConv2d(in_channels, out_channels, 1, downsample=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H/2, W/2)."""
        # Both branches have unit variance: √½ keeps that of the sum.
        return (self.conv1(self.conv0(x)) + self.skip(x)) * math.sqrt(0.5)


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """How much the samples of a group differ, as one more channel.

    Args:
        x: (N, C, H, W).
        group: Samples in a group; the largest divisor of N up to it is used.

    Returns:
        (N, 1, H, W), constant over H and W.
    """
    batch, channels, height, width = x.shape
    group = next(size for size in range(min(group, batch), 0, -1) if batch % size == 0)
    grouped = x.reshape(group, -1, channels, height, width)
    deviation = torch.sqrt(grouped.var(dim=0, unbiased=False) + 1e-8)
    mean = deviation.mean(dim=(1, 2, 3))  # (N / group,)
    return mean.repeat(group)[:, None, None, None].expand(-1, 1, height, width)


class _Region(NamedTuple):
    """A rectangle of one level, in its pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, window: Window, level: int, halo: int) -> _Region:
        """The window at `level` and `halo` px about it, as far as the image reaches."""
        scale = level // window.level
        top, left, side = (scale * v for v in (window.top, window.left, window.side))
        return cls(
            max(top - halo, 0),
            max(left - halo, 0),
            min(top + side + halo, level),
            min(left + side + halo, level),
        )

    def doubled(self) -> _Region:
        """The same rectangle at the next level."""
        return _Region(*(2 * edge for edge in self))

    def cut(self, x: Tensor, held: _Region | None = None) -> Tensor:
        """This part of x (N, C, H, W), which is the part `held` of the level; None: all of it."""
        top, left = (0, 0) if held is None else (held.top, held.left)
        return x[..., self.top - top : self.bottom - top, self.left - left : self.right - left]


def _levels(size: int) -> tuple[int, ...]:
    return tuple(2**exponent for exponent in range(2, size.bit_length()))
