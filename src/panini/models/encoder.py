"""The image encoder at the paper's size: features at five levels, and style vectors.

The paper's IFE 6 and 5 are residual dense blocks (RRDB), an attention module (CBAM) and strided
convolutions down to 64 px; IFE 4 to 1 are one strided convolution each (Eq. 1); the LCE is a
convolution and a linear layer (Eq. 3). H_Conv (Eq. 2) belongs to the fusion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAKY_SLOPE = 0.2
RESIDUAL_SCALE = 0.2


@dataclass(frozen=True, kw_only=True)
class EncoderOutput:
    """What an encoder found in a batch of degraded faces."""

    features: dict[int, Tensor]
    """Keyed by side: (N, C, side, side), before H_Conv of Eq. 2."""
    ws: Tensor
    """Style vectors (W+), (N, num_ws, w_dim)."""


@dataclass(frozen=True, kw_only=True)
class PaperEncoderConfig:
    """Size of the paper's encoder; the defaults are multi-degradation restoration (MFR)."""

    in_size: int = 512
    """Side of the degraded face, px."""
    rrdb_channels: int = 8
    """Channels of the residual dense blocks, which run at `in_size`."""
    rrdb_blocks: int = 2
    """Number of RRDB, three dense blocks each."""
    rrdb_growth: int = 32
    """Channels that each convolution of a dense block adds."""
    attention_reduction: int = 2
    """CBAM's channel MLP narrows by this factor."""
    widths: tuple[int, ...] = (32, 64, 128, 512)
    """Channels of the convolutions after CBAM; the first keeps the side, the others halve it."""
    latent_channels: int = 256
    """Channels at 4 px in front of the linear layer of the LCE."""
    num_ws: int = 18
    """Style vectors of the prior."""
    w_dim: int = 512
    """Length of a style vector."""

    def __post_init__(self) -> None:
        top = self.top_level
        if top < 8 or top & (top - 1) or top << (len(self.widths) - 1) != self.in_size:
            raise ValueError(
                "expected an in_size that len(widths) - 1 halvings bring to a power of two from 8,"
                f" got in_size {self.in_size} and widths {self.widths}"
            )

    @property
    def top_level(self) -> int:
        """Side of the finest feature that is handed to the fusion, px."""
        return self.in_size >> (len(self.widths) - 1)


MFR_ENCODER = PaperEncoderConfig()
SR_ENCODER = PaperEncoderConfig(
    in_size=64, rrdb_channels=64, rrdb_blocks=23, attention_reduction=8, widths=(512,)
)


class PaperEncoder(nn.Module):
    """Degraded face to features per level and style vectors (IFE and LCE of the paper).

    Args:
        config: The size; None is MFR.
    """

    def __init__(self, config: PaperEncoderConfig | None = None) -> None:
        super().__init__()
        config = config or PaperEncoderConfig()
        self.config = config
        out = config.widths[-1]
        self.rrdb = _RRDBNet(config.rrdb_channels, config.rrdb_blocks, config.rrdb_growth)
        self.attention = _CBAM(config.rrdb_channels, config.attention_reduction)
        before = (config.rrdb_channels, *config.widths)
        self.stem = nn.ModuleList(
            _conv(before[i], width, stride=1 if i == 0 else 2)
            for i, width in enumerate(config.widths)
        )
        levels = []
        level = config.top_level // 2
        while level >= 4:
            levels.append(level)
            level //= 2
        self.stages = nn.ModuleDict({str(lvl): _conv(out, out, stride=2) for lvl in levels})
        self.latent_conv = _conv(out, config.latent_channels)
        self.latent_linear = nn.Linear(config.latent_channels * 16, config.num_ws * config.w_dim)

    def forward(self, lq: Tensor) -> EncoderOutput:
        """Encode degraded faces.

        Args:
            lq: RGB in [-1, 1], (N, 3, in_size, in_size).

        Returns:
            Features at 4, 8, … px and direct styles: no mean style is added to them.

        Raises:
            ValueError: The image has another size.
        """
        config = self.config
        side = config.in_size
        if lq.ndim != 4 or lq.shape[1:] != (3, side, side):
            raise ValueError(f"expected lq of shape (N, 3, {side}, {side}), got {tuple(lq.shape)}")

        # Image to the finest level.
        x = self.attention(self.rrdb(lq))
        for conv in self.stem:
            x = _leaky(conv(x))

        # Down to 4 px.
        features = {config.top_level: x}
        for name, stage in self.stages.items():
            x = _leaky(stage(x))
            features[int(name)] = x

        # Style vectors.
        latent = self.latent_linear(_leaky(self.latent_conv(x)).flatten(1))
        ws = latent.reshape(-1, config.num_ws, config.w_dim)
        return EncoderOutput(features=dict(sorted(features.items())), ws=ws)


class _DenseBlock(nn.Module):
    """Five convolutions that each read all results so far, and a damped residual."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            _conv(channels + i * growth, growth if i < 4 else channels) for i in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        seen = [x]
        for conv in self.convs[:-1]:
            seen.append(_leaky(conv(torch.cat(seen, dim=1))))
        return x + RESIDUAL_SCALE * self.convs[-1](torch.cat(seen, dim=1))


class _RRDB(nn.Module):
    """Residual in residual: three dense blocks inside a damped residual."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(_DenseBlock(channels, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + RESIDUAL_SCALE * self.dense(x)


class _RRDBNet(nn.Module):
    """RGB to features at the same side."""

    def __init__(self, channels: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.first = _conv(3, channels)
        self.blocks = nn.Sequential(*(_RRDB(channels, growth) for _ in range(blocks)))
        self.last = _conv(channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H, W)."""
        x = self.first(image)
        return x + self.last(self.blocks(x))


class _CBAM(nn.Module):
    """Channel gate, then spatial gate (Woo et al. 2018), without a residual.

    One convolution, the same weights, stands in front of both gates: so the released
    checkpoints have it.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.conv = _conv(channels, channels)
        self.channel_mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.spatial_conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.spatial_norm = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = self.conv(x)
        gate = self.channel_mlp(x.mean(dim=(2, 3))) + self.channel_mlp(x.amax(dim=(2, 3)))
        x = self.conv(x * torch.sigmoid(gate)[:, :, None, None])
        pooled = torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=1)  # (N, 2, H, W)
        return x * torch.sigmoid(self.spatial_norm(self.spatial_conv(pooled)))


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE)
