"""DAFI: degradation-aware feature interpolation (Eq. 6 and 7), and control over it.

The other ways to fuse that the paper compares with stand beside it, in the same interface: the
encoder, the prior and the image branch stay, only how the two features become one differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

PerLevel = float | Mapping[int, float]
"""One number for all levels, or numbers by level (px); levels not named keep the default."""

Method = Literal["dafi", "concat", "modulation", "noise", "latent"]
"""How two features become one: the paper's, GLEAN's, GFP-GAN's, GPEN's, pSp's."""


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
    method: Method = "dafi"
    """Which of the classes of this module; all but "dafi" are there to compare with."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            known = ", ".join(get_args(Method))
            raise ValueError(f"fusion method must be one of {known}, got {self.method!r}")
        for level, share in self.initial_prior.items():
            if level not in self.prior_channels:
                fused = ", ".join(map(str, self.prior_channels))
                raise ValueError(f"initial_prior names level {level}, fused are {fused}")
            if not 0 < share < 1:
                raise ValueError(f"initial_prior of level {level} must be in (0, 1), got {share}")
        if self.initial_prior and self.shared_mlp:
            raise ValueError("initial_prior needs one MLP per level (shared_mlp=False)")


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


class Fusion(nn.Module, ABC):
    """What joins prior and image features, level by level."""

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

    def masks(self, degradation: Tensor, control: FusionControl | None = None) -> dict[int, Tensor]:
        """Weight of the prior for every level and channel, where a method has such weights.

        Args:
            degradation: Degradation representation v_DR, (N, repr_dim).
            control: Its bias is added to the prior's logits.

        Returns:
            Level → (N, C, 1, 1) in [0, 1]; 1 keeps the prior, 0 takes the image. Empty where a
            method does not weigh.

        Raises:
            ValueError: A bias for a method without masks.
        """
        if control is not None and any(control.at(level)[0] for level in self.levels):
            raise ValueError(f"fusion method {self.config.method!r} has no masks to bias")
        return {}

    def image_feature(self, level: int, encoded: Tensor) -> Tensor:
        """F_IFE of Eq. 2: the encoder's feature of a level through its own branch."""
        return self.convs[str(level)](encoded)

    @abstractmethod
    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor | None,
        control: FusionControl | None = None,
    ) -> Tensor:
        """The feature that the prior goes on with.

        Args:
            level: Side of the features, px.
            prior: F_GPB, (N, C, level, level).
            image: F_IFE from `image_feature`, same shape.
            mask: The level's entry of `masks`, (N, C, 1, 1), where there is one.
            control: Gains (Eq. 12, Eq. 13); None leaves both at 1.

        Returns:
            (N, C, level, level).
        """


class DAFI(Fusion):
    """Interpolate, channel by channel, between GAN-prior and encoder features: Panini-Net.

    (mask, 1 - mask) = softmax(MLP(v_DR)) and F = mask · F_GPB + (1 - mask) · F_IFE (Wang, Hu &
    Zhang, AAAI 2022, Eq. 6 and 7), with one mask a level and channel.
    """

    def __init__(self, config: DAFIConfig) -> None:
        super().__init__(config)
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
        """Weight of the prior for every level and channel (Eq. 6), (N, C, 1, 1) in (0, 1)."""
        control = control or FusionControl()
        masks: dict[int, Tensor] = {}
        for level, logits in self.mask_logits(degradation).items():
            # A softmax over two logits is the sigmoid of their difference.
            mask = torch.sigmoid(logits[:, 0] - logits[:, 1] + control.at(level)[0])
            masks[level] = mask[..., None, None]
        return masks

    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor | None,
        control: FusionControl | None = None,
    ) -> Tensor:
        """F_DAFI of Eq. 7, with the gains of `control` (Eq. 12, Eq. 13)."""
        assert mask is not None
        if control is None:
            return image + mask * (prior - image)
        _, prior_gain, image_gain = control.at(level)
        return prior_gain * mask * prior + image_gain * (1 - mask) * image

    @torch.no_grad()
    def _start_masks(self) -> None:
        """Set the last biases so that the prior's mean share is the configured one."""
        for level, share in self.config.initial_prior.items():
            last = self.mask_mlps.get_submodule(f"{level}.2")
            assert isinstance(last, nn.Linear)
            half = last.bias.shape[0] // 2
            last.weight.mul_(0.1)
            last.bias[:half] = torch.logit(torch.tensor(share)) / 2
            last.bias[half:] = -torch.logit(torch.tensor(share)) / 2


class ConcatConv(Fusion):
    """Concatenate, then convolve: Cat-Conv of the paper's Table 3, as GLEAN fuses.

    F = conv([F_GPB, F_IFE]), 2C → C channels (Chan et al., CVPR 2021, Eq. 3): 3×3 where the
    branch is "conv"; depthwise 3×3 and pointwise where it is "separable". It starts as DAFI
    does, at `initial_prior` of the prior.
    """

    def __init__(self, config: DAFIConfig) -> None:
        super().__init__(config)
        self.joins = nn.ModuleDict(
            {
                str(level): self._join(channels, config.initial_prior.get(level, 0.5))
                for level, channels in config.prior_channels.items()
            }
        )

    def _join(self, channels: int, share: float) -> nn.Module:
        if self.config.branch == "conv":
            join = mix = nn.Conv2d(2 * channels, channels, 3, padding=1)
        else:
            depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
            nn.init.dirac_(depthwise.weight, groups=2 * channels)
            nn.init.zeros_(depthwise.bias)  # pyright: ignore[reportArgumentType]
            mix = nn.Conv2d(2 * channels, channels, 1)
            join = nn.Sequential(depthwise, mix)
        centre = mix.kernel_size[0] // 2
        with torch.no_grad():
            mix.weight.mul_(0.1)
            index = torch.arange(channels)
            mix.weight[index, index, centre, centre] += share
            mix.weight[index, index + channels, centre, centre] += 1 - share
            nn.init.zeros_(mix.bias)  # pyright: ignore[reportArgumentType]
        return join

    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor | None,
        control: FusionControl | None = None,
    ) -> Tensor:
        """conv([F_GPB, F_IFE]); gains multiply the two before they are joined."""
        prior, image = _gained(level, prior, image, control)
        return self.joins[str(level)](torch.cat([prior, image], dim=1))


class SplitModulation(Fusion):
    """Channel-split spatial feature transform, as GFP-GAN fuses.

    (α, β) = convs(F_IFE); F = [F_GPB first half, α · F_GPB second half + β] (Wang et al., CVPR
    2021, Eq. 4). It starts at α = 1, β = 0: the prior alone.

    A head is two convolutions. GFP-GAN's are 3×3, and so are these where the branch is "conv";
    where it is "separable", as in the sizes that ship, they are 1×1, and see no neighbours.
    """

    def __init__(self, config: DAFIConfig) -> None:
        super().__init__(config)
        self.scales, self.shifts = (
            nn.ModuleDict(
                {
                    str(level): self._head(channels)
                    for level, channels in config.prior_channels.items()
                }
            )
            for _ in range(2)
        )

    def _head(self, channels: int) -> nn.Sequential:
        side = 3 if self.config.branch == "conv" else 1
        last = nn.Conv2d(channels, channels // 2, side, padding=side // 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
        first = nn.Conv2d(channels, channels, side, padding=side // 2)
        return nn.Sequential(first, nn.LeakyReLU(0.2), last)

    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor | None,
        control: FusionControl | None = None,
    ) -> Tensor:
        """[F_GPB first half, α · F_GPB second half + β]."""
        prior, image = _gained(level, prior, image, control)
        kept, changed = prior.chunk(2, dim=1)
        scale = 1 + self.scales[str(level)](image)
        return torch.cat([kept, scale * changed + self.shifts[str(level)](image)], dim=1)


class NoiseInput(Fusion):
    """Features in the place of noise, as GPEN fuses: F = F_GPB + P F_IFE.

    GPEN concatenates the feature to the generator's and gives the next convolution weights for
    it (Yang et al., CVPR 2021, Sec. 3.1). A convolution is linear: W₁ F_GPB + W₂ F_IFE. With
    W₂ = W₁ P, which leaves a pre-trained generator's own convolutions as they are, that is
    W₁ (F_GPB + P F_IFE). P is pointwise and starts at 0: the prior alone.

    GPEN injects a feature at every convolution of the generator; this class does so once a level,
    where every method here has its place.
    """

    def __init__(self, config: DAFIConfig) -> None:
        super().__init__(config)
        self.injections = nn.ModuleDict(
            {str(level): nn.Conv2d(c, c, 1) for level, c in config.prior_channels.items()}
        )
        for parameter in self.injections.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor | None,
        control: FusionControl | None = None,
    ) -> Tensor:
        """F_GPB + P F_IFE."""
        prior, image = _gained(level, prior, image, control)
        return prior + self.injections[str(level)](image)


class LatentOnly(Fusion):
    """No feature at all, only latent codes, as pSp restores.

    F = F_GPB, so that θ = 1 (Richardson et al., CVPR 2021, Sec. 3): the photo has its say in ws.
    """

    def __init__(self, config: DAFIConfig) -> None:
        super().__init__(config)
        # Image features have no way in: their branches would be weights that nothing trains.
        self.convs = nn.ModuleDict()

    def masks(self, degradation: Tensor, control: FusionControl | None = None) -> dict[int, Tensor]:
        """Ones: everything is the prior's."""
        super().masks(degradation, control)
        return {
            level: degradation.new_ones(degradation.shape[0], channels, 1, 1)
            for level, channels in self.config.prior_channels.items()
        }

    def image_feature(self, level: int, encoded: Tensor) -> Tensor:
        """Nothing, (0,)."""
        return encoded.new_empty(0)

    def forward(
        self,
        level: int,
        prior: Tensor,
        image: Tensor,
        mask: Tensor | None,
        control: FusionControl | None = None,
    ) -> Tensor:
        """F_GPB, times its gain."""
        return prior if control is None else control.at(level)[1] * prior


_METHODS: dict[Method, type[Fusion]] = {
    "dafi": DAFI,
    "concat": ConcatConv,
    "modulation": SplitModulation,
    "noise": NoiseInput,
    "latent": LatentOnly,
}


def build_fusion(config: DAFIConfig) -> Fusion:
    """The fusion that a config names."""
    return _METHODS[config.method](config)


def _gained(
    level: int, prior: Tensor, image: Tensor, control: FusionControl | None
) -> tuple[Tensor, Tensor]:
    if control is None:
        return prior, image
    _, prior_gain, image_gain = control.at(level)
    return prior_gain * prior, image_gain * image


def _branch(kind: Literal["conv", "separable"], cin: int, cout: int) -> nn.Module:
    return SeparableBranch(cin, cout) if kind == "separable" else nn.Conv2d(cin, cout, 3, padding=1)


def _mlp(repr_dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(repr_dim, repr_dim), nn.LeakyReLU(0.1), nn.Linear(repr_dim, out))
