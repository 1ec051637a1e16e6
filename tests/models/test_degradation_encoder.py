"""The degradation encoder of both kinds."""

from __future__ import annotations

import pytest
import torch

from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig


def build(kind: str) -> DegradationEncoder:
    torch.manual_seed(0)
    return DegradationEncoder(DegradationEncoderConfig(kind=kind)).eval()  # pyright: ignore


@pytest.mark.parametrize(("kind", "sides"), [("paper", (64, 90)), ("mobile", (64, 96))])
def test_one_vector_whatever_the_size(kind, sides):
    assert build(kind)(torch.zeros(1, 3, *sides)).shape == (1, 256)


def test_projection_is_apart_from_the_representation():
    encoder = build("mobile")
    lq = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = encoder(lq)
    projected = encoder.project(before)
    assert projected.shape == (1, 256)
    with torch.no_grad():
        encoder.head[0].weight.zero_()
    assert torch.equal(encoder(lq), before)
    assert not torch.equal(encoder.project(before), projected)


def test_noise_changes_the_representation_more_than_a_shift_of_brightness():
    encoder = build("mobile")
    generator = torch.Generator().manual_seed(0)
    smooth = torch.linspace(-0.5, 0.5, 256).expand(1, 3, 256, 256).contiguous()
    noisy = smooth + 0.2 * torch.randn(smooth.shape, generator=generator)
    plain, shifted, degraded = (encoder(x) for x in (smooth, smooth + 0.01, noisy))
    assert (degraded - plain).norm() > 3 * (shifted - plain).norm()


@pytest.mark.parametrize("kind", ["paper", "mobile"])
def test_every_weight_gets_a_gradient(kind):
    encoder = build(kind).train()
    lq = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    encoder.project(encoder(lq)).square().sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("mobile", (1, 3, 64, 66)), ("paper", (1, 1, 64, 64)), ("paper", (3, 64, 64))],
)
def test_an_image_that_does_not_fit_is_refused(kind, shape):
    with pytest.raises(ValueError, match="expected lq of shape"):
        build(kind)(torch.zeros(shape))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'huge'"):
        DegradationEncoderConfig(kind="huge")  # pyright: ignore


def test_the_mobile_kind_is_light():
    assert sum(p.numel() for p in build("mobile").parameters()) < 600_000
