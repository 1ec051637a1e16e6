"""Losses against their formulas, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from panini.losses import (
    discriminator_adversarial,
    generator_adversarial,
    info_nce,
    r1_penalty,
)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_info_nce_is_the_softmax_of_eq_4():
    query, key, queue = unit(3, 8, seed=0), unit(3, 8, seed=1), unit(5, 8, seed=2)
    temperature = 0.2
    losses = []
    for q, k in zip(query.tolist(), key.tolist(), strict=True):

        def similarity(other, q=q):
            return math.exp(sum(a * b for a, b in zip(q, other, strict=True)) / temperature)

        positive = similarity(k)
        negatives = sum(similarity(other) for other in queue.tolist())
        losses.append(-math.log(positive / (positive + negatives)))
    found = info_nce(query, key, queue, temperature)
    assert found.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_info_nce_of_indistinguishable_keys_is_the_logarithm_of_their_number():
    query = unit(2, 8, seed=0)
    same = unit(1, 8, seed=1)
    found = info_nce(query, same.expand(2, -1), same.expand(9, -1), 0.07)
    assert found.item() == pytest.approx(math.log(10), rel=1e-5)


def test_info_nce_pulls_the_query_to_its_key_and_from_the_queue():
    query = unit(1, 8, seed=0).requires_grad_()
    key, queue = unit(1, 8, seed=1), unit(4, 8, seed=2)
    info_nce(query, key, queue, 0.1).backward()
    step = -query.grad[0]
    share = F.softmax((query @ torch.cat([key, queue]).T).detach() / 0.1, dim=1)[0]
    expected = (key[0] - share @ torch.cat([key, queue])) / 0.1
    torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-5)


def test_generator_loss_is_the_logarithm_of_being_believed():
    logits = torch.tensor([[0.0], [2.0], [-3.0]])
    expected = -sum(math.log(1 / (1 + math.exp(-x))) for x in (0.0, 2.0, -3.0)) / 3
    assert generator_adversarial(logits).item() == pytest.approx(expected, rel=1e-6)


def test_discriminator_loss_is_the_cross_entropy_of_real_and_fake():
    real, fake = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(2, 1))
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(2, 1))
    torch.testing.assert_close(discriminator_adversarial(real, fake), expected)


def test_adversarial_losses_stay_finite_at_large_logits():
    extreme = torch.tensor([[-1e4], [1e4]])
    assert generator_adversarial(extreme).item() == pytest.approx(5e3)
    assert discriminator_adversarial(extreme, extreme).item() == pytest.approx(1e4)


def test_r1_is_the_squared_gradient_at_real_images():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    weight = torch.randn(3, 4, 4, generator=generator, requires_grad=True)
    # D(x) = ½ Σ w x², whose gradient is w x.
    logits = 0.5 * (weight * real.square()).sum(dim=(1, 2, 3)).unsqueeze(1)
    penalty = r1_penalty(real, logits)
    expected = (weight * real).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty, expected)
    # It can be trained on: d/dw of mean Σ (w x)² is 2 w mean x².
    penalty.backward()
    expected = 2 * weight * real.square().sum(dim=0) / 2
    torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-5)
