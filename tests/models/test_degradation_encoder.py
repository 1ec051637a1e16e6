"""The degradation encoder of both kinds."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from panini.models.degradation_encoder import (
    DegradationEncoder,
    DegradationEncoderConfig,
    _block_frequencies,
    _frequencies,
)


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


def test_frequencies_are_those_of_jpeg():
    """A cosine alone lights its own channel of luma, and no other."""
    for down, right in ((0, 3), (5, 0), (7, 6)):
        y, x = (torch.arange(16.0) + 0.5 for _ in range(2))
        wave = torch.cos(torch.pi / 8 * down * y)[:, None] * torch.cos(torch.pi / 8 * right * x)
        found = _block_frequencies((wave * 40 / 127.5).expand(1, 3, 16, 16))
        assert found.shape == (1, 96, 2, 2)
        lit = found.abs().amax(dim=(0, 2, 3)) > 1e-3
        assert lit.nonzero().flatten().tolist() == [8 * down + right]
        # The transform is orthonormal: a cosine of 40 levels, of 2 a side or √8 where it is 1.
        size = 40 * (2 if down else 8**0.5) * (2 if right else 8**0.5)
        assert found.abs().max().item() == pytest.approx(size / (size + 4), rel=1e-4)


def test_coarse_frequencies_are_those_of_the_image_at_a_quarter():
    lq = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = _frequencies(lq)
    assert found.shape == (1, 192, 8, 12)
    coarse = _block_frequencies(F.avg_pool2d(lq, 4))
    torch.testing.assert_close(found[:, 96:, ::4, ::4], coarse)
    torch.testing.assert_close(found[:, 96:, 3::4, 1::4], coarse)


def test_noise_is_seen_beside_a_face_a_thousand_times_larger():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.linspace(-0.9, 0.9, 64).expand(1, 3, 64, 64).contiguous()
    noise = torch.randn(smooth.shape, generator=generator) * 3 / 127.5
    plain, noisy = (_frequencies(lq).abs()[:, 63] for lq in (smooth, smooth + noise))
    assert plain.max() < 0.02 < 0.1 < noisy.mean()


@pytest.mark.parametrize("kind", ["paper", "mobile"])
def test_every_weight_gets_a_gradient(kind):
    encoder = build(kind).train()
    lq = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    encoder.project(encoder(lq)).square().sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("mobile", (1, 3, 64, 72)),
        ("paper", (1, 1, 64, 64)),
        ("paper", (3, 64, 64)),
    ],
)
def test_an_image_that_does_not_fit_is_refused(kind, shape):
    with pytest.raises(ValueError, match="expected lq of shape"):
        build(kind)(torch.zeros(shape))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'huge'"):
        DegradationEncoderConfig(kind="huge")  # pyright: ignore


def test_the_mobile_kind_is_light():
    assert sum(p.numel() for p in build("mobile").parameters()) < 700_000
