"""Every per-face metric of restored faces; what hangs on the truth alone is computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from panini.data import resize_batch
from panini.degradations import bilinear_antialias
from panini.evaluation.cases import Case
from panini.evaluation.plan import FULL_SIZE, GRID, SR16_ONLY, Plan
from panini.evaluation.systems import Drawn
from panini.images import RgbImage, to_tensor, to_uint8
from panini.metrics.grid import grid_amplitude
from panini.metrics.judge import MOST_DB, Judge
from panini.metrics.psnr import psnr, stored
from panini.metrics.sharpness import sharpness


class Scorer:
    """The metrics of a plan.

    Args:
        plan: Says which.
        judge: Those that compare with the truth at the plan's size.
    """

    def __init__(self, plan: Plan, judge: Judge) -> None:
        self.plan = plan
        self.judge = judge

    def tensor(self, images: Sequence[RgbImage]) -> Tensor:
        """(N, 3, S, S) in [-1, 1] on the metrics' device."""
        return torch.cat([to_tensor(image) for image in images]).to(self.plan.device)

    @torch.inference_mode()
    def __call__(
        self, cases: Sequence[Case], drawn: Sequence[Drawn]
    ) -> tuple[list[list[dict[str, float]]], list[float]]:
        """Score what would be written: clamped, and 8 bits, but for the lattice.

        That is measured before the rounding, which hides lattices of less than a level in some
        faces and not in others.

        Args:
            cases: N of them.
            drawn: What each system made of them.

        Returns:
            For each system, N times metric → value; and the sharpness of the N truths.
        """
        truths = [self.tensor([case.gt]) for case in cases]
        gt = torch.cat([resize_batch(truth, self.plan.size) for truth in truths])
        images = [stored(one.image) for one in drawn]
        rows = self._judged(gt, [resize_batch(image, self.plan.size) for image in images])
        for own, one, image in zip(rows, drawn, images, strict=True):
            if GRID in self.plan.wanted:
                for scores, value in zip(
                    own, grid_amplitude(one.image.clamp(-1, 1)).tolist(), strict=True
                ):
                    scores[GRID] = value
            if any(name in self.plan.wanted for name in SR16_ONLY):
                for scores, case, truth, face in zip(own, cases, truths, image, strict=True):
                    scores |= self._at_full_size(case, truth, face[None])
        return rows, sharpness(gt).tolist()

    def _judged(self, gt: Tensor, images: Sequence[Tensor]) -> list[list[dict[str, float]]]:
        if not self.judge.metrics:
            return [[{} for _ in gt] for _ in images]
        return [
            [{name: getattr(found, name) for name in self.judge.metrics} for found in scores]
            for scores in self.judge(gt, *images)
        ]

    def _at_full_size(self, case: Case, truth: Tensor, image: Tensor) -> dict[str, float]:
        found: dict[str, float] = {}
        if FULL_SIZE in self.plan.wanted:
            found[FULL_SIZE] = _decibels(resize_batch(image, truth.shape[-1]), truth)
        if "faithfulness" in self.plan.wanted:
            (face,) = to_uint8(image)
            again = to_tensor(bilinear_antialias(face, case.lq.shape[0]))
            found["faithfulness"] = _decibels(again, to_tensor(case.lq))
        return found


def thetas(drawn: Drawn, count: int) -> list[float]:
    """θ of so many faces; NaN where the system has none."""
    return [math.nan] * count if drawn.theta is None else drawn.theta.float().tolist()


def _decibels(image: Tensor, truth: Tensor) -> float:
    return psnr(image, truth).clamp(max=MOST_DB).item()
