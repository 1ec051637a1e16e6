"""Stage 2, warm-up: teach latents, features and masks on faces whose w is known.

Faces of the prior come with their w, so the network can be told directly what the prior would
have done: ws in coordinates scaled by how much the prior uses them, image features and fused
features in units of the prior's own. No image is synthesised above 64 px: it is cheap.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from panini.checkpoints import save_model
from panini.data import GroupBatch, to_float
from panini.errors import ConfigError
from panini.models.panini_net import PaniniNet
from panini.models.prior import GanPrior
from panini.training.inputs import check_inputs
from panini.training.network import (
    KINDS_WITH_W,
    WEIGHTS,
    FusionMethod,
    StartConfig,
    TransferConfig,
    build_network,
    check_lq_size,
    check_validation_ws,
    prior_features,
    trainable,
    update_ema,
)
from panini.training.run import Engine, RunConfig, Stage, fit


class WarmupRunConfig(RunConfig):
    """Recipe of stage 2."""

    size: str = "mobile-mfr"
    """Named size of the network."""
    fusion_method: FusionMethod = "dafi"
    """How its two sources are joined; all but "dafi" are there to compare with."""
    prior: Path
    """The converted prior, a network that has it, or a shipped model's name."""
    degradation_encoder: Path | None = None
    """Weights of stage 1; None for sizes that have no degradation encoder."""
    transfer: TransferConfig | None = None
    """Where else the network starts from; None = nowhere, as in the paper."""
    latent_weight: float = Field(default=1.0, ge=0)
    """Of the squared error of ws, in scaled coordinates."""
    image_weight: float = Field(default=0.5, ge=0)
    """Of the squared error of image features, in the prior's standard deviations."""
    fused_weight: float = Field(default=1.0, ge=0)
    """Of the squared error of fused features, likewise: this is what teaches the masks."""
    mask_rate: float = Field(default=3.0, gt=0)
    """Learning rate of the mask MLPs, as a factor."""

    @property
    def judgement(self) -> dict[str, object]:
        """The sum of the losses decides."""
        names = ("latent_weight", "image_weight", "fused_weight")
        return super().judgement | {name: getattr(self, name) for name in names}

    @property
    def beginning(self) -> dict[str, object]:
        """The weights that it begins with."""
        return {"start": self.start}

    @property
    def start(self) -> StartConfig:
        """What the network is made of."""
        return StartConfig(
            size=self.size,
            fusion_method=self.fusion_method,
            prior=self.prior,
            degradation_encoder=self.degradation_encoder,
            transfer=self.transfer,
        )


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


class WarmupStage(Stage):
    """Network and its average."""

    def __init__(self, config: WarmupRunConfig) -> None:
        self.config = config
        self.engine = Engine(config)
        self.net = build_network(config.start, config.seed)
        check_lq_size(self.net, config)
        self.ema = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.latents = LatentSpace(self.net.prior).to(self.engine.device)
        for net in (self.net, self.ema):
            net.to(self.engine.device)
            self.engine.place(net.encoder)
        self.modules = {"net": self.net, "ema": self.ema}
        rest, masks = trainable(self.net)
        self.engine.add_optimizer("net", (rest, 1.0), (masks, config.mask_rate))

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """Compare ws, image features and fused features with the prior's own."""
        with self.engine.section("forward"):
            losses = self._losses(self.net, batch)
            loss = self._sum(losses)
        norm = self.engine.update("net", loss)
        if self.engine.stepping:
            images = self.engine.images_a_step
            update_ema(self.ema, self.net, images, self.config.ema_half_life, nimg)
        return {name: value.detach() for name, value in losses.items()} | {"norm": norm}

    @torch.no_grad()
    def validate(self, batch: list[GroupBatch]) -> dict[str, Tensor]:
        """The average's losses; their sum decides."""
        losses = self._losses(self.ema, batch)
        return {"loss": self._sum(losses)} | losses

    def _sum(self, losses: dict[str, Tensor]) -> Tensor:
        return (
            self.config.latent_weight * losses["latent"]
            + self.config.image_weight * losses["image"]
            + self.config.fused_weight * losses["fused"]
        )

    def _losses(self, net: PaniniNet, batch: list[GroupBatch]) -> dict[str, Tensor]:
        lq = to_float(torch.cat([group.lq for group in batch]))
        w = torch.cat([group.w for group in batch])
        with self.engine.autocast():
            truth = prior_features(net.prior, net.prior.broadcast(w))
            return self._compare(net, lq, w, truth)

    def _compare(
        self, net: PaniniNet, lq: Tensor, w: Tensor, truth: dict[int, Tensor]
    ) -> dict[str, Tensor]:
        encoded = net.encoder(lq)
        masks = net.fusion.masks(net.degradation(lq))
        image_error: list[Tensor] = []
        fused_error: list[Tensor] = []

        def fuse(level: int, prior: Tensor) -> Tensor:
            if level not in net.fusion.levels:
                return prior
            image = net.fusion.image_feature(level, encoded.features[level])
            fused = net.fusion(level, prior, image, masks.get(level))
            deviation = truth[level].float().std(dim=(0, 2, 3), keepdim=True) + 1e-2
            # A robust error: single channels of the prior have very long tails.
            for found, errors in ((image, image_error), (fused, fused_error)):
                if not found.numel():  # latent codes alone use no image feature
                    continue
                scaled = (found.float() - truth[level].float()) / deviation
                errors.append(nn.functional.smooth_l1_loss(scaled, torch.zeros_like(scaled)))
            return fused

        net.prior.synthesis(encoded.ws, size=2 * max(net.prior.channels), fuse=fuse)
        figures = {
            "latent": self.latents.error(encoded.ws.float(), w),
            "image": torch.stack(image_error).mean() if image_error else lq.new_zeros(()),
            "fused": torch.stack(fused_error).mean(),
        }
        return figures | ({"theta": masks[max(masks)].mean()} if masks else {})

    def save(self, folder: Path, nimg: int) -> None:
        """Write the average for stage 3."""
        save_model(self.ema, folder / WEIGHTS, provenance={"warmup_images": nimg})


def train(config: WarmupRunConfig) -> bool:
    """Run stage 2; returns whether it is at its end."""
    groups = config.data.groups
    if any(g.flip or g.colour_jitter or g.source.kind not in KINDS_WITH_W for g in groups):
        raise ConfigError(
            "warm-up uses w: its groups need kind: prior or prior_live, and flip: false, and no "
            "colour_jitter"
        )
    check_validation_ws(config)
    check_inputs(config)
    return fit(WarmupStage(config), config)
