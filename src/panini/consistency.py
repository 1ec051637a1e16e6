"""Back-projection: a face of super-resolution that agrees with its input once it is reduced again.

A restored face may say something else than its input about what the input does show. What is
missing is added, step by step (Irani and Peleg, 1991):

    x ← x + up(lq - down(x))

down is the reduction of the task (bilinear with antialias), up is bicubic. It is not in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 8
"""What is left of the difference after so many is mostly finer than the input's own levels."""


def back_project(images: Tensor, lq: Tensor, steps: int) -> Tensor:
    """The steps alone, which gradients pass.

    Args:
        images: Restored faces, RGB in about [-1, 1], (N, 3, S, S), or a part of them.
        lq: What they were restored from, RGB in [-1, 1], (N, 3, s, s), s at most S, or that part.
        steps: 0 leaves the faces as they are.

    Returns:
        float32, (N, 3, S, S).
    """
    # Half precision would round what is missing to a level or two of 255.
    lq, images = lq.float(), images.float()
    for _ in range(steps):
        missing = lq - reduce(images, lq.shape[-1])
        images = images + F.interpolate(missing, images.shape[-2:], mode="bicubic")
    return images


@torch.no_grad()
def project(images: Tensor, lq: Tensor, steps: int = STEPS) -> Tensor:
    """Bring restored faces to agree with their inputs.

    Args:
        images: Restored faces, RGB in about [-1, 1], (N, 3, S, S).
        lq: What they were restored from, RGB in [-1, 1], (N, 3, s, s), s at most S.
        steps: Of back-projection; 0 only clamps.

    Returns:
        float32 in [-1, 1], (N, 3, S, S).

    Raises:
        ValueError: There is no face for every input, or a face is smaller than its input.
    """
    if images.shape[:2] != lq.shape[:2] or images.shape[-1] < lq.shape[-1]:
        raise ValueError(
            f"expected faces at least as large as their inputs, got {tuple(images.shape)} of "
            f"{tuple(lq.shape)}"
        )
    images = images.float().clamp(-1, 1)
    for _ in range(steps):
        images = back_project(images, lq, 1).clamp(-1, 1)
    return images


def reduce(images: Tensor, side: int) -> Tensor:
    """Square images (N, C, S, S) at `side` px: bilinear with antialias, as the SR task reduces."""
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)
