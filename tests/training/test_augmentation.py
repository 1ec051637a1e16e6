"""What the discriminator sees: how faces are changed, and how many."""

from __future__ import annotations

import pytest
import torch

from panini.training import augmentation
from panini.training.augmentation import Augmentation, AugmentConfig, augment


def faces(count: int = 64, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, side, side, generator=generator) * 2 - 1


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_share_of_zero_changes_nothing():
    torch.testing.assert_close(augment(faces(), torch.tensor(0.0), random()), faces())


def test_about_the_share_is_changed_by_each_kind(monkeypatch):
    images = faces(2000, 8)
    share = torch.tensor(0.2)
    changed = (augment(images, share, random()) - images).abs().amax(dim=(1, 2, 3)) > 1e-3
    # Half of the mirrors and a quarter of the turns are none; so are a few of the shifts.
    kept = (1 - 0.1) * (1 - 0.15) * (1 - 0.15) ** 2 * (1 - 0.2) ** 4
    assert changed.float().mean().item() == pytest.approx(1 - kept, abs=0.05)


def test_the_same_generator_draws_the_same_changes():
    share = torch.tensor(0.5)
    first, second = (augment(faces(), share, random(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(faces(), share, random(8)))


def test_mirrors_turns_and_shifts_move_whole_pixels(monkeypatch):
    monkeypatch.setattr(augmentation, "SCALE_STD", 0.0)
    for name in ("BRIGHTNESS_STD", "CONTRAST_STD", "SATURATION_STD"):
        monkeypatch.setattr(augmentation, name, 0.0)
    # One colour a pixel: what comes out must be among what went in.
    image = torch.arange(64.0).view(1, 1, 8, 8).expand(32, 3, 8, 8) / 32 - 1
    out = augment(image, torch.tensor(1.0), random())
    levels = (out + 1) * 32
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert len(out.unique(dim=0)) > 20


def test_turns_without_shifts_are_those_of_rot90(monkeypatch):
    monkeypatch.setattr(augmentation, "SCALE_STD", 0.0)
    monkeypatch.setattr(augmentation, "TRANSLATION", 0.0)
    for name in ("BRIGHTNESS_STD", "CONTRAST_STD", "SATURATION_STD"):
        monkeypatch.setattr(augmentation, name, 0.0)
    image = faces(1).expand(64, -1, -1, -1)
    out = augment(image, torch.tensor(1.0), random())
    turned = [torch.rot90(x, k, (1, 2)) for x in (image[0], image[0].flip(-1)) for k in range(4)]
    seen = set()
    for found in out:
        errors = [(found - known).abs().max().item() for known in turned]
        assert min(errors) < 1e-4
        seen.add(errors.index(min(errors)))
    assert seen == set(range(8))


def test_colours_are_changed_face_by_face(monkeypatch):
    grey = torch.zeros(200, 3, 4, 4)
    out = augment(grey, torch.tensor(1.0), random())
    torch.testing.assert_close(out, out[:, :1, :1, :1].expand_as(out), atol=1e-5, rtol=1e-4)
    assert 0.1 < out[:, 0, 0, 0].std() < 0.4


def test_places_do_not_hang_on_the_precision_around():
    images = torch.rand(8, 3, 64, 64)
    whole = augment(images, torch.tensor(1.0), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = augment(images, torch.tensor(1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(half, whole)


def test_gradients_pass():
    images = faces(4).requires_grad_()
    augment(images, torch.tensor(1.0), random()).square().sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_the_share_follows_how_sure_the_discriminator_is():
    pipeline = Augmentation(AugmentConfig(target=0.6, kimg=1.0, every=2))
    sure, unsure = torch.tensor(0.9), torch.tensor(0.1)

    def adapt(sign: torch.Tensor, step: int) -> None:
        pipeline.note(sign)
        pipeline.adapt(100, step)

    for step in range(4):
        adapt(sure, step)
    # Two adaptations of 200 images in a thousand each.
    assert pipeline.share.item() == pytest.approx(0.4)
    for step in range(4, 6):
        adapt(unsure, step)
    assert pipeline.share.item() == pytest.approx(0.2)
    adapt(sure, 6)
    assert pipeline.share.item() == pytest.approx(0.2)
    adapt(unsure, 7)  # the mean of 0.9 and 0.1 is below the target
    for step in range(8, 20):
        adapt(unsure, step)
    assert pipeline.share.item() == 0
    assert {"share", "signs"} == set(pipeline.state_dict())
