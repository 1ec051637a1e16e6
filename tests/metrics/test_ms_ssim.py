from __future__ import annotations

import pytest
import torch

from panini.metrics.ms_ssim import WEIGHTS, ms_ssim
from panini.metrics.psnr import to_levels


def pictures(spread, shape=(2, 3, 192, 181)):
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(*shape[:2], 12, 12, generator=generator) * 1.6 - 0.8
    gt = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic")
    return gt + spread * torch.randn(gt.shape, generator=generator), gt


def by_scipy(x, y):
    """The definition, one channel after the other, in float64."""
    ndimage = pytest.importorskip("scipy.ndimage")

    def blur(values):
        return ndimage.gaussian_filter(values, 1.5, truncate=3.5, axes=(1, 2))[:, 5:-5, 5:-5]

    product = 1.0
    for scale, weight in enumerate(WEIGHTS, start=1):
        u, v = blur(x), blur(y)
        structure = 2 * (blur(x * y) - u * v) + 7.65**2
        factor = structure / (blur(x * x) - u * u + blur(y * y) - v * v + 7.65**2)
        if scale == len(WEIGHTS):
            factor = factor * (2 * u * v + 2.55**2) / (u * u + v * v + 2.55**2)
        product *= max(factor.mean(), 0) ** weight
        height, width = (side // 2 * 2 for side in x.shape[1:])
        x, y = (
            z[:, :height, :width].reshape(3, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
            for z in (x, y)
        )
    return product


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_it_is_the_definition(spread):
    images, gt = (to_levels(x) for x in pictures(spread))
    for image, truth, found in zip(images, gt, ms_ssim(images.byte(), gt.byte()), strict=True):
        expected = by_scipy(image.double().numpy(), truth.double().numpy())
        assert found.item() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_agrees_with_torchmetrics_but_for_its_border(spread):
    ssim = pytest.importorskip("torchmetrics.functional.image.ssim")
    images, gt = (to_levels(x) for x in pictures(spread))
    expected = ssim.multiscale_structural_similarity_index_measure(
        images, gt, data_range=255.0, reduction="none"
    )
    found = ms_ssim(images.byte(), gt.byte())
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_another_brightness_changes_the_coarsest_luminance_alone():
    gt = torch.full((1, 3, 176, 176), 100, dtype=torch.uint8)
    c1 = 2.55**2
    luminance = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ms_ssim(gt + 20, gt).item() == pytest.approx(luminance**0.1333, abs=1e-5)


def test_equal_images_score_one_and_a_negative_scores_zero():
    _, gt = pictures(0)
    torch.testing.assert_close(ms_ssim(gt, gt), torch.ones(2))
    assert (ms_ssim(-gt, gt) == 0).all()


def test_images_too_small_for_five_scales_are_refused():
    with pytest.raises(ValueError, match="at least 176 px"):
        ms_ssim(torch.zeros(1, 3, 175, 200), torch.zeros(1, 3, 175, 200))
