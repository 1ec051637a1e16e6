"""Stage 3: restoration, with L1, a perceptual loss and the vanilla adversarial loss.

The DRE stays fixed. The face is synthesised whole up to 64 px, and above only inside a random
window, so that the loss sees the final 1024 px at a fraction of their price.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from panini.checkpoints import load_model, save_model
from panini.config import Config
from panini.data import GroupBatch, GroupConfig, to_float
from panini.features.identity import ffhq_to_chip, load_identity
from panini.features.vgg16 import VGG16, load_vgg16
from panini.losses import discriminator_adversarial, generator_adversarial, r1_penalty
from panini.metrics.lpips import LPIPS, load_lpips
from panini.models.prior import Window
from panini.models.stylegan2 import Discriminator, DiscriminatorConfig
from panini.training.run import (
    WEIGHTS,
    RunConfig,
    Stage,
    autocast,
    check_lq_size,
    fit,
    freeze,
    optimizer,
    trainable,
    update,
    update_ema,
)

FACE_WINDOW = Window(top=14, left=8, side=48)
"""Holds the chip of the face descriptor, see `panini.features.identity.chip_window`."""
IDENTITY_SCALE = 256
"""Side of the whole face from which the chip is cut, px."""


class PerceptualConfig(Config):
    """The perceptual term."""

    kind: Literal["vgg", "lpips"] = "vgg"
    """"vgg": squared error of conv4_3 before its ReLU, as the authors coded it. "lpips": all
    five blocks under LPIPS's heads."""
    vgg: Path
    """VGG-16 weights, safetensors."""
    heads: Path | None = None
    """LPIPS heads, for kind lpips."""
    weight: float = 1e-2

    @model_validator(mode="after")
    def _has_heads(self) -> Self:
        if self.kind == "lpips" and self.heads is None:
            raise ValueError("kind lpips needs the file of its heads, got none")
        return self


class AdversarialConfig(Config):
    """The adversarial term, on square patches."""

    weight: float = 1e-2
    """Of the generator's loss."""
    r1_weight: float = Field(default=0.0, ge=0)
    """Of the gradient penalty, γ / 2; 0 = off, as the authors have it."""
    r1_every: int = 8
    """Steps between penalties."""
    start: int = 0
    """Image at which the generator begins to listen."""
    scale: int = 256
    """Side of the whole face at which patches are cut, px."""
    patch: int = 64
    """Side of the discriminator's input, px."""
    max_channels: int = 256
    """Widest layer of the discriminator."""
    learning_rate: float = 2e-4


class IdentityConfig(Config):
    """The identity term: the distance of dlib's face descriptors, on the face's own window."""

    weights: Path
    """The descriptor network, safetensors."""
    weight: float = 0.3
    """Of the loss, on the steps that have it."""
    every: int = Field(default=3, gt=0)
    """Steps between two that have it: the face takes more than half of the frame to draw."""


class RestorationRunConfig(RunConfig):
    """Recipe of stage 3."""

    init: Path
    """Weights of stage 2, or of an earlier leg."""
    l1_weight: float = 1.0
    perceptual: PerceptualConfig
    adversarial: AdversarialConfig | None = None
    """None: no adversarial loss."""
    identity: IdentityConfig | None = None
    """None: no identity loss, as in the paper."""
    window: int = Field(default=64, gt=4, le=64)
    """Side of the synthesised window, in cells of the 64 px feature; 64 = the whole face."""
    mask_rate: float = Field(default=3.0, gt=0)
    """Learning rate of the mask MLPs, as a factor."""
    train_prior: float = Field(default=0.0, ge=0)
    """Learning rate of the prior, as a factor; 0 = frozen."""
    patch: int = 128
    """Largest side that the perceptual loss sees, px; larger comparisons are cropped."""

    @model_validator(mode="after")
    def _feeds_the_discriminator(self) -> Self:
        critic = self.adversarial
        if critic is None:
            return self
        side = view_side(self.window, critic.scale, trimmed=True)
        if critic.patch > side:
            raise ValueError(
                f"adversarial.patch: a window of {self.window} cells leaves {side} px of a face "
                f"of {critic.scale} px, got {critic.patch}"
            )
        if all(max(group.scales) < critic.scale for group in self.data.groups):
            raise ValueError(f"adversarial.scale: no group has truth compared at {critic.scale} px")
        return self


class Perceptual(torch.nn.Module):
    """The perceptual term, frozen."""

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.judge: VGG16 | LPIPS = (
            load_lpips(config.vgg, config.heads)
            if config.kind == "lpips" and config.heads is not None
            else load_vgg16(config.vgg)
        )
        self.judge.requires_grad_(False).eval()

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Distance a face, (N,)."""
        if isinstance(self.judge, LPIPS):
            return self.judge(restored, gt)
        tap = "conv4_3"
        with torch.no_grad():
            truth = self.judge(gt, [tap])[tap]
        found = self.judge(restored, [tap])[tap]
        return (found.float() - truth.float()).square().mean(dim=(1, 2, 3))


class RestorationStage(Stage):
    """Network, its average and the discriminator."""

    def __init__(self, config: RestorationRunConfig) -> None:
        self.config = config
        self.net = freeze(load_model(config.init)).to(config.device)
        check_lq_size(self.net, config)
        self.ema = load_model(config.init).requires_grad_(False).to(config.device)
        self.modules = {"net": self.net, "ema": self.ema}
        groups = list(zip(trainable(self.net), (1.0, config.mask_rate), strict=True))
        if config.train_prior:
            self.net.prior.requires_grad_(True)
            groups.append((list(self.net.prior.parameters()), config.train_prior))
        self.optimizers = {"net": optimizer(config, *groups)}
        self.perceptual = Perceptual(config.perceptual).to(config.device)
        if config.adversarial is not None:
            self._add_discriminator(config.adversarial)
        if config.identity is not None:
            self.identity = load_identity(config.identity.weights).to(config.device)

    def _add_discriminator(self, config: AdversarialConfig) -> None:
        torch.manual_seed(self.config.seed)
        shape = DiscriminatorConfig(size=config.patch, max_channels=config.max_channels)
        self.discriminator = Discriminator(shape).to(self.config.device)
        self.modules["discriminator"] = self.discriminator
        factor = config.learning_rate / self.config.learning_rate
        parameters = list(self.discriminator.parameters())
        self.optimizers["discriminator"] = optimizer(self.config, (parameters, factor))

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One update of the network, and of the discriminator where there is one."""
        generator = np.random.default_rng([self.config.seed, step])
        window = draw_window(self.config.window, generator)
        identity = self.config.identity
        with_identity = identity is not None and step % identity.every == 0
        if with_identity:
            window = FACE_WINDOW
        lq = to_float(torch.cat([group.lq for group in batch]))
        with autocast(self.config):
            output = self.net(lq, window=window)
        images = output.image.float().split([len(group.lq) for group in batch])
        figures: dict[str, Tensor] = {}
        loss = torch.zeros((), device=lq.device)
        for group, part, image in zip(self.config.data.groups, batch, images, strict=True):
            loss = loss + self._compare(group, part, image, window, generator, figures)
        if identity is not None and with_identity:
            distance = self._identity_distance(images, batch)
            loss = loss + identity.weight * distance
            figures["identity"] = distance.detach()
        fake = None
        if self.config.adversarial is not None:
            fake, term = self._adversarial(images, window, generator, nimg)
            loss = loss + term
            figures["adversarial"] = term.detach()
        norm = update(self.optimizers["net"], loss, self.config.clip_norm)
        update_ema(self.ema, self.net, len(lq), self.config.ema_half_life, nimg)
        if fake is not None:
            figures |= self._judge(batch, fake.detach(), window, generator, step)
        theta = output.theta.detach()
        return figures | {"theta": theta.mean(), "theta_std": theta.std(), "norm": norm}

    def _compare(
        self,
        group: GroupConfig,
        part: GroupBatch,
        image: Tensor,
        window: Window,
        generator: np.random.Generator,
        figures: dict[str, Tensor],
    ) -> Tensor:
        """L1 and perceptual loss of one group, weighted by its share of the batch."""
        scale = int(generator.choice(group.scales))
        restored = view(image, window, scale, trimmed=True)
        gt = truth_view(part.gt, window, scale)
        l1 = (restored - gt).abs().mean()
        restored, gt = crop_pair(restored, gt, self.config.patch, generator)
        with autocast(self.config):
            perceptual = self.perceptual(restored, gt).mean()
        source = group.source.kind
        figures[f"l1_{source}_{scale}"] = l1.detach()
        figures[f"perceptual_{source}_{scale}"] = perceptual.detach()
        share = group.count / sum(other.count for other in self.config.data.groups)
        loss = self.config.l1_weight * l1 + self.config.perceptual.weight * perceptual
        return share * loss

    def _identity_distance(self, images: tuple[Tensor, ...], batch: list[GroupBatch]) -> Tensor:
        """Mean distance of the descriptors of the restored faces, drawn in FACE_WINDOW."""
        restored = view(torch.cat(images), FACE_WINDOW, IDENTITY_SCALE, trimmed=False)
        # The chip lies inside the window; around it the canvas may be empty.
        cell = IDENTITY_SCALE // FACE_WINDOW.level
        left, top = FACE_WINDOW.left * cell, FACE_WINDOW.top * cell
        side = restored.shape[-1]
        around = (left, IDENTITY_SCALE - left - side, top, IDENTITY_SCALE - top - side)
        chips = ffhq_to_chip(F.pad(restored, around))
        truths = [
            F.interpolate(to_float(part.gt), IDENTITY_SCALE, mode="bilinear", antialias=True)
            for part in batch
        ]
        with autocast(self.config):
            with torch.no_grad():
                truth = self.identity(ffhq_to_chip(torch.cat(truths)))
            found = self.identity(chips)
        return (found.float() - truth.float()).norm(dim=1).mean()

    def _adversarial(
        self,
        images: tuple[Tensor, ...],
        window: Window,
        generator: np.random.Generator,
        nimg: int,
    ) -> tuple[Tensor, Tensor]:
        """Patches of the restored faces, and the generator's loss on them."""
        config = self.config.adversarial
        assert config is not None
        views = view(torch.cat(images), window, config.scale, trimmed=True)
        fake, _ = crop_pair(views, views, config.patch, generator)
        if nimg < config.start:
            return fake, fake.new_zeros(())
        self.discriminator.requires_grad_(False)
        loss = config.weight * generator_adversarial(self.discriminator(fake))
        self.discriminator.requires_grad_(True)
        return fake, loss

    def _judge(
        self,
        batch: list[GroupBatch],
        fake: Tensor,
        window: Window,
        generator: np.random.Generator,
        step: int,
    ) -> dict[str, Tensor]:
        """Update the discriminator on patches of truth that has the scale's detail."""
        config = self.config.adversarial
        assert config is not None
        sharp = [
            truth_view(part.gt, window, config.scale)
            for group, part in zip(self.config.data.groups, batch, strict=True)
            if max(group.scales) >= config.scale
        ]
        real, _ = crop_pair(torch.cat(sharp), torch.cat(sharp), config.patch, generator)
        penalise = config.r1_weight > 0 and step % config.r1_every == 0
        real.requires_grad_(penalise)
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        loss = discriminator_adversarial(real_logits, fake_logits)
        if penalise:
            loss = loss + config.r1_weight * config.r1_every * r1_penalty(real, real_logits)
        update(self.optimizers["discriminator"], loss, 10.0)
        return {"d_real": real_logits.detach().mean(), "d_fake": fake_logits.detach().mean()}

    def save(self, folder: Path, nimg: int) -> None:
        """Write the average."""
        provenance = {"init": self.config.init.name, "restoration_images": nimg}
        save_model(self.ema, folder / WEIGHTS, provenance=provenance)


def draw_window(side: int, generator: np.random.Generator) -> Window:
    """A random window of the 64 px feature; a face fills the frame, so all places count."""
    top, left = generator.integers(0, 64 - side, size=2, endpoint=True)
    return Window(top=int(top), left=int(left), side=side)


def truth_view(gt: Tensor, window: Window, scale: int) -> Tensor:
    """What `view` is compared with: whole uint8 faces (N, 3, S, S), S a multiple of 64."""
    return view(to_float(window.crop(gt)), window, scale, trimmed=True)


def view(image: Tensor, window: Window, scale: int, *, trimmed: bool) -> Tensor:
    """A window's image as it looks when the whole face is `scale` px, antialiased.

    Args:
        image: The window's part of a face at any size, (N, 3, S, S).
        window: The window.
        scale: Side of the whole face, px.
        trimmed: Cut off two cells at each side: there the convolutions saw the window's edge.
    """
    if trimmed and window.side < window.level:
        edge = image.shape[-1] // window.side * 2
        image = image[..., edge:-edge, edge:-edge]
    side = view_side(window.side, scale, trimmed=trimmed)
    if image.shape[-1] == side:
        return image
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)


def view_side(window: int, scale: int, *, trimmed: bool, level: int = 64) -> int:
    """Side of `view`'s result, px, for a window of so many cells."""
    cells = window - 4 if trimmed and window < level else window
    return round(scale * cells / level)


def crop_pair(
    first: Tensor, second: Tensor, side: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same random square of both, of `side` px or all there is."""
    last = first.shape[-1] - side
    if last <= 0:
        return first, second
    top, left = generator.integers(0, last, size=2, endpoint=True)
    area = (..., slice(top, top + side), slice(left, left + side))
    return first[area], second[area]


def train(config: RestorationRunConfig) -> None:
    """Run stage 3."""
    fit(RestorationStage(config), config)
