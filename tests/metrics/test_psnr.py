from __future__ import annotations

import math

import pytest
import torch

from panini.metrics.psnr import psnr, psnr_peak1, to_levels


def pair(seed=0, spread=0.1):
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 3, 24, 20, generator=generator) * 2 - 1
    return (gt + spread * torch.randn(gt.shape, generator=generator)).clamp(-1, 1), gt


def test_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    restored, gt = (to_levels(x).byte() for x in pair())
    for index, value in enumerate(psnr(restored, gt)):
        expected = metrics.peak_signal_noise_ratio(gt[index].numpy(), restored[index].numpy())
        assert value.item() == pytest.approx(expected, abs=1e-3)


def test_floats_count_as_the_bytes_that_would_be_stored():
    restored, gt = pair()
    stored = psnr(to_levels(restored).byte(), to_levels(gt).byte())
    torch.testing.assert_close(psnr(restored, gt), stored)
    # Less than half a level is lost in storing.
    assert torch.isinf(psnr(gt, to_levels(gt) / 127.5 - 1)).all()


def test_peak_one_is_six_decibels_lower():
    restored, gt = pair()
    difference = psnr(restored, gt) - psnr_peak1(restored, gt)
    torch.testing.assert_close(difference, torch.full((2,), 20 * math.log10(2)), atol=0.02, rtol=0)


def test_peak_one_by_hand():
    gt = torch.full((1, 3, 2, 2), -0.5)
    restored = gt.clone()
    restored[0, 0] += 0.2
    # A third of the values are off by 0.2 of a peak of 1, though the values span 2.
    assert psnr_peak1(restored, gt).item() == pytest.approx(10 * math.log10(1 / (0.04 / 3)))
    # Black against white, the worst there is on [-1, 1]: the error is 4, the peak 1.
    white, black = torch.ones(1, 3, 2, 2), -torch.ones(1, 3, 2, 2)
    assert psnr_peak1(white, black).item() == pytest.approx(10 * math.log10(1 / 4))
    assert psnr(white, black).item() == pytest.approx(0, abs=1e-5)


def test_peak_one_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    restored, gt = pair()
    for index, value in enumerate(psnr_peak1(restored, gt)):
        images = gt[index].double().numpy(), restored[index].double().numpy()
        expected = metrics.peak_signal_noise_ratio(*images, data_range=1)
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="expected `restored` and `gt` of one shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
