from __future__ import annotations

import pytest
import torch

from panini.metrics.psnr import to_levels
from panini.metrics.ssim import ssim


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_agrees_with_scikit_image(spread):
    metrics = pytest.importorskip("skimage.metrics")
    generator = torch.Generator().manual_seed(1)
    rows = torch.linspace(-0.9, 0.9, 40)[:, None].expand(2, 3, 40, 33)
    noise = [spread * torch.randn(rows.shape, generator=generator) for _ in range(2)]
    restored, gt = (to_levels(rows + n).byte() for n in noise)
    for index, value in enumerate(ssim(restored, gt)):
        expected = metrics.structural_similarity(
            gt[index].numpy(),
            restored[index].numpy(),
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_equal_images_score_one():
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-6)


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
