"""Stage 1, UDRL: pre-train the degradation encoder by momentum contrast (Fig. 2, Eq. 4).

Query and key are *different* faces under the *same* degradation, so the encoder has nothing to
gain from content.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from panini.checkpoints import save_tensors
from panini.data import FaceBatches, GroupBatch, to_float
from panini.errors import ConfigError
from panini.losses import info_nce
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig, Kind
from panini.training.run import RunConfig, Stage, autocast, fit, optimizer, update

WEIGHTS = "degradation_encoder.safetensors"


class DegradationRunConfig(RunConfig):
    """Recipe of stage 1."""

    kind: Kind = "mobile"
    """Kind of the degradation encoder, see `DegradationEncoderConfig`."""
    queue_size: int = Field(default=8192, gt=0)
    """Negatives."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Of the momentum encoder."""
    temperature: float = Field(default=0.07, gt=0)
    """τ of Eq. 4."""
    calibration_images: int = Field(default=512, ge=0)
    """Faces on which v_DR is scaled at the end (mobile kind); 0 = leave it as it is."""
    crop: int | None = None
    """Contrast random crops of this side instead of whole faces: cheaper; None = whole."""


class _Contrast(torch.nn.Module):
    """Momentum encoder and queue: the part of MoCo that is not the encoder itself."""

    queue: Tensor
    pointer: Tensor

    def __init__(self, encoder: DegradationEncoder, queue_size: int, seed: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        queue = torch.randn(queue_size, encoder.config.dim, generator=generator)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def follow(self, encoder: DegradationEncoder, momentum: float) -> None:
        """Move the momentum encoder towards the encoder."""
        for ours, theirs in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            ours.lerp_(theirs, 1 - momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys, first in first out."""
        places = (int(self.pointer) + torch.arange(len(keys))) % len(self.queue)
        self.queue[places] = keys
        self.pointer.fill_((int(self.pointer) + len(keys)) % len(self.queue))


class DegradationStage(Stage):
    """Encoder, momentum encoder and queue."""

    def __init__(self, config: DegradationRunConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.encoder = DegradationEncoder(DegradationEncoderConfig(kind=config.kind))
        self.encoder.to(config.device).train()
        self.contrast = _Contrast(self.encoder, config.queue_size, config.seed).to(config.device)
        self.modules = {"encoder": self.encoder, "contrast": self.contrast}
        self.optimizers = {"encoder": optimizer(config, (list(self.encoder.parameters()), 1.0))}

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One step on pairs: faces 2k and 2k+1 share their degradation."""
        lq = to_float(torch.cat([group.lq for group in batch]))
        if self.config.crop:
            lq = _crop(lq, self.config.crop, torch.Generator().manual_seed(step))
        with autocast(self.config):
            query = F.normalize(self.encoder.project(self.encoder(lq[0::2])).float(), dim=1)
            with torch.no_grad():
                self.contrast.follow(self.encoder, self.config.momentum)
                # Shuffled, so that batch statistics cannot give the pairs away.
                order = torch.randperm(len(query), generator=torch.Generator().manual_seed(step))
                keys = self.contrast.encoder
                key = F.normalize(keys.project(keys(lq[1::2][order])).float(), dim=1)
                key = key[order.argsort()]
        loss = info_nce(query, key, self.contrast.queue, self.config.temperature)
        update(self.optimizers["encoder"], loss, self.config.clip_norm)
        rank = (query @ self.contrast.queue.T > (query * key).sum(1, keepdim=True)).float().mean()
        self.contrast.enqueue(key)
        return {"info_nce": loss.detach(), "rank": rank}

    def save(self, folder: Path, nimg: int) -> None:
        """Write the encoder."""
        meta = {"config": {"kind": self.config.kind}, "provenance": {"udrl_images": nimg}}
        state = self.encoder.state_dict()
        save_tensors(state, folder / WEIGHTS, kind="degradation-encoder", meta=meta)


def _crop(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random crop of each image, on the 8-px grid so that JPEG blocks stay in phase."""
    last = (images.shape[-1] - side) // 8
    offsets = torch.randint(0, last + 1, (len(images), 2), generator=generator) * 8
    return torch.stack(
        [
            image[:, top : top + side, left : left + side]
            for image, (top, left) in zip(images, offsets.tolist(), strict=True)
        ]
    )


@torch.no_grad()
def calibrate(encoder: DegradationEncoder, lq: Tensor, floor: float = 0.03) -> None:
    """Decorrelate and scale v_DR over degraded faces, by folding an affine map into the encoder.

    Contrast cares for angles only, and most of v_DR's variance ends up on one axis. The masks'
    MLPs learn from all axes equally fast when each has about unit variance.

    Args:
        encoder: Of the mobile kind, whose last layer is linear; `project` keeps its meaning.
        lq: Degraded faces to measure on, (N, 3, H, W) in [-1, 1]; N well above 100.
        floor: Added to each axis's standard deviation, as a share of the largest.
    """
    encoder.eval()
    last, first = encoder.pointwise, encoder.head[0]
    if not isinstance(last, nn.Conv2d) or not isinstance(first, nn.Linear) or last.bias is None:
        raise TypeError("calibrate needs an encoder that ends in a pointwise convolution")
    values = torch.cat([encoder(part) for part in lq.split(16)]).double()
    mean = values.mean(dim=0)
    covariance = (values - mean).T @ (values - mean) / len(values)
    variance, axes = torch.linalg.eigh(covariance)  # columns are axes
    deviation = variance.clamp_min(0).sqrt()
    scale = deviation + floor * deviation.max()
    first.bias.add_((first.weight.double() @ mean).float())
    first.weight.copy_(first.weight.double() @ (axes * scale))
    weight = (axes / scale).T @ last.weight[:, :, 0, 0].double()
    last.bias.copy_((axes / scale).T @ (last.bias.double() - mean))
    last.weight.copy_(weight[:, :, None, None])


def train(config: DegradationRunConfig) -> None:
    """Run stage 1.

    Raises:
        ConfigError: The groups cannot be made into pairs, or the crop does not fit the faces.
    """
    odd = [group.count for group in config.data.groups if group.count % 2]
    if odd:
        raise ConfigError(f"data.groups: pairs need even counts, got {odd[0]}")
    if config.crop and config.crop > config.data.lq_size:
        raise ConfigError(f"crop: {config.crop} px do not fit faces of {config.data.lq_size} px")
    stage = DegradationStage(config)
    fit(stage, config, paired=True)
    if config.kind == "mobile" and config.calibration_images:
        dataset = FaceBatches(config.data, config.seed + 1)
        size = sum(group.count for group in config.data.groups)
        steps = range(math.ceil(config.calibration_images / size))
        lq = torch.cat([group.lq for step in steps for group in dataset[step]])
        calibrate(stage.encoder, to_float(lq).to(config.device))
        stage.save(config.out, config.images)
