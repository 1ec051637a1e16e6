"""The invention map: nothing where the photo tells all, more where it tells less."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from panini.checkpoints import SPECS
from panini.degradations import DegradationParams, degrade
from panini.editing import invention_map, vary
from panini.editing.evidence import Evidence, evidence_of, own_resolution, shrink
from panini.editing.invention import Invention, spread_of
from panini.images import RgbImage, read_rgb
from panini.restorer import Restorer

EXAMPLES = Path(__file__).parents[2] / "examples"


def evidence_in(lq: RgbImage) -> Evidence:
    side, noise = own_resolution(lq)
    return Evidence(side=side, noise=noise, face=shrink(lq.astype(np.float32), side))


@pytest.fixture(scope="module")
def sharp() -> RgbImage:
    return read_rgb(EXAMPLES / "face_truth.png")


def degraded(image: RgbImage, low: int, noise: float = 0) -> RgbImage:
    params = DegradationParams.from_low_side(low, sigma=1.0, noise=noise)
    return degrade(image, params, np.random.default_rng(0))


def test_the_more_was_lost_the_more_is_invented(sharp: RgbImage) -> None:
    # The truth itself as the result: what it has beyond the input had to be invented.
    means = [
        invention_map(evidence_in(degraded(sharp, low)), sharp, [sharp]).mean
        for low in (256, 64, 32, 16)
    ]
    assert means == sorted(means)
    assert means[-1] > 2 * means[0]


def test_a_result_that_only_repeats_the_input_invents_nothing(sharp: RgbImage) -> None:
    lq = degraded(sharp, 32)
    found = invention_map(evidence_in(lq), lq, [lq])
    assert not found.spread.any()
    assert found.mean < 0.5 * invention_map(evidence_in(lq), sharp, [sharp]).mean
    assert found.contradiction.max() < 0.01


def test_softness_light_and_denoising_invent_nothing(sharp: RgbImage) -> None:
    evidence = evidence_in(sharp)
    soft = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 4.0), np.uint8)
    assert invention_map(evidence, soft, [soft]).mean < 0.15
    brighter = (sharp * 0.9 + 20).astype(np.uint8)
    assert invention_map(evidence, brighter, [brighter]).contradiction.mean() < 1.0
    noisy = evidence_in(degraded(sharp, 64, noise=15))
    clean = degraded(sharp, 64)
    assert invention_map(noisy, clean, [clean]).contradiction.mean() < 1.5


def test_an_eye_that_was_painted_in_is_found(sharp: RgbImage) -> None:
    lq = degraded(sharp, 64)
    painted = lq.copy()
    cv2.circle(painted, (300, 400), 30, (255, 255, 255), -1)
    found = invention_map(evidence_in(lq), painted, [painted])
    inside, outside = found.map[380:420, 280:320].mean(), found.map[40:160, 40:160].mean()
    assert inside > 0.7 > 0.2 > outside


def test_spread_is_the_standard_deviation() -> None:
    base = np.full((64, 64, 3), 100, np.uint8)
    pictures = [base + step for step in (np.uint8(10), np.uint8(20))]
    assert spread_of(base, pictures) == pytest.approx(10, abs=1e-3)


def test_the_formula(sharp: RgbImage) -> None:
    lq = degraded(sharp, 32)
    found = invention_map(evidence_in(lq), sharp, [lq])
    total = np.sqrt(found.spread**2 + found.added**2 + found.contradiction**2)
    assert found.map == pytest.approx(1 - np.exp(-total / 16), abs=1e-5)
    assert found.map.min() >= 0
    assert found.map.max() < 1
    assert found.unsupported == pytest.approx(np.hypot(found.added, found.contradiction))
    for part in (found.map, found.spread, found.added, found.contradiction):
        assert part.shape == sharp.shape[:2]
        assert part.dtype == np.float32


def test_the_mean_is_that_of_the_part_that_is_pasted() -> None:
    rim = np.zeros((128, 128), np.float32)
    rim[:3] = 1
    middle = np.zeros((128, 128), np.float32)
    middle[50:70, 50:70] = 1
    parts = [
        Invention(map=values, spread=values, added=values, contradiction=values)
        for values in (rim, middle)
    ]
    assert parts[0].mean == pytest.approx(0, abs=1e-3)
    assert parts[1].mean > 0.02


@pytest.fixture(scope="module")
def shipped() -> Restorer:
    """The shipped network."""
    if not SPECS["mobile-mfr"].path.is_file():
        pytest.skip("the shipped weights are not here")
    return Restorer.from_pretrained("mobile-mfr", "cpu")


def invented(shipped: Restorer, lq: RgbImage, bias: float = 0.0) -> Invention:
    """What is found of one face with one variation: three or four passes of the network."""
    (face,) = shipped.restore_aligned(lq, prior_bias=bias).faces
    varied = vary(shipped, face, 1, seed=0, prior_bias=bias)
    pictures = [np.asarray(other.restored) for other in varied.faces]
    return invention_map(evidence_of(face), np.asarray(face.restored), pictures)


def test_shipped_more_degraded_is_more_invented(shipped: Restorer, sharp: RgbImage) -> None:
    mild, severe = (invented(shipped, degraded(sharp, low)) for low in (128, 16))
    assert mild.mean < severe.mean
    assert mild.spread.mean() < severe.spread.mean()


def test_shipped_trusting_the_generator_invents_more(shipped: Restorer) -> None:
    lq = read_rgb(EXAMPLES / "face_lq.png")
    photo, prior = (invented(shipped, lq, bias) for bias in (-3.0, 3.0))
    assert photo.mean < prior.mean
    assert photo.spread.mean() < prior.spread.mean()
