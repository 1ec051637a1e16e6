"""DAFI: degradation-aware feature interpolation (Eq. 6 and 7), and control over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

PerLevel = float | Mapping[int, float]
"""One number for all levels, or numbers by level (px); levels not named keep the default."""


@dataclass(frozen=True, kw_only=True)
class FusionControl:
    """What a user may change in the fusion: Eq. 12 is `prior_gain=0`, Eq. 13 `image_gain=0`.

    Attributes:
        bias: Added to the prior's mask logits; above 0 trusts the prior more, below 0 the photo.
        prior_gain: Multiplies the masked prior feature.
        image_gain: Multiplies the masked image feature.
    """

    bias: PerLevel = 0.0
    prior_gain: PerLevel = 1.0
    image_gain: PerLevel = 1.0

    def at(self, level: int) -> tuple[float, float, float]:
        """Bias, prior gain and image gain of one level."""
        return (
            _pick(self.bias, level, 0.0),
            _pick(self.prior_gain, level, 1.0),
            _pick(self.image_gain, level, 1.0),
        )


def _pick(value: PerLevel, level: int, default: float) -> float:
    return value.get(level, default) if isinstance(value, Mapping) else value


@dataclass(frozen=True, kw_only=True)
class DAFIConfig:
    """Shape of the fusion."""

    prior_channels: Mapping[int, int]
    """Level (px) → channels of the prior's feature there."""
    image_channels: Mapping[int, int]
    """Level (px) → channels of the encoder's feature there."""
    repr_dim: int = 256
    """Length of the degradation representation v_DR."""
    shared_mlp: bool = False
    """False: one MLP per level, as in the paper. True: one for all, as the authors coded it."""
    branch: Literal["conv", "separable"] = "conv"
    """The image branch of Eq. 2: a 3×3 convolution, or a light one in the prior's own scale."""
    initial_prior: Mapping[int, float] = field(default_factory=dict)
    """Level → mean of the prior's mask before training; levels not named start at ½."""


class SeparableBranch(nn.Module):
    """Image branch of the mobile size: depthwise 3×3, pointwise, then the prior's own scale.

    The pointwise part predicts features in units of the prior's per-channel statistics, so
    that training starts where the prior's later layers already understand them.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(cin, cin, 3, padding=1, groups=cin)
        self.pointwise = nn.Conv2d(cin, cout, 1)
        self.mean = nn.Parameter(torch.zeros(1, cout, 1, 1))
        self.std = nn.Parameter(torch.ones(1, cout, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) → (N, cout, H, W)."""
        return self.mean + self.std * self.pointwise(x + self.depthwise(x))


class DAFI(nn.Module):
    """Interpolate, channel by channel, between GAN-prior and encoder features."""

    def __init__(self, config: DAFIConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = tuple(config.prior_channels)
        self.convs = nn.ModuleDict(
            {
                str(level): _branch(config.branch, config.image_channels[level], channels)
                for level, channels in config.prior_channels.items()
            }
        )
        widths = [2 * channels for channels in config.prior_channels.values()]
        if config.shared_mlp:
            self.mask_mlp = _mlp(config.repr_dim, sum(widths))
        else:
            self.mask_mlps = nn.ModuleDict(
                {
                    str(level): _mlp(config.repr_dim, width)
                    for level, width in zip(self.levels, widths, strict=True)
                }
            )
        self._start_masks()

    def mask_logits(self, degradation: Tensor) -> dict[int, Tensor]:
        """Logits of the two sources, level → (N, 2, C); index 0 is the prior."""
        if self.config.shared_mlp:
            widths = [2 * self.config.prior_channels[level] for level in self.levels]
            parts = self.mask_mlp(degradation).split(widths, dim=1)
        else:
            parts = [self.mask_mlps[str(level)](degradation) for level in self.levels]
        return {
            level: part.unflatten(1, (2, -1))
            for level, part in zip(self.levels, parts, strict=True)
        }

    def masks(self, degradation: Tensor, control: FusionControl | None = None) -> dict[int, Tensor]:
        """Weight of the prior for every level and channel (Eq. 6).

        Args:
            degradation: Degradation representation v_DR, (N, repr_dim).
            control: Its bias is added to the prior's logits.

        Returns:
            Level → (N, C, 1, 1) in (0, 1); 1 keeps the prior, 0 takes the image.
        """
        control = control or FusionControl()
        masks: dict[int, Tensor] = {}
        for level, logits in self.mask_logits(degradation).items():
            # A softmax over two logits is the sigmoid of their difference.
            mask = torch.sigmoid(logits[:, 0] - logits[:, 1] + control.at(level)[0])
            masks[level] = mask[..., None, None]
        return masks

    def image_feature(self, level: int, encoded: Tensor) -> Tensor:
        """F_IFE of Eq. 2: the encoder's feature of a level through its own branch."""
        return self.convs[str(level)](encoded)

    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor,
        control: FusionControl | None = None,
    ) -> Tensor:
        """Eq. 7, with the gains of `control` (Eq. 12, Eq. 13).

        Args:
            level: Side of the features, px.
            prior: F_GPB, (N, C, level, level).
            image: F_IFE from `image_feature`, same shape.
            mask: The level's entry of `masks`, (N, C, 1, 1).
            control: Gains; None leaves both at 1.

        Returns:
            F_DAFI, (N, C, level, level).
        """
        if control is None:
            return image + mask * (prior - image)
        _, prior_gain, image_gain = control.at(level)
        return prior_gain * mask * prior + image_gain * (1 - mask) * image

    @torch.no_grad()
    def _start_masks(self) -> None:
        """Set the last biases so that the prior's mean share is the configured one."""
        for level, share in self.config.initial_prior.items():
            if not 0 < share < 1:
                raise ValueError(f"initial_prior of level {level} must be in (0, 1), got {share}")
            if self.config.shared_mlp:
                raise ValueError("initial_prior needs one MLP per level (shared_mlp=False)")
            last = self.mask_mlps.get_submodule(f"{level}.2")
            assert isinstance(last, nn.Linear)
            half = last.bias.shape[0] // 2
            last.weight.mul_(0.1)
            last.bias[:half] = torch.logit(torch.tensor(share)) / 2
            last.bias[half:] = -torch.logit(torch.tensor(share)) / 2


def _branch(kind: Literal["conv", "separable"], cin: int, cout: int) -> nn.Module:
    return SeparableBranch(cin, cout) if kind == "separable" else nn.Conv2d(cin, cout, 3, padding=1)


def _mlp(repr_dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(repr_dim, repr_dim), nn.LeakyReLU(0.1), nn.Linear(repr_dim, out))
