"""Bands of the photo: DAFI's idea once more, on the finished face.

What a degradation leaves of a photo it leaves by frequency: blur and downsampling take the fine
bands, noise spoils them, and the coarse ones stay true. So the restored face is interpolated with
the photo band by band, with weights from the degradation representation, as Eq. 7 does channel by
channel. A sharp photo keeps its own detail; a poor one still keeps its colours and its outline.
This is not in the paper; docs/training.md has what it measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from panini.models.fusion import FusionControl
from panini.models.prior import Window


@dataclass(frozen=True, kw_only=True)
class BandsConfig:
    """Shape of the interpolation by bands."""

    levels: tuple[int, ...] = (512, 256, 128, 64, 32, 16, 8)
    """Sides of the whole face at which bands are cut, px, fine to coarse, each half of the one
    before. The last holds everything coarser as well."""
    repr_dim: int = 256
    """Length of v_DR."""
    hidden: int = 64
    """Width of the MLP."""
    initial: Mapping[int, float] = field(default_factory=dict)
    """Level → share of the photo before training; levels not named start at ½."""

    def __post_init__(self) -> None:
        halved = all(a == 2 * b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if not self.levels or not halved:
            raise ValueError(f"band levels must halve from one to the next, got {self.levels}")


class PhotoBands(nn.Module):
    """Interpolate, band by band, between the restored face and the photo."""

    def __init__(self, config: BandsConfig) -> None:
        super().__init__()
        self.config = config
        last = nn.Linear(config.hidden, len(config.levels))
        shares = torch.tensor([config.initial.get(level, 0.5) for level in config.levels])
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(torch.logit(shares))
        self.mask_mlp = nn.Sequential(
            nn.Linear(config.repr_dim, config.hidden), nn.LeakyReLU(0.1), last
        )

    def shares(self, degradation: Tensor, control: FusionControl | None = None) -> Tensor:
        """The photo's share of each band, (N, levels) in (0, 1).

        Args:
            degradation: Degradation representation v_DR, (N, repr_dim).
            control: A bias towards the prior lowers the shares, those finer than 64 px, the finest
                level that is fused, like that level's; an `image_gain` multiplies them.
        """
        logits = self.mask_mlp(degradation)
        if control is None:
            return torch.sigmoid(logits)
        at = [control.at(min(level, 64)) for level in self.config.levels]
        bias = logits.new_tensor([bias for bias, _, _ in at])
        gain = logits.new_tensor([image_gain for _, _, image_gain in at])
        return gain * torch.sigmoid(logits - bias)

    def forward(
        self, restored: Tensor, lq: Tensor, shares: Tensor, window: Window | None = None
    ) -> Tensor:
        """Restored + Σ share · band(photo - restored).

        Args:
            restored: Faces that the prior drew, (N, 3, S, S), or the window's part of them.
            lq: The degraded faces, whole, (N, 3, in_size, in_size).
            shares: From `shares`.
            window: The part that `restored` shows; None is all.

        Returns:
            Same shape as `restored`. Bands finer than `restored` or `lq` have no say.
        """
        # Half precision would round the sum to a level or two of 255.
        restored, lq, shares = restored.float(), lq.float(), shares.float()
        if window is not None:
            lq = window.crop(lq)
        whole = lq.shape[-1] if window is None else lq.shape[-1] * window.level // window.side
        side = min(lq.shape[-1], restored.shape[-1])
        finest = whole * side // lq.shape[-1]
        difference = _resize(lq, side) - _resize(restored, side)
        weights = dict(zip(self.config.levels, shares.unbind(1), strict=True))
        change = _weigh(difference, finest, {k: w[:, None, None, None] for k, w in weights.items()})
        return restored + _resize(change, restored.shape[-1])


def _weigh(x: Tensor, level: int, weights: Mapping[int, Tensor]) -> Tensor:
    """Σ weight · band of a Laplacian pyramid; `level`: side of the whole face where x is."""
    coarsest = min(weights)
    if level <= coarsest or x.shape[-1] % 2:
        return weights[max(level, coarsest)] * x
    coarse = _halve(x)
    rest = _weigh(coarse, level // 2, weights)
    if level not in weights:
        return _double(rest)
    return _double(rest - weights[level] * coarse) + weights[level] * x


def _halve(x: Tensor) -> Tensor:
    """Half the side, after the binomial filter [1, 3, 3, 1]: three means of two."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1), 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def _resize(x: Tensor, side: int) -> Tensor:
    """To another side: halved step by step, or enlarged at once."""
    while x.shape[-1] >= 2 * side:
        x = _halve(x)
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear")
