"""Training objectives as functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE (Eq. 4): pick the positive key among the positive and the queue.

    Args:
        query: L2-normalised, (N, D).
        key: L2-normalised positives, (N, D).
        queue: L2-normalised negatives, (K, D).
        temperature: τ.

    Returns:
        Mean loss, a scalar.
    """
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, query @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


def degradation_numbers(
    told: Tensor, params: Tensor, shares: Sequence[float] = (1, 1, 1, 1)
) -> Tensor:
    """How far four numbers told of each image are from the truth of Eq. 10, smooth L1.

    Args:
        told: (N, 4): blur σ, log2 of the downsampling rate, noise, JPEG quality, each less the
            middle of its usual range and divided by about a third of that range.
        params: The truth, (N, 4): the fields of `DegradationParams`.
        shares: What each of the four counts.

    Returns:
        Mean loss, a scalar.
    """
    sigma, rate, noise, jpeg = params.unbind(1)
    columns = zip((sigma, rate.log2(), noise, jpeg), _NUMBERS, strict=True)
    truth = torch.stack([(column - middle) / scale for column, (middle, scale) in columns], dim=1)
    return sum(
        (
            share / len(shares) * F.smooth_l1_loss(found, true)
            for share, found, true in zip(
                shares, told.unbind(1), truth.to(told.dtype).unbind(1), strict=True
            )
        ),
        told.new_zeros(()),
    )


_NUMBERS = ((2.25, 1.3), (3.5, 1.2), (7.5, 4.3), (72.0, 13.0))
"""Middle and scale of each."""


def generator_adversarial(fake_logits: Tensor) -> Tensor:
    """Vanilla adversarial loss of the generator, non-saturating (Goodfellow et al. 2014)."""
    return F.softplus(-fake_logits).mean()


def discriminator_adversarial(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Vanilla adversarial loss of the discriminator: binary cross-entropy of real and fake."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real: Tensor, real_logits: Tensor) -> Tensor:
    """Squared gradient of the discriminator at real images (Mescheder et al. 2018), mean over N.

    Args:
        real: Images that require grad, (N, 3, H, W).
        real_logits: The discriminator's output for them.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
