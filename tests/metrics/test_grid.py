from __future__ import annotations

import pytest
import torch

from panini.metrics.grid import grid_amplitude


def picture(seed=0, size=128):
    """Large smooth shapes and strong fine noise, in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 8, generator=generator) * 1.6 - 0.8
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return smooth + 0.02 * torch.randn(smooth.shape, generator=generator)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_lattice_is_measured_in_levels(period):
    clean = picture()
    lattice = torch.zeros(128)
    lattice[::period] = 1.0
    lattice = lattice[:, None] + lattice[None]
    lattice = lattice - lattice.mean()
    lattice = 3 / 127.5 * lattice / lattice.std()
    assert grid_amplitude(clean).item() < 1.0
    assert grid_amplitude(clean + lattice).item() == pytest.approx(3, abs=0.7)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 64 px"):
        grid_amplitude(torch.zeros(1, 3, 32, 32))
