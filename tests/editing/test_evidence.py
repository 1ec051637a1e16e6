"""The input's own resolution, and agreement at it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panini.degradations import DegradationParams, degrade
from panini.editing.evidence import (
    Evidence,
    enlarge,
    evidence_of,
    low_band,
    own_resolution,
    rms,
    shrink,
)
from panini.images import RgbImage, read_rgb
from panini.restorer import RestoredFace

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def sharp() -> RgbImage:
    return read_rgb(EXAMPLES / "face_truth.png")


@pytest.mark.parametrize("low", [128, 64, 32, 16])
@pytest.mark.parametrize(("noise", "jpeg"), [(0, 0), (6, 70), (15, 50)])
def test_own_resolution_is_that_of_the_degradation(
    sharp: RgbImage, low: int, noise: float, jpeg: int
) -> None:
    params = DegradationParams.from_low_side(low, sigma=1.0, noise=noise, jpeg=jpeg)
    found, _ = own_resolution(degrade(sharp, params, np.random.default_rng(0)))
    assert low / 2 <= found <= 2.1 * low


def test_blur_lowers_it(sharp: RgbImage) -> None:
    sides = [
        own_resolution(degrade(sharp, DegradationParams(sigma=sigma), np.random.default_rng(0)))[0]
        for sigma in (0.0, 2.0, 4.5, 12.0)
    ]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] >= 4 * sides[-1]


def test_noise_is_told_from_detail() -> None:
    grey = np.full((256, 256, 3), 128.0)
    noisy = grey + np.random.default_rng(0).normal(0, 20, (256, 256, 1))
    side, noise = own_resolution(np.rint(noisy.clip(0, 255)).astype(np.uint8))
    assert side == 8
    # Of white noise, a mean over 32 x 32 px keeps 1/32.
    assert 0.2 < noise < 1.5


def test_a_flat_image_holds_the_coarsest_band() -> None:
    assert own_resolution(np.full((64, 64, 3), 90, np.uint8)) == (8, 0.0)


def test_the_photo_bounds_the_resolution(face: RestoredFace) -> None:
    assert evidence_of(face).side > 16
    # Each pixel of the photo became 10 of the result's: 13 of them cover the face.
    matrix = np.array([[10.0, 0, 0], [0, 10.0, 0]])
    assert evidence_of(replace(face, matrix=matrix)).side == 13


def test_agreement_is_a_psnr_at_the_own_resolution(truth: RgbImage) -> None:
    levels = truth.astype(np.float32)
    evidence = Evidence(side=32, noise=0.0, face=shrink(levels, 32))
    assert evidence.agreement(levels) == 100
    assert evidence.agreement(levels + 10) == pytest.approx(20 * np.log10(25.5), abs=1e-3)
    # Detail that 32 px cannot hold does not count.
    fine = np.where(np.indices((128, 128)).sum(axis=0) % 2, 40.0, -40.0)[..., None]
    assert evidence.agreement(levels + fine.astype(np.float32)) > 90


def test_low_band_and_the_rest_make_the_whole(truth: RgbImage) -> None:
    levels = truth.astype(np.float32)
    low = low_band(levels, 16)
    assert low.shape == levels.shape
    assert rms(shrink(levels - low, 16)) < 0.2 * rms(shrink(levels, 16) - levels.mean((0, 1)))
    assert shrink(levels, 128) is levels
    assert enlarge(levels, 128) is levels


def test_grey_and_colour_inputs_are_alike(face: RestoredFace) -> None:
    grey = face.lq.convert("L")
    as_rgb = evidence_of(replace(face, lq=grey.convert("RGB")))
    as_grey = evidence_of(replace(face, lq=grey))
    assert as_rgb.side == as_grey.side
    assert np.array_equal(as_rgb.face, as_grey.face)
