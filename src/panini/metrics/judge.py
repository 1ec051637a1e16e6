"""All metrics of a restored face at once, and the frozen networks behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from panini.errors import CheckpointError
from panini.features.identity import IdentityNet, load_identity
from panini.metrics.lpips import LPIPS, load_lpips
from panini.metrics.psnr import psnr
from panini.metrics.sharpness import sharpness
from panini.metrics.ssim import ssim

WEIGHTS = ("vgg16_caffe.safetensors", "lpips_vgg_heads.safetensors", "face_identity.safetensors")
"""Files of the frozen networks that `load_judge` reads."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One image against its truth."""

    psnr: float
    """dB, 8 bits; at most 100, so that equal images do not make a mean infinite."""
    ssim: float
    lpips: float
    identity: float
    """Distance of the face descriptors."""
    sharpness: float
    """Share of spectral energy above a quarter of Nyquist."""


METRICS = tuple(field.name for field in fields(Scores))


class Judge:
    """The metrics, and the frozen networks behind them."""

    def __init__(self, lpips: LPIPS, identity: IdentityNet) -> None:
        self.lpips = lpips
        self.identity = identity

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.identity.mean.device

    def to(self, device: torch.device | str) -> Judge:
        """Move the networks."""
        self.lpips.to(device)
        self.identity.to(device)
        return self

    @torch.no_grad()
    def __call__(self, gt: Tensor, *candidates: Tensor) -> list[list[Scores]]:
        """Compare batches with the truth.

        Args:
            gt: RGB in [-1, 1], (N, 3, S, S).
            candidates: The same for what is compared, any number.

        Returns:
            For every candidate its N scores.
        """
        features, descriptors = self.lpips.features(gt), self.identity.describe(gt)
        results = []
        for images in candidates:
            columns = (
                psnr(images, gt).clamp(max=100),
                ssim(images, gt),
                self.lpips.distance(self.lpips.features(images), features),
                (self.identity.describe(images) - descriptors).norm(dim=1),
                sharpness(images),
            )
            rows = torch.stack(columns, dim=1).tolist()
            results.append([Scores(**dict(zip(METRICS, row, strict=True))) for row in rows])
        return results


def load_judge(folder: str | Path, device: torch.device | str = "cpu") -> Judge:
    """The metrics' frozen networks from a folder with the files `WEIGHTS`.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    folder = Path(folder)
    missing = [name for name in WEIGHTS if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder / missing[0]}: no such file; the metrics need {', '.join(WEIGHTS)} in one "
            "folder: name it with --metrics-dir"
        )
    vgg, heads, identity = (folder / name for name in WEIGHTS)
    return Judge(load_lpips(vgg, heads), load_identity(identity)).to(device)


def mean_scores(scores: Sequence[Scores]) -> dict[str, float]:
    """Mean of every metric."""
    return {name: float(np.mean([getattr(score, name) for score in scores])) for name in METRICS}
