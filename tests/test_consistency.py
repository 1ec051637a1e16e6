"""Back-projection: faces that agree with their inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panini.consistency import back_project, project, reduce
from panini.degradations import downscale16
from panini.images import to_tensor
from panini.metrics.psnr import psnr
from panini.models.prior import Window


@pytest.fixture(scope="module")
def texture():
    """A picture with detail at all scales, 256 px, and its reduction to 16 px."""
    generator = np.random.default_rng(0)
    levels = np.full((256, 256, 3), 128.0)
    for side in (8, 32, 64, 256):
        grain = generator.normal(0, 20, (side, side, 3))
        levels += grain.repeat(256 // side, 0).repeat(256 // side, 1)
    image = levels.clip(0, 255).astype(np.uint8)
    return to_tensor(image), to_tensor(downscale16(image))


def test_the_reduction_is_that_of_the_task(texture):
    image, lq = texture
    # Pillow rounds between its two passes.
    assert (reduce(image, 16) - lq).abs().max() < 1.5 / 127.5


def test_a_face_that_agrees_stays_as_it_is(texture):
    image, _ = texture
    assert torch.equal(project(image, reduce(image, 16)), image)
    torch.testing.assert_close(
        project(2 * image, reduce(image, 16), steps=0), (2 * image).clamp(-1, 1)
    )


def test_each_step_brings_the_face_nearer(texture):
    image, lq = texture
    wrong = (0.5 * image.flip(-1) + 0.3).clamp(-1, 1)
    found = [psnr(reduce(project(wrong, lq, steps), 16), lq).item() for steps in (0, 1, 2, 4, 8)]
    assert found == sorted(found)
    assert found[0] < 20
    assert found[-1] > 40


def test_detail_that_the_input_does_not_show_is_kept(texture):
    image, lq = texture
    grain = 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    fine = grain - torch.nn.functional.avg_pool2d(grain, 31, 1, 15, count_include_pad=False)
    base = torch.nn.functional.interpolate(lq, (256, 256), mode="bicubic").clamp(-0.7, 0.7)
    kept = project(base + fine, lq) - project(base, lq)
    assert torch.corrcoef(torch.stack([kept.flatten(), fine.flatten()]))[0, 1] > 0.97


def test_faces_and_inputs_that_do_not_belong_together(texture):
    image, lq = texture
    with pytest.raises(
        ValueError, match=r"at least as large as their inputs, got \(1, 3, 16, 16\)"
    ):
        project(lq, image)
    with pytest.raises(ValueError, match="at least as large"):
        project(image.repeat(2, 1, 1, 1), lq)


def test_gradients_pass_the_steps_but_not_what_they_replace(texture):
    image, lq = texture
    face = image.clone().requires_grad_()
    back_project(face, lq, steps=8).mean().backward()
    assert face.grad is not None
    # Its mean is the input's: a face that is brighter all over changes nothing.
    assert face.grad.abs().max() > 0
    assert abs(face.grad.sum()) < 1e-4


def test_a_window_is_projected_as_the_whole_is(texture):
    image, lq = texture
    wrong = (0.5 * image.flip(-1) + 0.3).clamp(-1, 1)
    window = Window(top=4, left=2, side=10, level=16)
    whole = window.crop(back_project(wrong, lq, steps=1))
    part = back_project(window.crop(wrong), window.crop(lq), steps=1)
    # Three cells at the edge see what is beyond it.
    inner = (..., slice(48, -48), slice(48, -48))
    torch.testing.assert_close(part[inner], whole[inner], atol=1e-5, rtol=0)
