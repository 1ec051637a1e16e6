"""The adversarial terms: a discriminator of patches, and one of a frozen network's features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from panini.checkpoints import load_discriminator
from panini.config import Config
from panini.features.vgg16 import VGG16, load_vgg16
from panini.losses import discriminator_adversarial, generator_adversarial, r1_penalty
from panini.models.prior import Window
from panini.models.stylegan2 import SIZES, Discriminator, DiscriminatorConfig
from panini.training.engine import Engine
from panini.training.views import crop_pair, view, view_side


class CriticConfig(Config):
    """What both discriminators have."""

    weight: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    """Of the generator's loss."""
    r1_weight: float = Field(default=0.0, ge=0)
    """Of the gradient penalty, γ / 2; 0 = off, as the authors have it."""
    r1_every: int = Field(default=8, gt=0)
    """The discriminator's own updates between penalties."""
    start: int = 0
    """Image at which the generator begins to listen."""
    scale: int = 256
    """Side of the whole face at which patches are cut, px."""
    patch: int = 64
    """Side of the patches, px."""
    learning_rate: float = Field(default=2e-4, gt=0, allow_inf_nan=False)
    clip_norm: float = Field(default=10.0, gt=0)
    """The discriminator's gradients are scaled down to this norm; .inf = never."""


class AdversarialConfig(CriticConfig):
    """The adversarial term of the paper: a StyleGAN2 discriminator, on square patches."""

    max_channels: int = 256
    """Widest layer of the discriminator."""
    init: Path | None = None
    """A file with a trained discriminator of side `patch` and these widths, as in the paper:
    StyleGAN2's of 1024 px has 512. None = a new one."""

    @field_validator("patch")
    @classmethod
    def _has_a_discriminator(cls, value: int) -> int:
        if value not in SIZES:
            raise ValueError(f"StyleGAN2's discriminator has sides {SIZES}, got {value}")
        return value

    def build(self) -> Discriminator:
        """The discriminator, new."""
        return Discriminator(DiscriminatorConfig(size=self.patch, max_channels=self.max_channels))


class FeatureAdversarialConfig(CriticConfig):
    """An adversarial term in the features of VGG-16 (not in the paper)."""

    vgg: Path
    """VGG-16 weights, safetensors."""
    tap: Literal["relu2_2", "relu3_3", "relu4_3"] = "relu3_3"
    """Layer that is judged."""
    channels: int = Field(default=128, gt=0)
    """Of the discriminator."""

    @property
    def block(self) -> int:
        """Of VGG-16, 1 to 5, that the tap is in; its features have the side by 2^(block - 1)."""
        return int(self.tap[4])


class FeatureDiscriminator(nn.Module):
    """A few convolutions over feature maps: one logit a place."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, 1, H/2, W/2)."""
        return self.layers(features)


class Critic:
    """A discriminator at work: the generator listens to it, and it learns.

    Args:
        name: Of its optimizer and module; its figures begin with it.
        config: Its weights and places.
        engine: Of the run.
        network: Judges what `encode` makes.
        encode: Patches in [-1, 1] → the network's input.
    """

    def __init__(
        self,
        name: str,
        config: CriticConfig,
        engine: Engine,
        network: nn.Module,
        encode: Callable[[Tensor], Tensor],
    ) -> None:
        self.name, self.config, self.engine = name, config, engine
        self.network, self.encode = network, encode
        # The penalty's gradient goes through the network twice.
        engine.place(network, compiled=config.r1_weight == 0)
        factor = config.learning_rate / engine.config.learning_rate
        engine.add_optimizer(name, (list(network.parameters()), factor))
        self.figures = "" if name == "discriminator" else f"{name.partition('_')[0]}_"

    def listen(
        self, images: Tensor, window: Window, generator: np.random.Generator, nimg: int
    ) -> tuple[Tensor, Tensor]:
        """Patches of restored faces, and the generator's loss on them."""
        config = self.config
        views = view(images, window, config.scale, trimmed=True)
        fake, _ = crop_pair(views, views, config.patch, generator)
        if nimg < config.start:
            return fake, fake.new_zeros(())
        self.network.requires_grad_(False)
        loss = config.weight * generator_adversarial(self.network(self.encode(fake)))
        self.network.requires_grad_(True)
        return fake, loss

    def learn(
        self, truth: Tensor, fake: Tensor, generator: np.random.Generator, turn: int
    ) -> dict[str, Tensor]:
        """Update the discriminator.

        Args:
            truth: True views that have the scale's detail, (N, 3, S, S).
            fake: Patches of restored faces, detached.
            generator: Says where the true patches are cut.
            turn: Number of the discriminator's own update.
        """
        config = self.config
        real, _ = crop_pair(truth, truth, config.patch, generator)
        penalise = config.r1_weight > 0 and turn % config.r1_every == 0
        with torch.no_grad():
            real, fake = self.encode(real), self.encode(fake)
        real.requires_grad_(penalise)
        real_logits, fake_logits = self.network(real), self.network(fake)
        loss = discriminator_adversarial(real_logits, fake_logits)
        if penalise:
            loss = loss + config.r1_weight * config.r1_every * r1_penalty(real, real_logits)
        self.engine.update(self.name, loss, config.clip_norm)
        return {
            f"{self.figures}d_real": real_logits.detach().mean(),
            f"{self.figures}d_fake": fake_logits.detach().mean(),
        }


def patch_critic(config: AdversarialConfig, engine: Engine) -> Critic:
    """The paper's discriminator.

    Raises:
        CheckpointError: Its `init` cannot be read, or is of another shape.
    """
    torch.manual_seed(engine.config.seed)
    network = config.build()
    if config.init is not None:
        load_discriminator(network, config.init)
    return Critic("discriminator", config, engine, network, lambda patches: patches)


def feature_critic(config: FeatureAdversarialConfig, engine: Engine) -> Critic:
    """The discriminator of features."""
    torch.manual_seed(engine.config.seed + 1)
    vgg = load_vgg16(config.vgg)
    engine.place(vgg)
    width = vgg.widths[config.block - 1]
    network = FeatureDiscriminator(width, config.channels)
    return Critic(
        "feature_discriminator",
        config,
        engine,
        network,
        lambda patches: _normalised(vgg, patches, config.tap, engine),
    )


def _normalised(vgg: VGG16, patches: Tensor, tap: str, engine: Engine) -> Tensor:
    """Features at a tap, of unit root mean square over the channels of a place."""
    with engine.autocast():
        features = vgg(patches, [tap])[tap]
    return F.normalize(features.float(), dim=1) * features.shape[1] ** 0.5


def check_patch(config: CriticConfig, name: str, window: int, what: str = "a window") -> None:
    """Refuse patches that are larger than what a window shows.

    Args:
        config: The discriminator's.
        name: Its key.
        window: Side, in cells.
        what: Looks through the window, for the error.

    Raises:
        ValueError: They are.
    """
    side = view_side(window, config.scale, trimmed=True)
    if config.patch > side:
        raise ValueError(
            f"{name}.patch: {what} of {window} cells leaves {side} px of a face "
            f"of {config.scale} px, got {config.patch}"
        )
