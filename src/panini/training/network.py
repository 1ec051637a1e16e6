"""Networks at the start of their training, and their averages."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from panini.checkpoints import load_degradation_encoder, load_model
from panini.config import Config
from panini.data import load_live_prior
from panini.errors import ConfigError
from panini.models.fusion import SeparableBranch
from panini.models.mobile_encoder import MobileEncoder
from panini.models.mobile_stylegan import MobileStyleGAN
from panini.models.panini_net import PaniniConfig, PaniniNet, named_config
from panini.models.prior import GanPrior
from panini.training.config import RunConfig

logger = logging.getLogger(__name__)

WEIGHTS = "panini.safetensors"
"""What the stages that train a whole network leave for the next one."""


KINDS_WITH_W = ("prior", "prior_live")
"""Kinds of source whose faces come with their w."""

FusionMethod = Literal["dafi", "concat", "modulation", "noise", "latent"]
"""Those of `models.fusion`."""


class TransferConfig(Config):
    """Tensors that a new network takes over from a trained one."""

    source: Path
    """Weights, or a shipped model's name."""
    prefixes: tuple[str, ...] = ("encoder.", "fusion.", "bands.")
    """Beginnings of the names of what is taken, where name and shape are equal."""


class StartConfig(Config):
    """A network of a named size with a trained prior and degradation encoder."""

    size: str = "mobile-mfr"
    """Named size of the network, or weights (.safetensors) whose shape it takes."""
    fusion_method: FusionMethod = "dafi"
    """How its two sources are joined; all but "dafi" are there to compare with."""
    prior: Path
    """The converted prior, a network that has it, or a shipped model's name."""
    degradation_encoder: Path | None = None
    """Weights of stage 1, a network that has it, or a shipped model's name; None for sizes that
    have no degradation encoder."""
    transfer: TransferConfig | None = None
    """Where else the network starts from; None = nowhere, as in the paper."""
    shared_mlp: bool | None = None
    """Whether one MLP makes the masks of all levels, as the authors coded it, or each level has its
    own, as in the paper (Eq. 6); None = as the size has it."""
    constant_masks: bool = False
    """A learned constant takes v_DR's place, also where the size has a degradation encoder."""
    bands: bool = True
    """False: without the interpolation by bands and without back-projection, where the size has
    them; the paper has neither."""
    anchor_size: int = 0
    """Side of the smaller image that the full size is made to agree with, px; 0: none."""

    def shape(self) -> PaniniConfig:
        """The configuration of the network.

        Raises:
            ConfigError: The size is unknown, or its masks cannot come from one MLP.
        """
        config = _config_of(self.size)
        shared = config.fusion.shared_mlp if self.shared_mlp is None else self.shared_mlp
        try:
            fusion = replace(config.fusion, method=self.fusion_method, shared_mlp=shared)
        except ValueError as error:
            raise ConfigError(f"shared_mlp: {self.size}: {error}; leave it out") from error
        return replace(
            config,
            fusion=fusion,
            degradation_encoder=None if self.constant_masks else config.degradation_encoder,
            bands=config.bands if self.bands else None,
            consistency_steps=config.consistency_steps if self.bands else 0,
            anchor_size=self.anchor_size,
        )


def _config_of(size: str) -> PaniniConfig:
    """That of a named size, or of a file."""
    if size.endswith(".safetensors"):
        return load_model(size).config
    try:
        return named_config(size)
    except ValueError as error:
        raise ConfigError(f"size: {error}") from error


def build_network(config: StartConfig, seed: int) -> PaniniNet:
    """A network with the prior's and the DRE's weights; both are frozen.

    Raises:
        ConfigError: The size is unknown, or a file is of another shape.
    """
    torch.manual_seed(seed)
    net = PaniniNet(config.shape())
    prior = load_live_prior(config.prior)
    if prior.config != net.config.prior:
        raise ConfigError(
            f"{config.prior}: a prior of {prior.config}, but {config.size} has {net.config.prior}"
        )
    net.prior.load_state_dict(prior.state_dict())
    start_from_prior(net)
    _load_degradation_encoder(net, config)
    if config.transfer is not None:
        _transfer(net, config.transfer)
    return freeze(net)


@torch.no_grad()
def _transfer(net: PaniniNet, config: TransferConfig) -> None:
    """Take over what fits."""
    source, own = load_model(config.source), net.state_dict()
    wanted = {k: v for k, v in source.state_dict().items() if k.startswith(config.prefixes)}
    fitting = {k: v for k, v in wanted.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise ConfigError(
            f"{config.source}: nothing under {', '.join(config.prefixes)} has a name and shape "
            "that the new network has"
        )
    net.load_state_dict(own | fitting)
    logger.info("%d of %d tensors taken from %s", len(fitting), len(wanted), config.source)
    if net.config.degradation_encoder is None:
        net.degradation_constant.copy_(_constant(net, source))


def _constant(net: PaniniNet, source: PaniniNet, num_samples: int = 32, seed: int = 0) -> Tensor:
    """What the masks of a network know in the place of v_DR, where another has a constant.

    Its own constant; or the mean v_DR that its degradation encoder has of faces reduced to the
    other's size. The random vector of a new network they do not know.
    """
    if source.config.degradation_encoder is None:
        return source.degradation_constant
    generator = torch.Generator().manual_seed(seed)
    source.eval()
    values = []
    for z in torch.randn(num_samples, net.prior.z_dim, generator=generator).split(4):
        faces = net.prior.synthesis(net.prior.broadcast(net.prior.mapping(z, 0.7)))
        small = F.interpolate(faces, (net.config.in_size,) * 2, mode="bilinear", antialias=True)
        lq = F.interpolate(small, (source.config.in_size,) * 2, mode="bicubic")
        values.append(source.degradation(lq.clamp(-1, 1)))
    return torch.cat(values).mean(dim=0, keepdim=True)


def _load_degradation_encoder(net: PaniniNet, config: StartConfig) -> None:
    wanted, path = net.config.degradation_encoder, config.degradation_encoder
    if (wanted is None) != (path is None):
        raise ConfigError(
            f"degradation_encoder: {config.size} has {'none' if wanted is None else 'one'}, "
            f"got {path}"
        )
    if path is None:
        return
    found = load_degradation_encoder(path)
    if found.config != wanted:
        raise ConfigError(f"{path}: a {found.config} encoder, but {config.size} has {wanted}")
    net.degradation_encoder.load_state_dict(found.state_dict())


@torch.no_grad()
def prior_features(prior: GanPrior, ws: Tensor) -> dict[int, Tensor]:
    """The prior's own features at its fusable levels, level → (N, C, level, level)."""
    features: dict[int, Tensor] = {}

    def keep(level: int, feature: Tensor) -> Tensor:
        features[level] = feature
        return feature

    prior.synthesis(ws, size=2 * max(prior.channels), fuse=keep)
    return features


@torch.no_grad()
def start_from_prior(net: PaniniNet, num_samples: int = 64, seed: int = 0) -> None:
    """Set what follows from the prior alone: mean latent, feature means and deviations."""
    if isinstance(net.encoder, MobileEncoder):
        net.encoder.w_avg.copy_(net.prior.w_avg)
    levels = [lvl for lvl in net.fusion.levels if _has_statistics(net, lvl)]
    if not levels:
        return
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_samples, net.prior.z_dim, generator=generator)
    chunks = [
        prior_features(net.prior, net.prior.broadcast(net.prior.mapping(part)))
        for part in z.split(8)
    ]
    for level in levels:
        branch = net.fusion.convs[str(level)]
        assert isinstance(branch, SeparableBranch)
        feature = torch.cat([chunk[level] for chunk in chunks])
        branch.mean.copy_(feature.mean(dim=(0, 2, 3), keepdim=True))
        branch.std.copy_(feature.std(dim=(0, 2, 3), keepdim=True) + 1e-3)


def _has_statistics(net: PaniniNet, level: int) -> bool:
    # Latent codes alone need no image branch.
    return str(level) in net.fusion.convs and isinstance(
        net.fusion.convs[str(level)], SeparableBranch
    )


def freeze(net: PaniniNet, *, bands: bool = False) -> PaniniNet:
    """Fix prior and degradation encoder, as the paper fixes the latter; and the bands' shares."""
    net.train()
    net.prior.requires_grad_(False)
    if net.config.degradation_encoder is not None:
        net.degradation_encoder.requires_grad_(False).eval()
    if bands and net.bands is not None:
        net.bands.requires_grad_(False)
    return net


def thaw_prior(net: PaniniNet, above: int) -> list[nn.Parameter]:
    """Let the prior learn, or of it only what is larger than `above` px; what learns.

    Raises:
        ConfigError: There is nothing so large.
    """
    modules = net.prior.modules_above(above) if above else [net.prior]
    learned = [p for module in modules for p in module.parameters()]
    if not learned:
        raise ConfigError(f"train_prior_above: the prior has nothing above {above} px")
    for parameter in learned:
        parameter.requires_grad_(True)
    return learned


def thaw_anchor(net: PaniniNet) -> list[nn.Parameter]:
    """Let the head learn that draws the anchor, and nothing else of the prior; what learns.

    Raises:
        ConfigError: The network has no anchor, or its head learns with the prior already.
    """
    if not net.config.anchor_size:
        raise ConfigError("train_anchor: this network has no anchor")
    assert isinstance(net.prior, MobileStyleGAN)
    learned = list(net.prior.heads[str(net.config.anchor_size)].parameters())
    if any(parameter.requires_grad for parameter in learned):
        raise ConfigError(
            f"train_anchor: train_prior lets that head of {net.config.anchor_size} px learn "
            f"already; leave one out, or set train_prior_above to {net.config.anchor_size // 2} "
            "or more"
        )
    for parameter in learned:
        parameter.requires_grad_(True)
    return learned


def freeze_others(net: PaniniNet, beginnings: tuple[str, ...]) -> None:
    """Fix what learns, but for parameters whose names begin so.

    Raises:
        ConfigError: A beginning fits nothing that learns.
    """
    learned = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in learned):
            parts = sorted({name.partition(".")[0] for name in learned})
            raise ConfigError(
                f"train_only: expected beginnings of what this recipe trains, under "
                f"{', '.join(parts)}; nothing begins with {beginning!r}"
            )
    for name, parameter in learned.items():
        parameter.requires_grad_(name.startswith(beginnings))


def trainable(net: PaniniNet) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(all trainable parameters but the mask MLPs', the mask MLPs')."""
    learned = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    masks = [p for name, p in learned if "mask_mlp" in name]
    return [p for name, p in learned if "mask_mlp" not in name], masks


def check_lq_size(net: PaniniNet, config: RunConfig) -> None:
    """Refuse data of another size or for another task than the network's.

    Raises:
        ConfigError: They differ.
    """
    if net.config.in_size != config.data.lq_size:
        raise ConfigError(
            f"data.lq_size: the network takes faces of {net.config.in_size} px, "
            f"got {config.data.lq_size}"
        )
    if net.config.task != config.data.task:
        raise ConfigError(
            f"data.task: the network is for {net.config.task}, got {config.data.task}"
        )


def check_validation_size(config: RunConfig, size: int) -> None:
    """Refuse validation faces of another size than what a prior draws.

    Raises:
        ConfigError: They are.
    """
    if config.validation is not None and config.validation.gt_size != size:
        raise ConfigError(
            f"validation.gt_size: the prior draws {size} px, got {config.validation.gt_size}; "
            f"set it to {size}"
        )


def check_validation_ws(config: RunConfig) -> None:
    """Refuse validation faces that come without the w that a stage learns from.

    Raises:
        ConfigError: They do.
    """
    if config.validation is None or config.validation.source.kind in KINDS_WITH_W:
        return
    raise ConfigError(
        f"validation.source.kind: this stage needs w, expected one of {', '.join(KINDS_WITH_W)}, "
        f"got {config.validation.source.kind}; name faces of the prior, or leave validation out"
    )


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, images: int, half_life: int, nimg: int) -> None:
    """Move the average towards the network; early averages are short (ramp-up).

    Parameters that the network does not train are taken to be equal already.

    Args:
        ema: The average.
        net: The network.
        images: Images of the step.
        half_life: In images.
        nimg: Images seen so far.
    """
    decay = 0.5 ** (images / max(min(half_life, nimg / 10), 1e-8))
    pairs: list[tuple[Tensor, Tensor]] = [
        (average, value)
        for average, value in zip(ema.parameters(), net.parameters(), strict=True)
        if value.requires_grad
    ]
    for average, value in zip(ema.buffers(), net.buffers(), strict=True):
        if average.is_floating_point():
            pairs.append((average, value))
        else:
            average.copy_(value)
    if pairs:
        averages, values = (list(side) for side in zip(*pairs, strict=True))
        get_ema_multi_avg_fn(decay)(averages, values, None)
