"""Stage 2, warm-up: teach latents, features and masks on faces whose w is known.

Faces of the prior come with their w, so the network can be told directly what the prior would
have done: ws in coordinates scaled by how much the prior uses them, image features and fused
features in units of the prior's own. No image is synthesised above 64 px: it is cheap.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from panini.checkpoints import load_prior, load_state, load_tensors, save_model
from panini.data import GroupBatch, to_float
from panini.errors import ConfigError
from panini.models.degradation_encoder import DegradationEncoderConfig
from panini.models.fusion import SeparableBranch
from panini.models.mobile_encoder import MobileEncoder
from panini.models.panini_net import PaniniNet
from panini.models.prior import GanPrior
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


class WarmupRunConfig(RunConfig):
    """Recipe of stage 2."""

    size: str = "mobile-mfr"
    """Named size of the network."""
    prior: Path
    """The converted prior."""
    degradation_encoder: Path
    """Weights of stage 1."""
    latent_weight: float = Field(default=1.0, ge=0)
    """Of the squared error of ws, in scaled coordinates."""
    image_weight: float = Field(default=0.5, ge=0)
    """Of the squared error of image features, in the prior's standard deviations."""
    fused_weight: float = Field(default=1.0, ge=0)
    """Of the squared error of fused features, likewise: this is what teaches the masks."""
    mask_rate: float = Field(default=3.0, gt=0)
    """Learning rate of the mask MLPs, as a factor."""


class LatentSpace(nn.Module):
    """Principal axes of w, to weigh errors by how much the prior uses each direction."""

    mean: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, prior: GanPrior, num_samples: int = 20_000, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            w = prior.mapping(torch.randn(num_samples, prior.z_dim, generator=generator))
            variance, axes = torch.linalg.eigh(torch.cov(w.T))
        # Directions that hold less than the 150th's share carry almost nothing of a face.
        floor = variance.sort(descending=True).values[min(150, len(variance) - 1)]
        self.register_buffer("mean", w.mean(0))
        self.register_buffer("axes", axes)
        self.register_buffer("scale", (variance.clamp_min(0) + floor).rsqrt())

    def error(self, ws: Tensor, w: Tensor) -> Tensor:
        """Mean squared error of ws (N, num_ws, w_dim) against w (N, w_dim), scaled."""
        return (((ws - w.unsqueeze(1)) @ self.axes) * self.scale).square().mean()


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
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_samples, net.prior.z_dim, generator=generator)
    chunks = [
        prior_features(net.prior, net.prior.broadcast(net.prior.mapping(part)))
        for part in z.split(8)
    ]
    for level in net.fusion.levels:
        branch = net.fusion.convs[str(level)]
        if isinstance(branch, SeparableBranch):
            feature = torch.cat([chunk[level] for chunk in chunks])
            branch.mean.copy_(feature.mean(dim=(0, 2, 3), keepdim=True))
            branch.std.copy_(feature.std(dim=(0, 2, 3), keepdim=True) + 1e-3)


def build_network(config: WarmupRunConfig) -> PaniniNet:
    """A network of the named size with the prior's and the DRE's weights; both are frozen."""
    torch.manual_seed(config.seed)
    try:
        net = PaniniNet.named(config.size)
    except ValueError as error:
        raise ConfigError(f"size: {error}") from error
    prior = load_prior(config.prior)
    if prior.config != net.config.prior:
        raise ConfigError(
            f"{config.prior}: a prior of {prior.config}, but {config.size} has {net.config.prior}"
        )
    net.prior.load_state_dict(prior.state_dict())
    start_from_prior(net)
    if net.config.degradation_encoder is not None:
        state, meta = load_tensors(config.degradation_encoder, kind="degradation-encoder")
        if DegradationEncoderConfig(**meta["config"]) != net.config.degradation_encoder:
            raise ConfigError(
                f"{config.degradation_encoder}: a {meta['config']} encoder, but {config.size} "
                f"has {net.config.degradation_encoder}"
            )
        load_state(net.degradation_encoder, state, config.degradation_encoder)
    return freeze(net)


class WarmupStage(Stage):
    """Network and its average."""

    def __init__(self, config: WarmupRunConfig) -> None:
        self.config = config
        self.net = build_network(config).to(config.device)
        check_lq_size(self.net, config)
        self.ema = build_network(config).to(config.device)
        self.latents = LatentSpace(self.net.prior).to(config.device)
        self.modules = {"net": self.net, "ema": self.ema}
        rest, masks = trainable(self.net)
        self.optimizers = {"net": optimizer(config, (rest, 1.0), (masks, config.mask_rate))}

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """Compare ws, image features and fused features with the prior's own."""
        lq = to_float(torch.cat([group.lq for group in batch]))
        w = torch.cat([group.w for group in batch])
        prior = self.net.prior
        with autocast(self.config):
            truth = prior_features(prior, prior.broadcast(w))
            losses = self._losses(lq, w, truth)
        loss = (
            self.config.latent_weight * losses["latent"]
            + self.config.image_weight * losses["image"]
            + self.config.fused_weight * losses["fused"]
        )
        norm = update(self.optimizers["net"], loss, self.config.clip_norm)
        update_ema(self.ema, self.net, len(lq), self.config.ema_half_life, nimg)
        return {name: value.detach() for name, value in losses.items()} | {"norm": norm}

    def _losses(self, lq: Tensor, w: Tensor, truth: dict[int, Tensor]) -> dict[str, Tensor]:
        net = self.net
        encoded = net.encoder(lq)
        masks = net.fusion.masks(net.degradation(lq))
        image_error: list[Tensor] = []
        fused_error: list[Tensor] = []

        def fuse(level: int, prior: Tensor) -> Tensor:
            image = net.fusion.image_feature(level, encoded.features[level])
            fused = net.fusion(level, prior, image, masks[level])
            deviation = truth[level].float().std(dim=(0, 2, 3), keepdim=True) + 1e-2
            # A robust error: single channels of the prior have very long tails.
            for found, errors in ((image, image_error), (fused, fused_error)):
                scaled = (found.float() - truth[level].float()) / deviation
                errors.append(nn.functional.smooth_l1_loss(scaled, torch.zeros_like(scaled)))
            return fused

        net.prior.synthesis(encoded.ws, size=2 * max(net.prior.channels), fuse=fuse)
        return {
            "latent": self.latents.error(encoded.ws.float(), w),
            "image": torch.stack(image_error).mean(),
            "fused": torch.stack(fused_error).mean(),
            "theta": masks[max(masks)].mean(),
        }

    def save(self, folder: Path, nimg: int) -> None:
        """Write the average for stage 3."""
        save_model(self.ema, folder / WEIGHTS, provenance={"warmup_images": nimg})


def train(config: WarmupRunConfig) -> None:
    """Run stage 2."""
    for group in config.data.groups:
        if group.source.kind != "prior" or group.flip:
            raise ConfigError("warm-up uses w: its groups need kind: prior and flip: false")
    fit(WarmupStage(config), config)
