"""An untrained Panini-Net around a prior: what `panini init` writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from panini.errors import CheckpointError, ConfigError
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.encoder import MFR_ENCODER, SR_ENCODER, PaperEncoder, PaperEncoderConfig
from panini.models.fusion import DAFIConfig, SeparableBranch
from panini.models.mobile_encoder import MobileEncoderConfig
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import (
    MOBILE_MASKS,
    PaniniConfig,
    PaniniNet,
    Task,
    image_channels,
    num_ws,
    prior_channels,
)
from panini.models.prior import GanPrior
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

EncoderKind = Literal["paper", "mobile"]
Prior = StyleGAN2 | MobileStyleGAN
PriorConfig = StyleGAN2Config | MobileStyleGANConfig

LARGEST_INPUT = 512
"""Side of the degraded face of task mfr, px, as in the paper; smaller networks take their own."""
SR_FACTOR = 16
TOP_LEVEL = 64
W_AVG_SAMPLES = 20_000
FEATURE_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to build around a prior."""

    size: int
    """Side of the restored face, px; at most the prior's."""
    task: Task = "mfr"
    """"mfr": restoration of many degradations; "sr16": 16× super-resolution."""
    encoder: EncoderKind = "paper"
    """The paper's encoder and degradation encoder, or the light ones of the shipped sizes."""
    seed: int = 0
    """Of everything that is random."""


def assemble(prior: GanPrior, plan: Plan) -> PaniniNet:
    """An untrained network around a prior, ready for the restoration stage.

    The number of ws and the channels to fuse are the prior's; fused are the levels below its
    size up to 64 px that the encoder has too. The encoder's latent codes start at the prior's
    mean face.

    Args:
        prior: The trained generator; one of a larger size is cut to the plan's.
        plan: What to build.

    Returns:
        The network in float32, in eval mode.

    Raises:
        CheckpointError: The prior is smaller than the plan's size, or of an unknown kind.
        ConfigError: The encoder cannot take faces of the size that plan and task lead to.
    """
    if not isinstance(prior, StyleGAN2 | MobileStyleGAN):
        raise CheckpointError(f"expected a StyleGAN2 or mobile prior, got {type(prior).__name__}")
    prior = cut_prior(prior, plan.size)
    try:
        config = plan_config(prior.config, plan)
    except ValueError as error:
        raise ConfigError(f"size {plan.size}, task {plan.task}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        net = PaniniNet(config)
    net.prior.load_state_dict(prior.state_dict())
    generator = torch.Generator().manual_seed(plan.seed)
    if not bool(net.prior.w_avg.any()):
        # Some formats do not store the mean.
        net.prior.estimate_w_avg(W_AVG_SAMPLES, generator)
    _start_at_mean(net)
    _start_in_scale(net, generator)
    return net.eval()


def plan_config(prior: PriorConfig, plan: Plan) -> PaniniConfig:
    """The configuration of a network around a prior of this shape.

    Raises:
        ValueError: The encoder cannot take faces of the size that plan and task lead to.
    """
    side = plan.size // SR_FACTOR if plan.task == "sr16" else min(plan.size, LARGEST_INPUT)
    encoder = _encoder_config(prior, plan, side)
    offered = image_channels(encoder)
    fused = {level: c for level, c in prior_channels(prior).items() if level in offered}
    light = plan.encoder == "mobile"
    return PaniniConfig(
        task=plan.task,
        prior=prior,
        encoder=encoder,
        fusion=DAFIConfig(
            prior_channels=fused,
            image_channels={level: offered[level] for level in fused},
            branch="separable" if light else "conv",
            initial_prior={level: MOBILE_MASKS[level] for level in fused} if light else {},
        ),
        degradation_encoder=(
            DegradationEncoderConfig(kind=plan.encoder) if plan.task == "mfr" else None
        ),
    )


def _encoder_config(
    prior: PriorConfig, plan: Plan, side: int
) -> PaperEncoderConfig | MobileEncoderConfig:
    """The paper's encoder, or the light one, for faces of `side` px and the prior's ws."""
    w_dim = prior.style_dim if isinstance(prior, StyleGAN2Config) else prior.w_dim
    if plan.encoder == "mobile":
        if side < TOP_LEVEL:
            raise ValueError(
                f"the mobile encoder takes faces from {TOP_LEVEL} px, got {side}; use the paper's"
            )
        # The stem works at 128 px, or at 64 px where there are no more.
        unshuffle = max(side // (2 * TOP_LEVEL), 1)
        stem = MobileEncoderConfig().stem_channels if side > TOP_LEVEL else 0
        return MobileEncoderConfig(
            in_size=side, unshuffle=unshuffle, stem_channels=stem, num_ws=num_ws(prior), w_dim=w_dim
        )
    base = SR_ENCODER if plan.task == "sr16" else MFR_ENCODER
    # One convolution at full size, and one for each halving down to the finest fused level.
    halvings = max(side // TOP_LEVEL, 1).bit_length() - 1
    return replace(
        base,
        in_size=side,
        widths=base.widths[-1 - halvings :],
        num_ws=num_ws(prior),
        w_dim=w_dim,
    )


def install_degradation_encoder(net: PaniniNet, encoder: DegradationEncoder, source: Path) -> None:
    """Give a network the trained weights of the degradation stage.

    Raises:
        CheckpointError: The network has none, or one of another shape.
    """
    wanted = net.config.degradation_encoder
    if encoder.config != wanted:
        has = "none" if wanted is None else f"one of kind {wanted.kind}, dim {wanted.dim}"
        raise CheckpointError(
            f"{source}: a degradation encoder of kind {encoder.config.kind}, dim"
            f" {encoder.config.dim}; the network has {has}"
        )
    net.degradation_encoder.load_state_dict(encoder.state_dict())


def cut_prior(prior: Prior, size: int) -> Prior:
    """The prior that draws faces of `size` px as this one does at that size.

    Args:
        prior: The generator; it is returned as it is where it has that size already.
        size: Side of the largest image, px.

    Raises:
        CheckpointError: The prior is smaller.
    """
    if size > prior.size:
        raise CheckpointError(
            f"the prior draws faces of {prior.size} px, asked for {size}; choose a smaller size"
        )
    if size == prior.size:
        return prior
    small, state = (
        _cut_stylegan2(prior, size) if isinstance(prior, StyleGAN2) else _cut_mobile(prior, size)
    )
    small.load_state_dict(state)
    return small.eval()


def _cut_stylegan2(prior: StyleGAN2, size: int) -> tuple[StyleGAN2, dict[str, Tensor]]:
    small = StyleGAN2(replace(prior.config, size=size))
    state = prior.state_dict()
    return small, {name: state[name] for name in small.state_dict()}


def _cut_mobile(prior: MobileStyleGAN, size: int) -> tuple[MobileStyleGAN, dict[str, Tensor]]:
    blocks = size.bit_length() - 4
    config = replace(prior.config, size=size, channels=prior.config.channels[:blocks])
    small = MobileStyleGAN(config)
    own = small.state_dict()
    kept = {name: value for name, value in prior.state_dict().items() if name in own}
    # The last head is styled, those before it are not: a style of ones changes nothing.
    style = f"heads.{size}.style."
    neutral = {
        f"{style}weight": torch.zeros_like(own[f"{style}weight"]),
        f"{style}bias": torch.ones_like(own[f"{style}bias"]),
    }
    return small, kept | neutral


@torch.no_grad()
def _start_at_mean(net: PaniniNet) -> None:
    """Let the latent codes start around the prior's mean."""
    if isinstance(net.encoder, PaperEncoder):
        net.encoder.latent_linear.bias.copy_(net.prior.w_avg.repeat(net.prior.num_ws))
    else:
        net.encoder.w_avg.copy_(net.prior.w_avg)


@torch.no_grad()
def _start_in_scale(net: PaniniNet, generator: torch.Generator) -> None:
    """Let light image branches predict in units of the prior's own mean and deviation."""
    if net.config.fusion.branch != "separable":
        return
    features: dict[int, Tensor] = {}

    def keep(level: int, feature: Tensor) -> Tensor:
        features[level] = feature
        return feature

    z = torch.randn(FEATURE_SAMPLES, net.prior.z_dim, generator=generator)
    ws = net.prior.broadcast(net.prior.mapping(z))
    net.prior.synthesis(ws, size=2 * max(net.fusion.levels), fuse=keep)
    for level in net.fusion.levels:
        branch = net.fusion.convs[str(level)]
        assert isinstance(branch, SeparableBranch)
        branch.mean.copy_(features[level].mean(dim=(0, 2, 3), keepdim=True))
        branch.std.copy_(features[level].std(dim=(0, 2, 3), keepdim=True) + 1e-3)
