"""Distillation of the prior stage: a light generator learns to draw what a heavy one drew.

Teacher and student share the mapping network, so a face of the teacher comes with the w that the
student must draw it from; the data are such faces, drawn on the way (`prior_live`) or before
(`panini sample`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from panini.checkpoints import load_prior, save_tensors
from panini.config import Config
from panini.data import GroupBatch, to_float
from panini.errors import ConfigError
from panini.metrics.lpips import LPIPS, load_lpips
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.prior import GanPrior, Window
from panini.models.stylegan2 import StyleGAN2
from panini.training.critics import AdversarialConfig, Critic, check_patch, patch_critic
from panini.training.engine import Engine
from panini.training.network import (
    KINDS_WITH_W,
    check_validation_size,
    check_validation_ws,
    update_ema,
)
from panini.training.run import RunConfig, Stage

PRIOR = "prior.safetensors"
"""What the prior stage leaves."""
WHOLE = Window(top=0, left=0, side=64)


class LPIPSConfig(Config):
    """The perceptual term: LPIPS's heads on VGG-16."""

    vgg: Path
    heads: Path
    weight: float = Field(default=1.0, ge=0)
    patch: int = Field(default=256, ge=16)
    """Largest side that is compared, px; larger faces are shrunk."""


class DistilConfig(Config):
    """A mobile prior that learns from a StyleGAN2, or from another mobile one."""

    teacher: Path
    """Of any format that loads. The groups of the data must be its faces."""
    base_channels: int = 512
    """Of the student at 4 px."""
    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    """Of the student's blocks at 8, 16, … px, half of the size the last."""
    sizes: tuple[int, ...] = ()
    """Smaller sides at which student and teacher are compared too, one of them on every other
    step: their image heads learn only so, and it is cheap. Empty: the full size alone."""
    l1_weight: float = Field(default=1.0, ge=0)
    perceptual: LPIPSConfig | None = None
    """None: L1 alone."""
    adversarial: AdversarialConfig | None = None
    """None: no adversarial loss."""


class DistilStage(Stage):
    """Student, its average, and the discriminator where there is one."""

    def __init__(self, config: RunConfig, distil: DistilConfig) -> None:
        self.config, self.distil = config, distil
        self.engine = Engine(config)
        teacher = load_prior(distil.teacher)
        torch.manual_seed(config.seed)
        self.net = build_student(teacher, distil)
        self.ema = build_student(teacher, distil).requires_grad_(False).eval()
        self.ema.load_state_dict(self.net.state_dict())
        self.smaller = [size for size in distil.sizes if size != self.net.size]
        self._check_data()
        self.modules = {"net": self.net, "ema": self.ema}
        for module in self.modules.values():
            self.engine.place(module)
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        self.engine.add_optimizer("net", (parameters, 1.0))
        self.perceptual: LPIPS | None = None
        if distil.perceptual is not None:
            self.perceptual = load_lpips(distil.perceptual.vgg, distil.perceptual.heads)
            self.engine.place(self.perceptual)
        self.critic: Critic | None = None
        if distil.adversarial is not None:
            self.critic = patch_critic(distil.adversarial, self.engine)
            self.modules[self.critic.name] = self.critic.network

    def _check_data(self) -> None:
        wrong = [size for size in self.smaller if str(size) not in self.net.heads]
        if wrong:
            heads = ", ".join(self.net.heads)
            raise ConfigError(f"distil.sizes: the student draws at {heads} px, got {wrong[0]}")
        for group in self.config.data.groups:
            if group.source.kind not in KINDS_WITH_W or group.flip or group.colour_jitter:
                raise ConfigError(
                    "data.groups: distillation needs w: kind prior or prior_live, and flip: false, "
                    "and no colour_jitter"
                )
            if group.gt_size != self.net.size:
                raise ConfigError(
                    f"data.groups.gt_size: the student draws {self.net.size} px, "
                    f"got {group.gt_size}"
                )
        check_validation_ws(self.config)
        check_validation_size(self.config, self.net.size)
        if self.distil.adversarial is not None:
            try:
                check_patch(self.distil.adversarial, "distil.adversarial", WHOLE.side)
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One update of the student, and of the discriminator at the full size."""
        engine = self.engine
        random = np.random.default_rng([self.config.seed, step, engine.micro])
        size = self.net.size
        if self.smaller and step % 2:
            size = int(random.choice(self.smaller))
        w, truth = self._pairs(batch, size)
        figures: dict[str, Tensor] = {}
        fake = None
        with engine.section("forward"):
            with engine.autocast():
                drawn = self.net.synthesis(self.net.broadcast(w), size=size)
            drawn = drawn.float()
            loss = self._compare(drawn, truth, figures)
            if self.critic is not None and size == self.net.size:
                fake, term = self.critic.listen(drawn, WHOLE, random, nimg)
                figures["adversarial"] = term.detach()
                loss = loss + term
        figures["norm"] = engine.update("net", loss)
        if engine.stepping:
            count = engine.images_a_step
            update_ema(self.ema, self.net, count, self.config.ema_half_life, nimg)
        if self.critic is not None and fake is not None:
            with engine.section("discriminator"):
                # With smaller sizes it learns on every other step.
                turn = step // 2 if self.smaller else step
                figures |= self.critic.learn(truth, fake.detach(), random, turn)
        return figures

    def _pairs(self, batch: list[GroupBatch], size: int) -> tuple[Tensor, Tensor]:
        """Styles and the teacher's faces at a size."""
        w = torch.cat([group.w for group in batch])
        truth = to_float(torch.cat([group.gt for group in batch]))
        if size != truth.shape[-1]:
            truth = F.interpolate(truth, (size, size), mode="area")
        return w, truth

    def _compare(self, drawn: Tensor, truth: Tensor, figures: dict[str, Tensor]) -> Tensor:
        """L1 and perceptual loss."""
        l1 = (drawn - truth).abs().mean()
        figures[f"l1_{drawn.shape[-1]}"] = l1.detach()
        loss = self.distil.l1_weight * l1
        config = self.distil.perceptual
        if self.perceptual is None or config is None or drawn.shape[-1] < 16:
            return loss
        side = min(config.patch, drawn.shape[-1])
        if side < drawn.shape[-1]:
            drawn, truth = (
                F.interpolate(x, (side, side), mode="bilinear", antialias=True)
                for x in (drawn, truth)
            )
        with self.engine.autocast():
            perceptual = self.perceptual(drawn, truth).float().mean()
        figures[f"perceptual_{side}"] = perceptual.detach()
        return loss + config.weight * perceptual

    @torch.no_grad()
    def validate(self, batch: list[GroupBatch]) -> dict[str, Tensor]:
        """The average's L1 to the teacher."""
        w, truth = self._pairs(batch, self.net.size)
        return {"l1": (self.ema.synthesis(self.ema.broadcast(w)) - truth).abs().mean()}

    @torch.no_grad()
    def pictures(self, batch: list[GroupBatch]) -> list[Tensor]:
        """The teacher's faces, and the average's."""
        w, truth = self._pairs(batch, self.net.size)
        return [truth, self.ema.synthesis(self.ema.broadcast(w))]

    def save(self, folder: Path, nimg: int) -> None:
        """Write the average."""
        provenance = {"teacher": self.distil.teacher.name, "distilled_images": nimg}
        write_prior(self.ema, folder / PRIOR, provenance)


def write_prior(
    prior: StyleGAN2 | MobileStyleGAN, path: Path, provenance: Mapping[str, Any]
) -> None:
    """Write a prior as `load_prior` reads it.

    Raises:
        CheckpointError: The file cannot be written.
    """
    kind = "stylegan2-prior" if isinstance(prior, StyleGAN2) else "mobile-prior"
    meta = {"config": asdict(prior.config), "provenance": dict(provenance)}
    save_tensors(prior.state_dict(), path, kind=kind, meta=meta)


def build_student(teacher: GanPrior, config: DistilConfig) -> MobileStyleGAN:
    """An untrained mobile prior with the teacher's mapping network, which stays, and its noise.

    Raises:
        ConfigError: The teacher is of an unknown kind, or the channels do not fit its size.
    """
    if isinstance(teacher, StyleGAN2):
        layers = len(teacher.mapping_network.layers)
    elif isinstance(teacher, MobileStyleGAN):
        layers = len(teacher.mapping_layers)
    else:
        raise ConfigError(f"distil.teacher: cannot learn from a {type(teacher).__name__}")
    try:
        student = MobileStyleGAN(
            MobileStyleGANConfig(
                size=teacher.size,
                w_dim=teacher.w_dim,
                mapping_layers=layers,
                base_channels=config.base_channels,
                channels=config.channels,
            )
        )
    except ValueError as error:
        raise ConfigError(f"distil.channels: {error}") from error
    student.w_avg.copy_(teacher.w_avg)
    if isinstance(teacher, StyleGAN2):
        _copy_stylegan2(teacher, student)
    else:
        student.mapping_layers.load_state_dict(teacher.mapping_layers.state_dict())
    student.mapping_layers.requires_grad_(False)
    return student


@torch.no_grad()
def _copy_stylegan2(teacher: StyleGAN2, student: MobileStyleGAN) -> None:
    """The mapping with its learning-rate factors multiplied in, and each layer's noise."""
    state: dict[str, Tensor] = {}
    for index, layer in enumerate(teacher.mapping_network.layers):
        state[f"{index}.weight"] = layer.get_parameter("weight") * _number(layer, "scale")
        state[f"{index}.bias"] = layer.get_parameter("bias") * _number(layer, "lr_mul")
    student.mapping_layers.load_state_dict(state)
    own = teacher.state_dict()
    noises = {"conv1": "blocks.4.conv1"}
    for index in range(len(student.blocks)):
        level = 8 << index
        noises[f"blocks.{index}.conv1"] = f"blocks.{level}.conv0"
        noises[f"blocks.{index}.conv2"] = f"blocks.{level}.conv1"
    for ours, theirs in noises.items():
        noise = own[f"{theirs}.noise"] * own[f"{theirs}.noise_strength"]
        student.get_buffer(f"{ours}.noise").copy_(noise)


def _number(layer: torch.nn.Module, name: str) -> float:
    value = getattr(layer, name)
    assert isinstance(value, float)
    return value
