"""The light encoder of the shipped sizes: image features and latent codes at laptop speed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from panini.models.encoder import EncoderOutput


@dataclass(frozen=True, kw_only=True)
class MobileEncoderConfig:
    """Shape of the mobile encoder."""

    in_size: int = 512
    """Side of the degraded face, px."""
    unshuffle: int = 4
    """Space-to-depth factor in front; `in_size / unshuffle` is the stem's resolution."""
    stem_channels: int = 64
    """Channels of the stem; 0 when the stem's resolution is 64 px already."""
    channels: tuple[int, ...] = (160, 256, 320, 320, 320)
    """Channels at 64, 32, 16, 8, 4 px."""
    depths: tuple[int, ...] = (3, 3, 2, 2, 1)
    """Residual blocks at 64, 32, 16, 8, 4 px."""
    num_ws: int = 23
    """Style vectors of the prior."""
    w_dim: int = 512
    """Length of w."""
    ws_rank: int = 64
    """Rank of the per-layer offsets of ws around one common w."""

    def __post_init__(self) -> None:
        stem = self.in_size // self.unshuffle
        if self.in_size % self.unshuffle or stem not in (64, 128):
            raise ValueError(
                f"in_size / unshuffle must be 64 or 128, got {self.in_size} / {self.unshuffle}"
            )
        if len(self.channels) != len(self.depths):
            raise ValueError(f"got {len(self.channels)} channels for {len(self.depths)} depths")


class ResidualBlock(nn.Module):
    """Depthwise 3×3, then a pointwise bottleneck twice as wide; small at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.reduce = nn.Conv2d(2 * channels, channels, 1)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        y = F.leaky_relu(self.expand(self.depthwise(x)), 0.2)
        return x + self.scale * self.reduce(y)


class MobileEncoder(nn.Module):
    """Degraded face → features at 64, 32, 16, 8, 4 px and ws.

    A pyramid down to 4 px, then a top-down path that lets the fine levels know the whole face.
    ws are `w_avg` plus an offset common to all layers plus low-rank offsets for each.
    """

    w_avg: Tensor

    def __init__(self, config: MobileEncoderConfig) -> None:
        super().__init__()
        self.config = config
        bands = 3 * config.unshuffle**2
        stem_side = config.in_size // config.unshuffle
        if stem_side == 128:
            self.stem = nn.Sequential(
                nn.Conv2d(bands, config.stem_channels, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(config.stem_channels, config.channels[0], 3, stride=2, padding=1),
            )
        else:
            self.stem = nn.Conv2d(bands, config.channels[0], 3, padding=1)
        self.levels = tuple(64 >> i for i in range(len(config.channels)))
        self.downs = nn.ModuleList(
            nn.Conv2d(cin, cout, 2, stride=2)
            for cin, cout in zip(config.channels[:-1], config.channels[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(c) for _ in range(depth)))
            for c, depth in zip(config.channels, config.depths, strict=True)
        )
        self.tops = nn.ModuleList(
            nn.Conv2d(cin, cout, 1)
            for cout, cin in zip(config.channels[:-1], config.channels[1:], strict=True)
        )
        self.merges = nn.ModuleList(ResidualBlock(c) for c in config.channels[:-1])
        side = self.levels[-1]
        self.latent_conv = nn.Conv2d(config.channels[-1], 128, 1)
        self.latent_hidden = nn.Linear(128 * side * side, 512)
        self.latent_common = nn.Linear(512, config.w_dim)
        self.latent_code = nn.Linear(512, config.ws_rank)
        self.latent_offsets = nn.Linear(config.ws_rank, config.num_ws * config.w_dim)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self._initialise()

    def _initialise(self) -> None:
        """Keep the size of activations on the way down: there is no normalisation to do it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for top in self.tops:
            assert isinstance(top, nn.Conv2d)
            nn.init.kaiming_normal_(top.weight, a=1.5)
        # Training starts near the mean face.
        for layer, share in ((self.latent_common, 0.2), (self.latent_offsets, 0.05)):
            layer.weight.data.mul_(share)

    def forward(self, lq: Tensor) -> EncoderOutput:
        """Encode degraded faces, (N, 3, in_size, in_size), RGB in [-1, 1]."""
        size = self.config.in_size
        if lq.ndim != 4 or lq.shape[1:] != (3, size, size):
            raise ValueError(
                f"expected faces of shape (N, 3, {size}, {size}), got {tuple(lq.shape)}; "
                "use Restorer for photos"
            )
        x = self.stem(F.pixel_unshuffle(lq, self.config.unshuffle))
        features: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            if index:
                x = self.downs[index - 1](x)
            x = stage(x)
            features.append(x)
        ws = self._ws(x)
        for index in reversed(range(len(self.tops))):
            top = F.interpolate(self.tops[index](features[index + 1]), scale_factor=2)
            features[index] = self.merges[index](features[index] + top)
        return EncoderOutput(features=dict(zip(self.levels, features, strict=True)), ws=ws)

    def _ws(self, coarse: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.latent_conv(coarse), 0.2).flatten(1)
        hidden = F.leaky_relu(self.latent_hidden(hidden), 0.2)
        common = self.w_avg + self.latent_common(hidden)
        offsets = self.latent_offsets(self.latent_code(hidden))
        return common.unsqueeze(1) + offsets.unflatten(1, (self.config.num_ws, -1))
