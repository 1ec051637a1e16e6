from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panini.degradations import DegradationParams, degrade
from panini.images import read_rgb, to_tensor
from panini.peers.low_side import estimate_side, known_side

TRUTH = Path(__file__).parents[2] / "examples" / "face_truth.png"


def degraded(low_side: int, **how: float) -> torch.Tensor:
    """The example face that nobody has at 512 px, through a low side."""
    face = Image.fromarray(read_rgb(TRUTH)).resize((512, 512), Image.Resampling.LANCZOS)
    params = DegradationParams.from_low_side(low_side, **how)
    return to_tensor(degrade(np.asarray(face), params, np.random.default_rng(0)))


@pytest.mark.parametrize(("low_side", "side"), [(16, 16), (32, 32), (64, 64), (100, 64)])
def test_estimate_follows_the_low_side(low_side: int, side: int) -> None:
    assert estimate_side(degraded(low_side), 64) == [side]


def test_estimate_takes_blur_for_lost_detail_and_noise_for_none() -> None:
    assert estimate_side(degraded(512, sigma=12), 64) == [32]
    assert estimate_side(degraded(64, noise=8, jpeg=70), 64) == [64]


def test_faces_are_judged_one_by_one() -> None:
    faces = torch.cat([degraded(low_side) for low_side in (100, 16)])
    assert estimate_side(faces, 64) == [64, 16]
    assert estimate_side(faces, 32) == [32, 16]


def test_known_side_is_a_power_of_two_that_still_agrees() -> None:
    assert [known_side(low, 64) for low in (1, 16, 22, 25, 42, 43, 100)] == [
        *(16, 16, 32, 32, 32, 64, 64)
    ]
    assert known_side(100, 32) == 32
