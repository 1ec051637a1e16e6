from __future__ import annotations

import math

import pytest
import torch

from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config
from panini.peers.latents import Styles, geocross, layers_seen, on_sphere


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_standard_normal_vectors_become_styles_of_the_prior(net) -> None:
    styles = Styles.of(net.prior, seeded())
    made = styles(torch.randn(8192, 32, generator=seeded(1)))
    mapped = net.prior.mapping(torch.randn(8192, 32, generator=seeded(2)))
    scale = mapped.std(dim=0).mean()
    assert (made.mean(dim=0) - mapped.mean(dim=0)).abs().max() < 0.15 * scale
    assert (made.T.cov() - mapped.T.cov()).norm() < 0.25 * mapped.T.cov().norm()


def test_styles_hang_on_the_generator_alone(net) -> None:
    one, again, other = (Styles.of(net.prior, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.mean, again.mean)
    assert not torch.equal(one.mean, other.mean)


def test_sphere_keeps_the_direction() -> None:
    u = torch.tensor([[3.0, 0.0, 0.0, 4.0]])
    assert torch.allclose(on_sphere(u), torch.tensor([[1.2, 0.0, 0.0, 1.6]]))


def test_geocross_is_the_mean_squared_angle() -> None:
    right = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
    assert geocross(right).item() == pytest.approx(math.pi**2 / 8, rel=1e-5)
    sixty = torch.tensor([[[1.0, 0.0], [0.5, 0.75**0.5]]])
    assert geocross(torch.cat([sixty, sixty / 2])).tolist() == pytest.approx(
        [math.pi**2 / 18] * 2, rel=1e-5
    )


def test_geocross_of_equal_vectors_is_nothing_and_has_a_slope() -> None:
    u = torch.ones(1, 3, 4, requires_grad=True)
    value = geocross(u)
    assert value.item() < 1e-8
    (slope,) = torch.autograd.grad(value.sum(), u)
    assert slope.isfinite().all()


def test_layers_seen_are_those_up_to_the_size(net) -> None:
    # One for the first convolution, three a block; the last head alone reads the last one.
    assert [layers_seen(net.prior, size) for size in (8, 32, 64, 128)] == [1, 7, 10, 14]


def test_layers_seen_of_stylegan2() -> None:
    torch.manual_seed(0)
    prior = StyleGAN2(StyleGAN2Config(size=32, style_dim=16, mapping_layers=2))
    with torch.inference_mode():
        assert [layers_seen(prior, size) for size in (8, 32)] == [4, 8]
