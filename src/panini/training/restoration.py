"""Stage 3: restoration, with L1, a perceptual loss and the vanilla adversarial loss.

The DRE stays fixed. The face is synthesised whole up to 64 px, and above only inside a random
window, so that the loss sees the final 1024 px at a fraction of their price. With a window of 64
cells, everything is whole, as in the paper. What the paper does not have is off by default.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from panini.checkpoints import load_model, save_model
from panini.config import Config
from panini.consistency import reduce
from panini.data import GroupBatch, GroupConfig, load_live_prior, to_float
from panini.errors import ConfigError
from panini.features.identity import ffhq_to_chip, load_identity
from panini.features.vgg16 import VGG16, build_vgg16, load_vgg16
from panini.metrics.lpips import LPIPS, load_lpips
from panini.metrics.weights import read_tensors
from panini.models.panini_net import PaniniNet
from panini.models.prior import GanPrior, Window
from panini.training.critics import (
    AdversarialConfig,
    Critic,
    FeatureAdversarialConfig,
    check_patch,
    feature_critic,
    patch_critic,
)
from panini.training.inputs import check_inputs
from panini.training.network import (
    WEIGHTS,
    StartConfig,
    build_network,
    check_lq_size,
    freeze,
    freeze_others,
    thaw_anchor,
    thaw_prior,
    trainable,
    update_ema,
)
from panini.training.run import Engine, RunConfig, Stage, fit
from panini.training.views import crop_pair, draw_window, truth_view, view

FACE_WINDOW = Window(top=14, left=8, side=48)
"""Holds the chip of the face descriptor, see `panini.features.identity.chip_window`."""
IDENTITY_SCALE = 256
"""Side of the whole face from which the chip is cut, px."""
COMPARED_SIZE = 256
"""Side at which validation compares, px."""


class PerceptualConfig(Config):
    """The perceptual term."""

    kind: Literal["vgg", "lpips"] = "vgg"
    """"vgg": squared error of conv4_3 before its ReLU, as the authors have it. "lpips": all five
    blocks under LPIPS's heads."""
    vgg: Path
    """VGG-16 weights: Caffe's as safetensors, or torchvision's in either form."""
    heads: Path | None = None
    """LPIPS heads, for kind lpips."""
    weight: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    signed: bool = False
    """For kind vgg: the network, made for colours in [0, 1], is given those in [-1, 1], as in the
    authors' code. Twice the contrast makes the term about six times larger."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "lpips" and self.heads is None:
            raise ValueError("kind lpips needs the file of its heads, got none")
        if self.kind == "lpips" and self.signed:
            raise ValueError("signed is for kind vgg; leave it out")
        return self


class IdentityConfig(Config):
    """The identity term: the distance of dlib's face descriptors, on the face's own window."""

    weights: Path
    """The descriptor network, safetensors."""
    weight: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    """Of the loss, on the steps that have it."""
    every: int = Field(default=3, gt=0)
    """Steps between two that have it: the face takes more than half of the frame to draw."""


class OutputPhase(Config):
    """What is drawn in an early part of a run."""

    until: int = Field(gt=0)
    """Image at which the phase ends."""
    window: int | None = Field(default=None, gt=4, le=64)
    """In place of the recipe's `window`; None = that."""
    size: int | None = None
    """Side of the whole face that is drawn, px; None = the network's."""


class RestorationRunConfig(RunConfig):
    """Recipe of stage 3."""

    init: Path | None = None
    """Weights of stage 2 or of an earlier leg, or a shipped model's name; else `start`."""
    start: StartConfig | None = None
    """A new network from a prior and a degradation encoder, as in the paper; else `init`."""
    l1_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    perceptual: PerceptualConfig
    adversarial: AdversarialConfig | None = None
    """None: no adversarial loss."""
    feature_adversarial: FeatureAdversarialConfig | None = None
    """None: no discriminator of features, as in the paper."""
    identity: IdentityConfig | None = None
    """None: no identity loss, as in the paper."""
    window: int = Field(default=64, gt=4, le=64)
    """Side of the synthesised window, in cells of the 64 px feature; 64 = the whole face."""
    phases: tuple[OutputPhase, ...] = ()
    """Other windows and sizes for the first images of a run, in the order of `until`."""
    mask_rate: float = Field(default=3.0, gt=0)
    """Learning rate of the mask MLPs, as a factor."""
    train_prior: float = Field(default=0.0, ge=0)
    """Learning rate of the prior, as a factor; 0 = frozen."""
    train_prior_above: int = Field(default=0, ge=0)
    """Only what the prior computes at larger sides than this is trained, px; 0 = all of it. From
    64 on, what is fused stays the face generator's own."""
    train_anchor: float = Field(default=0.0, ge=0)
    """Learning rate of the head that draws the anchor, as a factor; 0 = frozen with the prior. What
    the prior draws by itself does not change by it."""
    train_degradation_encoder: float = Field(default=0.0, ge=0)
    """Learning rate of the degradation encoder, as a factor; 0 = frozen, as in the paper. Its batch
    norms keep their statistics either way."""
    train_bands: bool = True
    """False: the photo's shares of the bands stay as the start has them."""
    train_only: tuple[str, ...] = ()
    """Beginnings of the names of parameters, `prior.` or `fusion.convs.64.`: of what is trained,
    only these; () = all of it. What comes before them then needs no backward pass."""
    patch: int = 128
    """Largest side that the perceptual loss sees, px; larger comparisons are cropped."""

    @model_validator(mode="after")
    def _has_a_network(self) -> Self:
        if (self.init is None) == (self.start is None):
            raise ValueError("init: name either the weights to go on from, or a start")
        if self.train_prior_above and not self.train_prior:
            raise ValueError(
                f"train_prior_above: expected a train_prior above 0 with it, got "
                f"{self.train_prior_above} alone; set train_prior, or leave it out"
            )
        # With train_prior_above, it is for the network to say whether the head is among the rest.
        if self.train_prior and self.train_anchor and not self.train_prior_above:
            raise ValueError("train_anchor: train_prior lets that head learn already")
        ends = [phase.until for phase in self.phases]
        if ends != sorted(set(ends)):
            raise ValueError(f"phases: expected them in the order of until, got {ends}")
        return self

    @model_validator(mode="after")
    def _feeds_the_discriminators(self) -> Self:
        critics = {"adversarial": self.adversarial, "feature_adversarial": self.feature_adversarial}
        for name, critic in critics.items():
            if critic is None:
                continue
            for window in (self.window, *(phase.window or self.window for phase in self.phases)):
                check_patch(critic, name, window)
            if self.identity is not None:
                check_patch(critic, name, FACE_WINDOW.side, "the identity loss's face window")
            if all(max(group.scales) < critic.scale for group in self.data.groups):
                raise ValueError(f"{name}.scale: no group has truth compared at {critic.scale} px")
        return self

    @model_validator(mode="after")
    def _compares_what_there_is(self) -> Self:
        for number, group in enumerate(self.data.groups):
            if max(group.scales) > group.gt_size:
                raise ValueError(
                    f"data.groups.{number}.scales: expected sides up to gt_size {group.gt_size}, "
                    f"got {max(group.scales)}; larger ones would enlarge the truth"
                )
        return self

    @property
    def judgement(self) -> dict[str, object]:
        """The perceptual distance decides."""
        return super().judgement | {"perceptual": self.perceptual}

    @property
    def beginning(self) -> dict[str, object]:
        """The weights that it begins with."""
        return {"init": self.init, "start": self.start}

    def output_at(self, nimg: int) -> tuple[int, int | None]:
        """(window's side, face's side) that are drawn after so many images."""
        for phase in self.phases:
            if nimg < phase.until:
                return phase.window or self.window, phase.size
        return self.window, None


class Perceptual(torch.nn.Module):
    """The perceptual term, frozen."""

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.judge: VGG16 | LPIPS = (
            load_lpips(config.vgg, config.heads)
            if config.kind == "lpips" and config.heads is not None
            else _load_vgg(config.vgg)
        )
        self.judge.requires_grad_(False).eval()
        self.signed = config.signed

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Distance a face, (N,)."""
        if isinstance(self.judge, LPIPS):
            return self.judge(restored, gt)
        if self.signed:
            restored, gt = 2 * restored - 1, 2 * gt - 1  # that in [0, 1] becomes what was given
        tap = "conv4_3"
        with torch.no_grad():
            truth = self.judge(gt, [tap])[tap]
        found = self.judge(restored, [tap])[tap]
        # Caffe's weights see 0..255: without this the term would be three thousand times larger.
        difference = (found.float() - truth.float()) / self.judge.contrast
        return difference.square().mean(dim=(1, 2, 3))


def _load_vgg(path: Path) -> VGG16:
    """VGG-16 of a safetensors file whose metadata tell its input, or of torchvision's own file."""
    if path.suffix == ".safetensors":
        return load_vgg16(path)
    return build_vgg16(read_tensors(path), path)


class _Drawn(NamedTuple):
    """What a step draws and where it looks."""

    images: tuple[Tensor, ...]
    """The window's part of the restored faces, a group each."""
    window: Window
    size: int | None
    """Side of the whole face; None = the network's."""
    generator: np.random.Generator
    """Of what is still to be drawn by lot."""


class RestorationStage(Stage):
    """Network, its average and the discriminators."""

    def __init__(self, config: RestorationRunConfig) -> None:
        self.config = config
        self.engine = Engine(config)
        self.net = freeze(_first_network(config), bands=not config.train_bands)
        self.first_prior = _first_prior(config)
        check_lq_size(self.net, config)
        _check_recipe(self.net, config)
        self.ema = copy.deepcopy(self.net).requires_grad_(False).eval()
        for net in (self.net, self.ema):
            net.to(self.engine.device)
            self.engine.place(net.encoder)
        self.modules = {"net": self.net, "ema": self.ema}
        self.engine.add_optimizer("net", *learning_groups(self.net, config))
        self.perceptual = Perceptual(config.perceptual)
        self.engine.place(self.perceptual)
        self.critics: list[Critic] = []
        if config.adversarial is not None:
            self.critics.append(patch_critic(config.adversarial, self.engine))
        if config.feature_adversarial is not None:
            self.critics.append(feature_critic(config.feature_adversarial, self.engine))
        self.modules |= {critic.name: critic.network for critic in self.critics}
        if config.identity is not None:
            self.identity = load_identity(config.identity.weights).to(self.engine.device)

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One update of the network, and of the discriminators where there are some."""
        figures: dict[str, Tensor] = {}
        with self.engine.section("forward"):
            drawn, thetas = self._draw(batch, step, nimg)
            loss = self._compare_all(batch, drawn, figures)
            identity = self.config.identity
            if identity is not None and drawn.window is FACE_WINDOW:
                distance = self._identity_distance(drawn.images, batch)
                loss = loss + identity.weight * distance
                figures["identity"] = distance.detach()
            term, fakes = self._listen(drawn, nimg, figures)
        norm = self.engine.update("net", loss + term)
        if self.engine.stepping:
            count = self.engine.images_a_step
            update_ema(self.ema, self.net, count, self.config.ema_half_life, nimg)
        with self.engine.section("discriminator"):
            for critic, fake in fakes:
                truth = self._sharp_truth(batch, critic.config.scale, drawn.window)
                figures |= critic.learn(truth, fake, drawn.generator, step)
        return figures | thetas | {"norm": norm}

    def _draw(
        self, batch: list[GroupBatch], step: int, nimg: int
    ) -> tuple[_Drawn, dict[str, Tensor]]:
        """Restored faces where this step looks, and figures of θ where the fusion has masks."""
        # The same on all processes: they look at one place, as one with all their faces would.
        generator = np.random.default_rng([self.config.seed, step])
        side, size = self.config.output_at(nimg)
        window = draw_window(side, generator)
        identity = self.config.identity
        if identity is not None and step % identity.every == 0:
            window = FACE_WINDOW
        lq = to_float(torch.cat([group.lq for group in batch]))
        with self.engine.autocast():
            output = self.net(lq, window=window, size=size)
        images = output.image.float().split([len(group.lq) for group in batch])
        theta = output.theta.detach()
        # Of one face the deviation is 0, not NaN.
        spread = theta.std(correction=0)
        thetas = {"theta": theta.mean(), "theta_std": spread} if output.masks else {}
        return _Drawn(images, window, size, generator), thetas

    def _compare_all(
        self, batch: list[GroupBatch], drawn: _Drawn, figures: dict[str, Tensor]
    ) -> Tensor:
        """L1 and perceptual loss of all groups."""
        loss = torch.zeros((), device=drawn.images[0].device)
        groups = self.config.data.groups
        names = _group_names(groups)
        for group, name, part, image in zip(groups, names, batch, drawn.images, strict=True):
            scales = group.scales
            if drawn.size is not None:  # what is drawn has no finer detail
                scales = [min(scale, drawn.size) for scale in scales]
            scale = int(drawn.generator.choice(scales))
            restored = view(image, drawn.window, scale, trimmed=True)
            gt = truth_view(part.gt, drawn.window, scale)
            term, found = self._compare((restored, gt), drawn.generator)
            figures |= {f"{figure}_{name}_{scale}": value for figure, value in found.items()}
            loss = loss + group.count / self.config.data.batch * term
        return loss

    def _listen(
        self, drawn: _Drawn, nimg: int, figures: dict[str, Tensor]
    ) -> tuple[Tensor, list[tuple[Critic, Tensor]]]:
        """The adversarial terms, and the patches that each discriminator saw."""
        total = torch.zeros((), device=self.engine.device)
        fakes = []
        for critic in self.critics:
            if drawn.size is not None and drawn.size < critic.config.scale:
                continue
            images = torch.cat(drawn.images)
            fake, term = critic.listen(images, drawn.window, drawn.generator, nimg)
            total = total + term
            figures[f"{critic.figures}adversarial"] = term.detach()
            fakes.append((critic, fake.detach()))
        return total, fakes

    def _compare(
        self, pair: tuple[Tensor, Tensor], generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 and perceptual loss of one group, weighted, and each alone."""
        restored, gt = pair
        l1 = (restored - gt).abs().mean()
        restored, gt = crop_pair(restored, gt, self.config.patch, generator)
        with self.engine.autocast():
            perceptual = self.perceptual(restored, gt).mean()
        loss = self.config.l1_weight * l1 + self.config.perceptual.weight * perceptual
        return loss, {"l1": l1.detach(), "perceptual": perceptual.detach()}

    def _identity_distance(self, images: tuple[Tensor, ...], batch: list[GroupBatch]) -> Tensor:
        """Mean distance of the descriptors of the restored faces, drawn in FACE_WINDOW."""
        restored = view(torch.cat(images), FACE_WINDOW, IDENTITY_SCALE, trimmed=False)
        # The chip lies inside the window; around it the canvas may be empty.
        cell = IDENTITY_SCALE // FACE_WINDOW.level
        left, top = FACE_WINDOW.left * cell, FACE_WINDOW.top * cell
        side = restored.shape[-1]
        around = (left, IDENTITY_SCALE - left - side, top, IDENTITY_SCALE - top - side)
        chips = ffhq_to_chip(F.pad(restored, around))
        truths = torch.cat([reduce(to_float(part.gt), IDENTITY_SCALE) for part in batch])
        true_chips = ffhq_to_chip(truths)
        with self.engine.autocast():
            with torch.no_grad():
                truth = self.identity(true_chips)
            found = self.identity(chips)
        return (found.float() - truth.float()).norm(dim=1).mean()

    def _sharp_truth(self, batch: list[GroupBatch], scale: int, window: Window) -> Tensor:
        """Views of the truth of those groups that have the scale's detail."""
        return torch.cat(
            [
                truth_view(part.gt, window, scale)
                for group, part in zip(self.config.data.groups, batch, strict=True)
                if max(group.scales) >= scale
            ]
        )

    @torch.no_grad()
    def validate(self, batch: list[GroupBatch]) -> dict[str, Tensor]:
        """The average's perceptual distance, L1 and, with its loss, identity, at 256 px."""
        lq, gt = (to_float(torch.cat(parts)) for parts in list(zip(*batch, strict=True))[:2])
        with self.engine.autocast():
            output = self.ema(lq)
        restored, gt = (reduce(x.float(), COMPARED_SIZE) for x in (output.image, gt))
        figures = {
            "perceptual": self.perceptual(restored, gt).mean(),
            "l1": (restored - gt).abs().mean(),
        }
        if output.masks:
            figures["theta"] = output.theta.float().mean()
        if self.config.identity is not None:
            described = [self.identity.describe(x) for x in (restored, gt)]
            figures["identity"] = (described[0] - described[1]).norm(dim=1).mean()
        return figures

    @torch.no_grad()
    def pictures(self, batch: list[GroupBatch]) -> list[Tensor]:
        """Degraded, restored and true faces."""
        lq, gt = (to_float(torch.cat(parts)) for parts in list(zip(*batch, strict=True))[:2])
        with self.engine.autocast():
            restored = self.ema(lq).image
        return [reduce(x.float(), COMPARED_SIZE) for x in (lq, restored, gt)]

    def save(self, folder: Path, nimg: int) -> None:
        """Write the average, and of the prior what restoration has changed, as it was."""
        first = self.config.init.name if self.config.init else str(self.config.start)
        provenance = {"init": first, "restoration_images": nimg}
        save_model(self.ema, folder / WEIGHTS, provenance=provenance, prior=self.first_prior)


def _group_names(groups: Sequence[GroupConfig]) -> list[str]:
    """What figures call the groups: the source's kind, from the second of a kind on numbered."""
    kinds = [group.source.kind for group in groups]
    counts = [kinds[: place + 1].count(kind) for place, kind in enumerate(kinds)]
    return [
        kind if count == 1 else f"{kind}{count}" for kind, count in zip(kinds, counts, strict=True)
    ]


def _first_network(config: RestorationRunConfig) -> PaniniNet:
    if config.start is not None:
        return build_network(config.start, config.seed)
    assert config.init is not None  # the recipe saw to it
    return load_model(config.init)


def _first_prior(config: RestorationRunConfig) -> GanPrior:
    """As it was before any restoration, whatever leg this is: on the CPU."""
    source = config.init if config.start is None else config.start.prior
    assert source is not None  # the recipe saw to it
    return load_live_prior(source)


def learning_groups(
    net: PaniniNet, config: RestorationRunConfig
) -> list[tuple[list[torch.nn.Parameter], float]]:
    """Let learn, of a frozen network, what a recipe trains; each with its learning rate's factor.

    Raises:
        ConfigError: The network has not what the recipe names.
    """
    groups = list(zip(trainable(net), (1.0, config.mask_rate), strict=True))
    if config.train_prior:
        groups.append((thaw_prior(net, config.train_prior_above), config.train_prior))
    if config.train_anchor:
        groups.append((thaw_anchor(net), config.train_anchor))
    if config.train_degradation_encoder:
        net.degradation_encoder.requires_grad_(True)
        learned = list(net.degradation_encoder.parameters())
        groups.append((learned, config.train_degradation_encoder))
    if not config.train_only:
        return groups
    freeze_others(net, config.train_only)
    kept = [([p for p in learned if p.requires_grad], factor) for learned, factor in groups]
    return [group for group in kept if group[0]]


def _check_recipe(net: PaniniNet, config: RestorationRunConfig) -> None:
    """Refuse what the recipe asks of a network that has it not."""
    if config.train_degradation_encoder and net.config.degradation_encoder is None:
        raise ConfigError("train_degradation_encoder: this network has no degradation encoder")
    if not config.train_bands and net.bands is None:
        raise ConfigError("train_bands: this network has no bands; leave it out")
    known = [2**k for k in range(7, 11) if 2**k <= net.config.out_size]
    for phase in config.phases:
        if phase.size is not None and phase.size not in known:
            raise ConfigError(f"phases: expected sizes among {known}, got {phase.size}")


def train(config: RestorationRunConfig) -> bool:
    """Run stage 3; returns whether it is at its end."""
    check_inputs(config)
    return fit(RestorationStage(config), config)
