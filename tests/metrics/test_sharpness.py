from __future__ import annotations

import math

import pytest
import torch

from panini.metrics.sharpness import sharpness


def wave(cycles_per_pixel, size=128):
    steps = torch.arange(size) * (2 * math.pi * cycles_per_pixel)
    return torch.sin(steps).expand(1, 3, size, size)


@pytest.mark.parametrize(("frequency", "expected"), [(0.03, 0.0), (0.09, 0.0), (0.16, 1.0)])
def test_a_wave_counts_on_its_side_of_a_quarter_of_nyquist(frequency, expected):
    assert sharpness(wave(frequency)).item() == pytest.approx(expected, abs=0.01)


def test_brightness_contrast_and_flat_images_do_not_count():
    image = wave(0.05) + 0.5 * wave(0.3)
    value = sharpness(image)
    assert 0.1 < value.item() < 0.3
    torch.testing.assert_close(sharpness(0.3 * image + 0.4), value, atol=1e-3, rtol=0)
    assert sharpness(torch.full((1, 3, 64, 64), 0.3)).item() < 1e-3


def test_blur_takes_sharpness_away():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert sharpness(torch.nn.functional.avg_pool2d(image, 3, 1, 1)) < 0.8 * sharpness(image)


def test_grey_batches_are_refused():
    with pytest.raises(ValueError, match="expected RGB"):
        sharpness(torch.zeros(1, 1, 8, 8))
