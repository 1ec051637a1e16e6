"""Interpolation between restored face and photo, band by band."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from panini.models.bands import BandsConfig, PhotoBands
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniConfig, PaniniNet, named_config
from panini.models.prior import Window

LEVELS = (128, 64, 32, 16, 8)


@pytest.fixture
def bands() -> PhotoBands:
    torch.manual_seed(0)
    config = BandsConfig(levels=LEVELS, repr_dim=8, hidden=4, initial={8: 0.9, 128: 0.1})
    return PhotoBands(config).requires_grad_(False)


def faces(side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def only(*levels: int) -> torch.Tensor:
    return torch.tensor([[float(level in levels) for level in LEVELS]] * 2)


def test_all_of_every_band_is_the_photo_and_none_the_restored_face(bands):
    restored, lq = faces(128), faces(128, seed=1)
    torch.testing.assert_close(bands(restored, lq, only(*LEVELS)), lq)
    torch.testing.assert_close(bands(restored, lq, only()), restored)


def test_a_colour_cast_is_in_the_coarsest_band_alone(bands):
    lq = faces(128)
    cast = lq + 0.3
    torch.testing.assert_close(bands(cast, lq, only(8)), lq)
    torch.testing.assert_close(bands(cast, lq, only(128, 64, 32, 16)), cast)


def test_grain_is_in_the_finest_band_alone(bands):
    lq = torch.zeros(2, 3, 128, 128)
    grain = torch.ones(128, 128)
    grain[::2] *= -1
    grain[:, ::2] *= -1
    restored = lq + 0.2 * grain
    inner = (..., slice(8, -8), slice(8, -8))
    assert bands(restored, lq, only(128))[inner].abs().max() < 1e-6
    kept = bands(restored, lq, only(64, 32, 16, 8))
    torch.testing.assert_close(kept[inner], restored[inner])


@pytest.mark.parametrize("side", [64, 256])
def test_the_restored_face_may_have_another_size_than_the_photo(bands, side):
    restored, lq = faces(side), faces(128, seed=1)
    torch.testing.assert_close(bands(restored, lq, only()), restored)
    changed = bands(restored, lq, only(*LEVELS))
    small = torch.nn.functional.avg_pool2d(changed, side // 16)
    wanted = torch.nn.functional.avg_pool2d(lq, 8)
    assert (small - wanted).abs().mean() < 0.02


def test_a_window_shows_its_part_of_the_whole(bands):
    restored, lq = faces(256), faces(128, seed=1)
    window = Window(top=16, left=32, side=32)
    shares = torch.tensor([[0.1, 0.3, 0.5, 0.7, 0.7]] * 2)
    whole = window.crop(bands(restored, lq, shares))
    part = bands(window.crop(restored), lq, shares, window)
    inner = (..., slice(48, -48), slice(48, -48))
    torch.testing.assert_close(part[inner], whole[inner], atol=1e-5, rtol=0)


def test_shares_start_where_they_were_set_and_follow_the_control(bands):
    degradation = torch.zeros(2, 8)
    shares = bands.shares(degradation)
    assert shares.shape == (2, 5)
    assert shares[0, 0] == pytest.approx(0.1, abs=0.05)
    assert shares[0, -1] == pytest.approx(0.9, abs=0.05)
    assert bool((bands.shares(degradation, FusionControl(bias=1.0)) < shares).all())
    one = bands.shares(degradation, FusionControl(bias={64: -1.0}))
    assert bool((one[:, :2] > shares[:, :2]).all()), "bands finer than 64 px follow its bias"
    assert torch.equal(one[:, 2:], shares[:, 2:])
    assert not bands.shares(degradation, FusionControl(image_gain=0.0)).any()


@pytest.mark.parametrize("levels", [(), (64, 16)])
def test_levels_halve(levels):
    with pytest.raises(ValueError, match="band levels must halve"):
        BandsConfig(levels=levels)


def test_a_network_carries_its_bands_through_json_and_learns_them():
    config = replace(named_config("tiny"), bands=BandsConfig(levels=LEVELS, initial={8: 0.9}))
    assert PaniniConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    net = PaniniNet(config)
    output = net(faces(128))
    assert output.bands is not None
    assert output.bands.shape == (2, 5)
    output.image.square().mean().backward()
    weight = net.get_parameter("bands.mask_mlp.2.weight")
    assert weight.grad is not None
    assert bool(weight.grad.any())


def test_without_bands_the_photo_stays_out():
    net = PaniniNet(named_config("tiny"))
    assert net.bands is None
    assert net(faces(128)).bands is None
