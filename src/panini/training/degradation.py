"""Stage 1, UDRL: pre-train the degradation encoder by momentum contrast (Fig. 2, Eq. 4).

Query and key are *different* faces under the *same* degradation, so the encoder has nothing to
gain from content.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from panini.checkpoints import save_tensors
from panini.data import GroupBatch, to_float
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
    fit(DegradationStage(config), config, paired=True)
