"""Panini-Net: encoder, degradation encoder and GAN prior, joined by DAFI (Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from panini.consistency import back_project
from panini.models.bands import BandsConfig, PhotoBands
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.encoder import MFR_ENCODER, SR_ENCODER, PaperEncoder, PaperEncoderConfig
from panini.models.fusion import DAFIConfig, FusionControl, build_fusion
from panini.models.mobile_encoder import MobileEncoder, MobileEncoderConfig
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.prior import GanPrior, Window
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

Task = Literal["mfr", "sr16"]

MOBILE_MASKS: Mapping[int, float] = {4: 0.7, 8: 0.6, 16: 0.45, 32: 0.35, 64: 0.3}
"""Where the masks of the mobile sizes start: coarse levels lean to the prior; masks that start
towards the image at the fine ones learn fastest."""

_LEVELS: tuple[int, ...] = (4, 8, 16, 32, 64)

_KINDS: dict[str, dict[str, type]] = {
    "prior": {"stylegan2": StyleGAN2Config, "mobile": MobileStyleGANConfig},
    "encoder": {"paper": PaperEncoderConfig, "mobile": MobileEncoderConfig},
}


def num_ws(prior: StyleGAN2Config | MobileStyleGANConfig) -> int:
    """Style vectors that a prior of this shape reads."""
    if isinstance(prior, StyleGAN2Config):
        return 2 * (prior.size.bit_length() - 2)
    return 2 + 3 * len(prior.channels)


def prior_channels(prior: StyleGAN2Config | MobileStyleGANConfig) -> dict[int, int]:
    """Channels of a prior's feature at each level (px) that can be fused, 4 px first."""
    if isinstance(prior, StyleGAN2Config):
        return {level: prior.channels_at(level) for level in _LEVELS if level < prior.size}
    return dict(zip(_LEVELS, (prior.base_channels, *prior.channels), strict=False))


def image_channels(encoder: PaperEncoderConfig | MobileEncoderConfig) -> dict[int, int]:
    """Channels of an encoder's feature at each level (px) up to 64."""
    if isinstance(encoder, PaperEncoderConfig):
        return {level: encoder.widths[-1] for level in _LEVELS if level <= encoder.top_level}
    return {64 >> index: width for index, width in enumerate(encoder.channels)}


@dataclass(frozen=True, kw_only=True)
class PaniniConfig:
    """Everything that is needed to build a network, without its weights."""

    task: Task
    """"mfr": restoration of many degradations; "sr16": 16× super-resolution."""
    prior: StyleGAN2Config | MobileStyleGANConfig
    """The face generator."""
    encoder: PaperEncoderConfig | MobileEncoderConfig
    """Image features and latent codes."""
    fusion: DAFIConfig
    """How the two sources are joined."""
    degradation_encoder: DegradationEncoderConfig | None
    """The DRE. None: a learned constant vector takes its place, as the paper does for SR; for
    task mfr that is the ablation "masks that know nothing of the degradation"."""
    bands: BandsConfig | None = None
    """Interpolation with the photo by bands of frequency; None: the paper has none."""
    consistency_steps: int = 0
    """Steps of back-projection that end the forward pass of task sr16, see `panini.consistency`;
    0: the paper has none."""
    anchor_size: int = 0
    """Side at which a smaller head of the prior draws the face as well, px, and from there on only
    finer detail is added, see `GanPrior.synthesis`; 0: none."""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {self.task!r}")
        if self.task == "sr16" and self.degradation_encoder is not None:
            raise ValueError("task sr16 has one degradation, and no encoder for it")
        if self.consistency_steps and self.task != "sr16":
            raise ValueError("consistency_steps: only the reduction of task sr16 is known")
        self._check_anchor()
        self._check_latents()
        self._check_fusion()

    def _check_anchor(self) -> None:
        """Refuse a size at which the prior draws no smaller image.

        Below 64 px the image is whole where the face may be a window of it.
        """
        if not self.anchor_size:
            return
        if isinstance(self.prior, StyleGAN2Config):
            raise ValueError("anchor_size: StyleGAN2 adds up the images of all sizes already")
        known = [2**k for k in range(6, 10) if 2**k < self.out_size]
        if self.anchor_size not in known:
            raise ValueError(f"anchor_size: expected one of {known}, got {self.anchor_size}")

    def _check_latents(self) -> None:
        """Refuse an encoder whose ws the prior cannot read."""
        prior, encoder = self.prior, self.encoder
        w_dim = prior.style_dim if isinstance(prior, StyleGAN2Config) else prior.w_dim
        if (encoder.num_ws, encoder.w_dim) != (num_ws(prior), w_dim):
            raise ValueError(
                f"the prior reads {num_ws(prior)} ws of length {w_dim}, the encoder gives"
                f" {encoder.num_ws} of length {encoder.w_dim}"
            )

    def _check_fusion(self) -> None:
        """Refuse to fuse features that the prior or the encoder do not have."""
        fusion, dre = self.fusion, self.degradation_encoder
        if dre is not None and dre.dim != fusion.repr_dim:
            raise ValueError(
                f"fusion.repr_dim is {fusion.repr_dim}, the degradation encoder gives {dre.dim}"
            )
        for name, wanted, found in (
            ("prior", fusion.prior_channels, prior_channels(self.prior)),
            ("image", fusion.image_channels, image_channels(self.encoder)),
        ):
            for level in fusion.prior_channels:
                if wanted.get(level) != found.get(level):
                    raise ValueError(
                        f"fusion.{name}_channels has {wanted.get(level)} at {level} px, the"
                        f" {'encoder' if name == 'image' else 'prior'} {found.get(level)}"
                    )

    @property
    def in_size(self) -> int:
        """Side of the degraded face, px."""
        return self.encoder.in_size

    @property
    def out_size(self) -> int:
        """Side of the restored face, px."""
        return self.prior.size

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; `from_dict` is the inverse."""
        data = asdict(self)
        for part, kinds in _KINDS.items():
            names = {cls: kind for kind, cls in kinds.items()}
            data[part]["kind"] = names[type(getattr(self, part))]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PaniniConfig:
        """Build from `to_dict`'s output, also after a trip through JSON.

        Raises:
            ValueError: A key is missing, unknown or has a bad value.
        """
        try:
            parts = dict(data)
            for part, kinds in _KINDS.items():
                fields = dict(parts[part])
                parts[part] = _build(kinds[fields.pop("kind")], fields)
            parts["fusion"] = _build(DAFIConfig, parts["fusion"])
            if parts["degradation_encoder"] is not None:
                parts["degradation_encoder"] = _build(
                    DegradationEncoderConfig, parts["degradation_encoder"]
                )
            if parts.get("bands") is not None:
                parts["bands"] = _build(BandsConfig, parts["bands"])
            return cls(**parts)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a Panini-Net configuration: {error!r}") from error


def _build(cls: type, fields: Mapping[str, Any]) -> Any:
    """A config from JSON: lists are tuples again, and level keys numbers."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, list):
            value = tuple(value)
        elif isinstance(value, Mapping):
            value = {int(key): item for key, item in value.items()}
        values[name] = value
    return cls(**values)


@dataclass(frozen=True)
class PaniniOutput:
    """What a forward pass gives.

    Attributes:
        image: Restored faces, RGB in about [-1, 1], (N, 3, size, size).
        masks: Level (px) → weight of the prior, (N, C, 1, 1) in (0, 1); see `Fusion.masks`.
        theta: θ of Eq. 11, (N,) in (0, 1): the prior's mean share at the finest fused level; NaN
            where the fusion has no masks.
        ws: Latent codes, (N, num_ws, w_dim).
        degradation: v_DR, (N, repr_dim).
        bands: The photo's share of each band, (N, levels), see `PhotoBands`; None without them.
    """

    image: Tensor
    masks: dict[int, Tensor]
    theta: Tensor
    ws: Tensor
    degradation: Tensor
    bands: Tensor | None = None


class PaniniNet(nn.Module):
    """The whole network of Fig. 1, assembled from `config`, with random weights."""

    def __init__(self, config: PaniniConfig) -> None:
        super().__init__()
        self.config = config
        self.prior: GanPrior = (
            StyleGAN2(config.prior)
            if isinstance(config.prior, StyleGAN2Config)
            else MobileStyleGAN(config.prior)
        )
        self.encoder = (
            PaperEncoder(config.encoder)
            if isinstance(config.encoder, PaperEncoderConfig)
            else MobileEncoder(config.encoder)
        )
        if config.degradation_encoder is None:
            # The paper's "learnable constant vector", (1, 256).
            self.degradation_constant = nn.Parameter(torch.randn(1, config.fusion.repr_dim))
        else:
            self.degradation_encoder = DegradationEncoder(config.degradation_encoder)
        self.fusion = build_fusion(config.fusion)
        self.bands = None if config.bands is None else PhotoBands(config.bands)

    @classmethod
    def named(cls, name: str) -> PaniniNet:
        """An untrained network of a named size: one of `named_sizes()`."""
        return cls(named_config(name))

    def degradation(self, lq: Tensor) -> Tensor:
        """v_DR of degraded faces (N, 3, in_size, in_size), (N, repr_dim) (Eq. 5)."""
        if self.config.degradation_encoder is None:
            return self.degradation_constant.expand(lq.shape[0], -1)
        return self.degradation_encoder(lq)

    def theta(self, lq: Tensor, control: FusionControl | None = None) -> Tensor:
        """θ of Eq. 11 without drawing the faces, see `PaniniOutput.theta`: (N,)."""
        return _theta(self.fusion.masks(self.degradation(lq), control), lq)

    def forward(
        self,
        lq: Tensor,
        control: FusionControl | None = None,
        *,
        size: int | None = None,
        window: Window | None = None,
        ws: Tensor | None = None,
    ) -> PaniniOutput:
        """Restore aligned faces.

        Args:
            lq: Degraded faces, RGB in [-1, 1], (N, 3, in_size, in_size).
            control: Changes the fusion; None is the paper's.
            size: Side of the output, px; None is `config.out_size`.
            window: Synthesises only this part of the face above the window's level.
            ws: Latent codes to draw with, (N, num_ws, w_dim); None takes the encoder's.

        Returns:
            The restored faces, and how they were made.
        """
        encoded = self.encoder(lq)
        codes: Tensor = encoded.ws if ws is None else ws
        degradation = self.degradation(lq)
        masks = self.fusion.masks(degradation, control)

        def fuse(level: int, prior: Tensor) -> Tensor:
            if level not in self.fusion.levels:
                return prior
            image = self.fusion.image_feature(level, encoded.features[level])
            return self.fusion(level, prior, image, masks.get(level), control)

        anchor = self.config.anchor_size or None
        image = self.prior.synthesis(codes, size=size, fuse=fuse, window=window, anchor=anchor)
        shares = None
        if self.bands is not None:
            shares = self.bands.shares(degradation, control)
            image = self.bands(image, lq, shares, window)
        if self.config.consistency_steps:
            shown = lq if window is None else window.crop(lq)
            image = back_project(image, shown, self.config.consistency_steps)
        return PaniniOutput(image, masks, _theta(masks, lq), codes, degradation, shares)


def _theta(masks: Mapping[int, Tensor], lq: Tensor) -> Tensor:
    if not masks:
        return lq.new_full((lq.shape[0],), torch.nan)
    return masks[max(masks)].mean(dim=(1, 2, 3))


def _paper(task: Task) -> PaniniConfig:
    channels = dict.fromkeys(_LEVELS, 512)
    return PaniniConfig(
        task=task,
        prior=StyleGAN2Config(size=1024),
        encoder=MFR_ENCODER if task == "mfr" else SR_ENCODER,
        fusion=DAFIConfig(prior_channels=channels, image_channels=channels, shared_mlp=True),
        degradation_encoder=DegradationEncoderConfig(kind="paper") if task == "mfr" else None,
    )


def _mobile(task: Task) -> PaniniConfig:
    encoder = (
        MobileEncoderConfig()
        if task == "mfr"
        else MobileEncoderConfig(in_size=64, unshuffle=1, stem_channels=0)
    )
    return PaniniConfig(
        task=task,
        prior=MobileStyleGANConfig(),
        encoder=encoder,
        fusion=DAFIConfig(
            prior_channels=dict.fromkeys(_LEVELS, 512),
            image_channels=dict(zip(reversed(_LEVELS), encoder.channels, strict=True)),
            branch="separable",
            initial_prior=MOBILE_MASKS,
        ),
        degradation_encoder=DegradationEncoderConfig(kind="mobile") if task == "mfr" else None,
        bands=BandsConfig(levels=_BANDS[_BANDS.index(encoder.in_size) :], initial=_BAND_SHARES),
        consistency_steps=2 if task == "sr16" else 0,
    )


_BANDS = (512, 256, 128, 64, 32, 16, 8)
_BAND_SHARES = {512: 0.03, 256: 0.1, 128: 0.3, 64: 0.6, 32: 0.85, 16: 0.95, 8: 0.97}
"""Training starts with the photo's colours and outline, and the prior's detail."""


def _tiny() -> PaniniConfig:
    encoder = MobileEncoderConfig(
        in_size=128,
        unshuffle=2,
        stem_channels=0,
        channels=(16,) * 5,
        depths=(1,) * 5,
        num_ws=14,
        w_dim=32,
        ws_rank=8,
    )
    return PaniniConfig(
        task="mfr",
        prior=MobileStyleGANConfig(
            size=128, w_dim=32, mapping_layers=2, base_channels=32, channels=(32,) * 4
        ),
        encoder=encoder,
        fusion=DAFIConfig(
            prior_channels=dict.fromkeys(_LEVELS, 32),
            image_channels=dict.fromkeys(_LEVELS, 16),
            branch="separable",
        ),
        degradation_encoder=DegradationEncoderConfig(kind="mobile"),
    )


_NAMED = {
    "mfr-1024": lambda: _paper("mfr"),
    "sr16-1024": lambda: _paper("sr16"),
    "mobile-mfr": lambda: _mobile("mfr"),
    "mobile-sr16": lambda: _mobile("sr16"),
    "tiny": _tiny,
}


def named_sizes() -> tuple[str, ...]:
    """The names that `named_config` knows."""
    return tuple(_NAMED)


def named_config(name: str) -> PaniniConfig:
    """The configuration of a named size.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in _NAMED:
        raise ValueError(f"unknown size {name!r}; known: {', '.join(_NAMED)}")
    return _NAMED[name]()
