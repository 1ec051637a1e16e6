"""The last part of a batch, on the training device: live priors and degradations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from panini.data.batch import RawGroup, jitter, recolour, resize_batch, to_float
from panini.data.config import DataConfig, GroupConfig
from panini.data.sources import load_live_prior
from panini.degradations import DegradationParams, degrade_batch
from panini.models.prior import GanPrior

LIVE_CHUNK = 8
"""Faces that a live prior draws at a time."""


class GroupBatch(NamedTuple):
    """One group's part of a batch, on the training device."""

    lq: Tensor
    """Degraded faces, uint8 (count, 3, lq_size, lq_size); (0,) for the task none."""
    gt: Tensor
    """Truth, uint8 (count, 3, gt_size, gt_size)."""
    w: Tensor
    """(count, w_dim) float32; (count, 0) where the source is no prior."""
    params: Tensor
    """What was done to each face, float64 (count, 4): the fields of `DegradationParams`; (0, 4)
    for the other tasks."""


class Finisher:
    """Brings what the workers leave to the device and does what they left to it.

    Args:
        config: What a batch is made of.
        seed: Of the live faces and of the noise.
        device: Where to train.

    Raises:
        CheckpointError: A live prior cannot be loaded.
    """

    def __init__(self, config: DataConfig, seed: int, device: torch.device | str) -> None:
        self.config = config
        self.seed = seed
        self.device = torch.device(device)
        self.priors = [
            load_live_prior(group.source.paths[0]).requires_grad_(False).to(self.device)
            if group.source.kind == "prior_live"
            else None
            for group in config.groups
        ]

    @torch.no_grad()
    def __call__(self, raw: Sequence[RawGroup], key: tuple[int, ...]) -> list[GroupBatch]:
        """Finish a batch.

        Args:
            raw: Of `FaceBatches`.
            key: Makes this batch's random numbers its own: step, part of the step, process.
        """
        parts = zip(self.config.groups, self.priors, raw, strict=True)
        return [
            self._group(group, prior, part, (*key, index))
            for index, (group, prior, part) in enumerate(parts)
        ]

    def _group(
        self, group: GroupConfig, prior: GanPrior | None, raw: RawGroup, key: tuple[int, ...]
    ) -> GroupBatch:
        # Some devices have no float64.
        parts = (raw.lq, raw.gt, raw.w, raw.params.float())
        lq, gt, w, params = (part.to(self.device, non_blocking=True) for part in parts)
        if prior is not None:
            gt, w = self._draw(group, prior, np.random.default_rng([self.seed, *key, 0]))
        by_device = prior is not None or self.config.degrade_on == "device"
        if by_device and self.config.task != "none":
            seed = np.random.SeedSequence([self.seed, *key, 1]).generate_state(1)[0]
            lq = self._degrade(gt, raw.params, int(seed))
        return GroupBatch(lq, gt, w, params)

    def _draw(
        self, group: GroupConfig, prior: GanPrior, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """New faces of a prior, uint8 (count, 3, gt_size, gt_size), and their w."""
        z = generator.standard_normal((group.count, prior.z_dim), np.float32)
        psi = generator.uniform(group.source.truncation, 1, (group.count, 1)).astype(np.float32)
        mirrored = generator.random((group.count, 1, 1, 1)) < 0.5 * group.flip
        z, psi, mirrored = (
            torch.from_numpy(part).to(self.device, non_blocking=True) for part in (z, psi, mirrored)
        )
        w = prior.w_avg + psi * (prior.mapping(z) - prior.w_avg)
        parts = [prior.synthesis(prior.broadcast(part)) for part in w.split(LIVE_CHUNK)]
        faces = torch.cat([resize_batch(part, group.gt_size) for part in parts])
        faces = to_levels(torch.where(mirrored, faces.flip(-1), faces))
        if group.colour_jitter:
            factors = jitter(group.colour_jitter, generator, group.count).astype(np.float32)
            faces = recolour(faces, torch.from_numpy(factors).to(self.device))
        return faces, w

    def _degrade(self, gt: Tensor, params: Tensor, seed: int) -> Tensor:
        """Degraded faces, uint8, of whole ones."""
        faces = to_float(gt)
        size = self.config.lq_size
        if self.config.task == "sr16":
            small = F.interpolate(faces, (size, size), mode="bilinear", antialias=True)
            return to_levels(small)
        entries = [
            DegradationParams(sigma=sigma, rate=rate, noise=noise, jpeg=int(jpeg))
            for sigma, rate, noise, jpeg in params.tolist()
        ]
        generator = torch.Generator(self.device).manual_seed(seed)
        faces = to_float(to_levels(resize_batch(faces, size)))
        return to_levels(degrade_batch(faces, entries, generator))


def to_levels(images: Tensor) -> Tensor:
    """Float in [-1, 1], clamped → uint8 0..255; the inverse of `to_float`."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
