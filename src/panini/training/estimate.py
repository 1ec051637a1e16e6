"""What a recipe will need, before it is run: parameters, memory and operations.

The networks are built without memory (on the device "meta"), so that the paper's size can be
estimated on any machine. Frozen networks that supervise have no parameters in it, but their
operations and what they keep for the backward pass are in: of a light network they are the most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from panini.checkpoints import load_model, load_prior
from panini.config import load_config
from panini.errors import CheckpointError, ConfigError
from panini.features.identity import CHIP_SIZE, IdentityNet
from panini.features.vgg16 import VGG16, WIDTHS
from panini.metrics.lpips import TAPS as LPIPS_TAPS
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.panini_net import PaniniConfig, PaniniNet
from panini.models.prior import Window
from panini.models.stylegan2 import Discriminator, StyleGAN2
from panini.training.config import RunConfig
from panini.training.critics import (
    AdversarialConfig,
    FeatureAdversarialConfig,
    FeatureDiscriminator,
)
from panini.training.degradation import DegradationRunConfig
from panini.training.distillation import DistilConfig, build_student
from panini.training.network import WEIGHTS, freeze
from panini.training.prior import GanConfig, PriorRunConfig, discriminator_config, prior_config
from panini.training.restoration import FACE_WINDOW, RestorationRunConfig, learning_groups
from panini.training.warmup import WarmupRunConfig

Estimate = dict[str, float | int | str]


def estimate(config: RunConfig, recipe: Path | None = None) -> Estimate:
    """Parameters, memory and operations of a recipe.

    Args:
        config: The recipe.
        recipe: Its file: where `init` is not there yet, the warm-up recipe beside it that will
            leave it says the network's shape.

    Returns:
        `parameters_m` and `trained_m` in millions, with the discriminators; of a forward pass of
        all of them `forward_gflop_a_face` (two operations a multiply-add); `run_pflop`, of all
        passes of all images, but for gradient penalties; `weights_mb` with the average, gradients
        and Adam's moments; `activations_mb` of the batch that keeps most; `network_of`, the recipe
        of the stage before, where it was asked. `unknown` says why there is nothing to tell.
    """
    try:
        subject = _subject(config, recipe)
    except (CheckpointError, ConfigError, ValueError) as error:
        return {"unknown": " ".join(str(error).split())}
    net = subject.net
    flops, saved = _measure(subject.run)
    saved = max([saved, *(_measure(run)[1] for run in subject.others)])
    heard, kept = _measure(subject.critics)
    work = subject.passes * flops + _CRITIC * heard
    half = 1.0 if config.precision == "float32" else 0.5
    # Discriminators are never in half precision.
    memory = half * subject.remembered * saved + kept
    for judge in subject.judges:
        judged, seen = _measure(judge.run)
        work += judge.passes * judge.share * judged
        memory += half * seen
    parameters = sum(p.numel() for p in net.parameters())
    averaged = sum(p.numel() for p in (subject.averaged or net).parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return {
        "parameters_m": round(parameters / 1e6, 3),
        "trained_m": round(trained / 1e6, 3),
        "forward_gflop_a_face": round((flops + heard) / 1e9, 3),
        "run_pflop": round(work * config.images / 1e15, 3),
        "weights_mb": round((parameters + averaged + 3 * trained) * 4 / 1e6, 1),
        "activations_mb": round(memory * config.data.batch / 1e6, 1),
    } | ({"network_of": str(subject.shaped_by)} if subject.shaped_by else {})


_LEARNING, _CRITIC, _JUDGE, _FEATURES = 3, 8, 3, 4
"""Passes in units of the forward one; backward is one for the input and one for the weights. A
network that learns: forward, backward. A discriminator: forward and to the input for the generator,
then all of it for real and for fake faces. A frozen judge: forward for the truth, forward and to
the input for what is restored. The frozen network before a discriminator of features: forward and
to the input for the generator, then forward for real and for fake faces."""


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A frozen network that supervises."""

    run: Callable[[], object]
    """Its forward pass on one face."""
    share: float = 1.0
    """Of the faces that it sees."""
    passes: int = _JUDGE


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What a recipe trains, and how it runs it."""

    net: nn.Module
    """With the discriminators."""
    run: Callable[[], object]
    """The forward pass on one face, without them."""
    passes: float = _LEARNING
    """How often it is run a face, on the mean."""
    remembered: float = 1.0
    """Share of the faces whose activations the backward pass needs."""
    others: tuple[Callable[[], object], ...] = ()
    """What else is drawn at times, and may keep more."""
    critics: Callable[[], object] = lambda: None
    """The discriminators on one face."""
    judges: tuple[_Judge, ...] = ()
    averaged: nn.Module | None = None
    """The part that has a moving average; None is all of it."""
    shaped_by: Path | None = None
    """The recipe that said the shape in place of weights that are not there yet."""


def _subject(config: RunConfig, recipe: Path | None) -> _Subject:
    """A stage's networks without memory, but for what its recipe reads from files."""
    if isinstance(config, DegradationRunConfig):
        with torch.device("meta"):
            encoder = DegradationEncoder(DegradationEncoderConfig(kind=config.kind)).eval()
        side = config.crop or config.data.lq_size
        # A query learns; a key is looked at, and only where there is contrast.
        passes = _LEARNING + bool(config.contrast_weight)
        # Half of the faces are keys; of two patches of one face, it is both.
        queries = 0.5 if config.pairs == "udrl" else 1.0
        return _Subject(
            net=encoder,
            run=lambda: encoder(_faces(side)),
            passes=queries * passes,
            remembered=queries,
        )
    if isinstance(config, PriorRunConfig):
        return _student(config.distil) if config.gan is None else _gan(config.gan)
    return _restorer(config, recipe)


def _restorer(config: RunConfig, recipe: Path | None) -> _Subject:
    shape, shaped_by = _shape_of(config, recipe)
    with torch.device("meta"):
        net = freeze(PaniniNet(shape))
    critics = _Critics()
    views: list[tuple[Window | None, int | None]] = [(None, None)]
    if isinstance(config, RestorationRunConfig):
        critics = _Critics(config.adversarial, config.feature_adversarial)
        views = _views(config)
        freeze(net, bands=not config.train_bands)
        learning_groups(net, config)
    if isinstance(config, WarmupRunConfig):
        views = [(None, 2 * max(net.prior.channels))]
    faces = _faces(config.data.lq_size)
    run, *others = (partial(net, faces, window=window, size=size) for window, size in views)
    return _Subject(
        net=nn.ModuleList([net, critics]),
        run=run,
        others=tuple(others),
        critics=critics,
        judges=_judges(config) if isinstance(config, RestorationRunConfig) else (),
        averaged=net,
        shaped_by=shaped_by,
    )


def _views(config: RestorationRunConfig) -> list[tuple[Window | None, int | None]]:
    """Window and size of what a run draws: at its end first, then before and beside."""
    last = config.output_at(config.images)
    drawn = [last, *(config.output_at(phase.until - 1) for phase in config.phases)]
    found: list[tuple[Window | None, int | None]] = [
        (Window(top=0, left=0, side=cells), size) for cells, size in drawn
    ]
    if config.identity is not None:
        found.append((FACE_WINDOW, last[1]))
    return found


def _judges(config: RestorationRunConfig) -> tuple[_Judge, ...]:
    """The frozen networks of a recipe's losses."""
    vgg, descriptor = VGG16().to("meta"), IdentityNet().to("meta")
    cells = config.output_at(config.images)[0]
    largest = max(max(group.scales) for group in config.data.groups) * cells // Window.level
    patch = _faces(min(config.patch, largest)).requires_grad_(True)
    taps = ["conv4_3"] if config.perceptual.kind == "vgg" else list(LPIPS_TAPS)
    judges = [_Judge(run=lambda: vgg(patch, taps))]
    if config.identity is not None:
        chip = _faces(CHIP_SIZE).requires_grad_(True)
        judges.append(_Judge(run=lambda: descriptor(chip), share=1 / config.identity.every))
    critic = config.feature_adversarial
    if critic is not None:
        judged = _faces(critic.patch).requires_grad_(True)
        judges.append(_Judge(run=lambda: vgg(judged, [critic.tap]), passes=_FEATURES))
    return tuple(judges)


class _Critics(nn.Module):
    """The discriminators of a recipe, each with what it sees of one face."""

    def __init__(
        self,
        patch: AdversarialConfig | None = None,
        feature: FeatureAdversarialConfig | None = None,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList()
        self.inputs: list[Tensor] = []
        with torch.device("meta"):
            if patch is not None:
                self.networks.append(patch.build())
                self.inputs.append(_faces(patch.patch))
            if feature is not None:
                width, side = WIDTHS[feature.block - 1], feature.patch >> (feature.block - 1)
                self.networks.append(FeatureDiscriminator(width, feature.channels))
                self.inputs.append(torch.empty(1, width, side, side))

    def forward(self) -> list[Tensor]:
        """Their logits."""
        return [net(seen) for net, seen in zip(self.networks, self.inputs, strict=True)]


def _gan(config: GanConfig) -> _Subject:
    """A generator and its discriminator, which looks at what it draws."""
    shape = prior_config(config)
    with torch.device("meta"):
        prior = StyleGAN2(shape)
        discriminator = Discriminator(discriminator_config(prior.config))
        z = torch.empty(1, prior.z_dim)
    faces = _faces(prior.config.size)
    return _Subject(
        net=nn.ModuleList([prior, discriminator]),
        run=lambda: prior(z),
        critics=lambda: discriminator(faces),
        averaged=prior,
    )


def _student(config: DistilConfig | None) -> _Subject:
    """A light generator; the teacher's file says what mapping network it takes over."""
    assert config is not None  # the recipe saw to it
    student = build_student(load_prior(config.teacher), config).to("meta")
    w = torch.empty(1, student.w_dim, device="meta")
    critics = _Critics(config.adversarial)
    return _Subject(
        net=nn.ModuleList([student, critics]),
        run=lambda: student.synthesis(student.broadcast(w)),
        critics=critics,
        averaged=student,
    )


def _shape_of(config: RunConfig, recipe: Path | None) -> tuple[PaniniConfig, Path | None]:
    """Shape of a network, and the recipe that said it where its weights are not there yet."""
    if isinstance(config, WarmupRunConfig):
        return config.start.shape(), None
    if not isinstance(config, RestorationRunConfig):
        raise ConfigError(f"no estimate for a {type(config).__name__}")
    if config.start is not None:
        return config.start.shape(), None
    assert config.init is not None  # the recipe saw to it
    if recipe is not None and not config.init.exists():
        for path in sorted((recipe.parent.parent / "warmup").glob("*.yaml")):
            warmup = load_config(path, WarmupRunConfig)
            if warmup.out / WEIGHTS == config.init:
                return warmup.start.shape(), path
    return load_model(config.init).config, None


def _faces(side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def _measure(run: Callable[[], object]) -> tuple[int, int]:
    """Operations of a forward pass, and bytes that it keeps for the backward pass."""
    # What several operations keep is there once, and so are the weights and their views.
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()
            saved[id(storage)] = storage
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return counter.get_total_flops(), sum(storage.nbytes() for storage in saved.values())
