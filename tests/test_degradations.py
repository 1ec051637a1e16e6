"""Eq. 10: the reference, the parameters and samplers, and the batched version against it."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from panini.degradations import (
    FLOOR_RANGE,
    MEASURED_RANGE,
    SAMPLERS,
    DegradationParams,
    DegradationRange,
    bilinear_antialias,
    degrade,
    degrade_batch,
    downscale16,
)
from panini.degradations.batched import _quantisation_tables
from panini.errors import ConfigError


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A drawing with what a photo has: gradients, edges in colour, fine waves, grain."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    canvas = np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1)
    for _ in range(12):
        centre_x, centre_y, radius = generator.uniform(0, 1, 3)
        disc = (x - centre_x) ** 2 + (y - centre_y) ** 2 < (0.2 * radius) ** 2
        canvas[disc] = generator.uniform(0, 255, 3)
    canvas += 20 * np.sin(60 * x + 40 * y * y)[..., None] + generator.normal(0, 6, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


any_params = st.builds(
    DegradationParams,
    sigma=st.floats(0, 12),
    rate=st.floats(1, 300),
    noise=st.floats(0, 50),
    jpeg=st.integers(0, 100),
)
sides = st.integers(1, 40)


# --- parameters -------------------------------------------------------------------------------


@given(any_params)
def test_params_survive_json(params):
    assert DegradationParams.from_dict(json.loads(json.dumps(params.to_dict()))) == params


@given(st.integers(1, 2048), st.data())
def test_low_side_is_exact(size, data):
    low_side = data.draw(st.integers(1, size))
    assert DegradationParams.from_low_side(low_side, size=size).low_side(size) == low_side


def test_params_print_readably():
    params = DegradationParams(sigma=3, rate=32, noise=10.5, jpeg=np.int64(40))  # pyright: ignore
    assert str(params) == "r=32 sigma=3 noise=10.5 jpeg=40"
    assert str(DegradationParams()) == "r=1 sigma=0 noise=0 jpeg=none"
    assert params.to_dict() == {"sigma": 3.0, "rate": 32.0, "noise": 10.5, "jpeg": 40}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"sigma": -1}, r"expected sigma to be a number in 0\.\.1000, got -1"),
        ({"sigma": float("nan")}, "expected sigma .* got nan"),
        ({"rate": 0.5}, "expected rate .* got 0.5"),
        ({"noise": "10"}, "expected noise .* got '10'"),
        ({"jpeg": 101}, r"expected jpeg to be a whole number in 0\.\.100, got 101"),
        ({"jpeg": 40.5}, "expected jpeg to be a whole number .* got 40.5"),
    ],
)
def test_bad_params_are_refused(numbers, message):
    with pytest.raises(ConfigError, match=message):
        DegradationParams(**numbers)


@pytest.mark.parametrize("low_side", [0, 513])
def test_bad_low_side_is_refused(low_side):
    with pytest.raises(ConfigError, match=rf"low side in 1\.\.512, got {low_side}"):
        DegradationParams.from_low_side(low_side)


@pytest.mark.parametrize("keys", [["sigma"], ["sigma", "rate", "noise", "jpeg", "blur"]])
def test_from_dict_wants_the_four_keys(keys):
    with pytest.raises(ConfigError, match="expected keys"):
        DegradationParams.from_dict(dict.fromkeys(keys, 1))


# --- reference --------------------------------------------------------------------------------


@given(any_params, sides, sides, st.integers(0, 2**32))
def test_same_seed_same_bytes(params, height, width, seed):
    image = picture(height, width)
    before = image.copy()
    first = degrade(image, params, rng(seed))
    again = degrade(image, DegradationParams.from_dict(params.to_dict()), rng(seed))
    assert first.tobytes() == again.tobytes()
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert np.array_equal(image, before)


def test_defaults_change_nothing():
    image = picture(40, 30)
    degraded = degrade(image, DegradationParams(), rng())
    assert np.array_equal(degraded, image)
    assert not np.shares_memory(degraded, image)


@pytest.mark.parametrize("sigma", [0.06, 0.4, 0.87, 3.0, 7.3])
def test_blur_is_opencvs_own_choice_of_kernel(sigma):
    image = picture(60, 50)
    expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)
    assert np.array_equal(
        degrade(image, DegradationParams(sigma=sigma), rng()), np.rint(expected).astype(np.uint8)
    )


def test_resizing_has_no_antialias_and_shrinks_each_side_by_the_rate():
    image = picture(64, 128)
    levels = image.astype(np.float32)
    low = cv2.resize(levels, (16, 8), interpolation=cv2.INTER_LINEAR)
    grown = cv2.resize(low, (128, 64), interpolation=cv2.INTER_LINEAR)
    expected = np.rint(grown).astype(np.uint8)
    assert np.array_equal(degrade(image, DegradationParams(rate=8), rng()), expected)
    # One sample of eight: a white column between the samples vanishes, as antialias would not let.
    columns = np.zeros((64, 64, 3), np.uint8)
    columns[:, ::8] = 255
    assert degrade(columns, DegradationParams(rate=8), rng()).max() == 0


def test_noise_has_the_deviation_asked_for_in_every_channel():
    grey = np.full((200, 200, 3), 128, np.uint8)
    error = degrade(grey, DegradationParams(noise=12), rng()).astype(float) - 128
    assert error.std(axis=(0, 1)) == pytest.approx([12, 12, 12], rel=0.03)
    assert error.mean() == pytest.approx(0, abs=0.2)
    assert abs(np.corrcoef(error[..., 0].ravel(), error[..., 1].ravel())[0, 1]) < 0.03


def test_jpeg_comes_last_and_halves_the_colour_resolution():
    image = picture(64, 48)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60, subsampling="4:2:0")
    with Image.open(buffer) as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert psnr(degrade(image, DegradationParams(jpeg=60), rng()), expected) > 45


@pytest.mark.parametrize(
    "series",
    [
        [DegradationParams(sigma=s) for s in (0.5, 1, 2, 4, 8)],
        [DegradationParams(rate=r) for r in (2, 4, 8, 16, 32)],
        [DegradationParams(noise=n) for n in (1, 5, 10, 15, 25)],
        [DegradationParams(jpeg=q) for q in (95, 75, 50, 25, 5)],
    ],
    ids=["sigma", "rate", "noise", "jpeg"],
)
def test_stronger_is_worse(series):
    image = picture(128, 128)
    scores = [psnr(degrade(image, params, rng()), image) for params in series]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
@pytest.mark.parametrize(
    "function",
    [lambda image: degrade(image, DegradationParams(), rng()), downscale16],
    ids=["degrade", "downscale16"],
)
def test_only_rgb_is_taken(image: np.ndarray, function: Callable):
    with pytest.raises(ValueError, match="expected a uint8 RGB image"):
        function(image)


# --- samplers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low_side", "sigma", "noise", "jpeg"),
    [
        ("paper", (3, 51), (0.2, 10), (0, 25), (5, 50)),
        ("measured", (10, 200), (0.5, 4.5), (0, 25), (50, 95)),
        ("floor", (16, 100), (0.5, 4.5), (0, 15), (50, 95)),
    ],
)
def test_samplers_fill_their_ranges(name, low_side, sigma, noise, jpeg):
    generator = rng()
    drawn = [SAMPLERS[name](generator) for _ in range(3000)]
    columns = {
        "low_side": ([p.low_side(512) for p in drawn], low_side),
        "sigma": ([p.sigma for p in drawn], sigma),
        "noise": ([p.noise for p in drawn], noise),
        "jpeg": ([p.jpeg for p in drawn], jpeg),
    }
    for column, (values, (low, high)) in columns.items():
        assert low <= min(values) <= low + 0.02 * (high - low), column
        assert high - 0.04 * (high - low) <= max(values) <= high, column
        # r is uniform as a factor in the paper's range, hence not as a side.
        if (name, column) != ("paper", "low_side"):
            assert np.mean(values) == pytest.approx((low + high) / 2, rel=0.05), column


def test_samplers_repeat_with_their_seed():
    for sampler in SAMPLERS.values():
        assert sampler(rng(5)) == sampler(rng(5)) != sampler(rng(6))


def test_paper_rates_are_a_factor():
    rates = [SAMPLERS["paper"](rng(seed)).rate for seed in range(300)]
    assert 10 <= min(rates) < 15
    assert 195 < max(rates) <= 200


def test_log_law_gives_every_octave_its_share():
    octaves = DegradationRange(low_side=(16, 127), low_side_law="log", size=256)
    generator = rng()
    low_sides = [octaves.sample(generator).low_side(256) for _ in range(3000)]
    counts, _ = np.histogram(low_sides, bins=[16, 32, 64, 128])
    assert counts.sum() == 3000
    assert counts / 3000 == pytest.approx([1 / 3] * 3, abs=0.05)


def test_ranges_of_one_value_give_it():
    fixed = DegradationRange(low_side=(32, 32), sigma=(2, 2), noise=(0, 0), jpeg=(0, 0))
    assert fixed.sample(rng()) == DegradationParams(rate=16, sigma=2)
    assert DegradationRange() == FLOOR_RANGE
    assert MEASURED_RANGE.low_side == (10, 200)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low_side": (100, 16)}, "low_side runs from 100 down to 16"),
        ({"low_side": (0, 16)}, r"low side in 1\.\.512, got 0"),
        ({"low_side": (16, 600)}, r"low side in 1\.\.512, got 600"),
        ({"low_side_law": "linear"}, "low_side_law uniform or log, got linear"),
        ({"sigma": (-1.0, 2.0)}, "expected sigma"),
        ({"jpeg": (0, 50)}, r"expected jpeg in 1\.\.100"),
        ({"jpeg": (50, 101)}, "expected jpeg"),
    ],
)
def test_bad_ranges_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        DegradationRange(**values)


# --- 16x --------------------------------------------------------------------------------------


def test_downscale16_averages_what_plain_bilinear_would_skip():
    columns = np.zeros((64, 64, 3), np.uint8)
    columns[:, ::2] = 200
    small = downscale16(columns)
    assert small.shape == (4, 4, 3)
    assert abs(small.astype(int) - 100).max() <= 3
    assert np.array_equal(small, bilinear_antialias(columns, 4))


def test_downscale16_wants_a_square_in_steps_of_16():
    with pytest.raises(ValueError, match="divisible by 16, got 40"):
        downscale16(picture(40, 40))
    with pytest.raises(ValueError, match="expected a square image, got 32x64"):
        downscale16(picture(32, 64))


# --- batched ----------------------------------------------------------------------------------


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float()[None] / 127.5 - 1


def to_images(batch: torch.Tensor) -> np.ndarray:
    return ((batch + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def batch_against_reference(image: np.ndarray, params: list[DegradationParams]) -> list[float]:
    """PSNR of every image of one mixed batch against the reference, dB."""
    images = to_tensor(image).expand(len(params), -1, -1, -1)
    batch = to_images(degrade_batch(images, params, torch.Generator().manual_seed(0)))
    return [psnr(batch[i], degrade(image, p, rng())) for i, p in enumerate(params)]


@pytest.mark.parametrize("shape", [(128, 128), (97, 130)], ids=str)
def test_batch_agrees_with_reference(shape):
    grid = itertools.product((0, 0.8, 4), (1, 5.12, 30), (5, 30, 50, 80, 95))
    params = [DegradationParams(sigma=s, rate=r, jpeg=q) for s, r, q in grid]
    scores = batch_against_reference(picture(*shape), params)
    worst = int(np.argmin(scores))
    print(
        f"{shape}: median {np.median(scores):.1f} dB, least {scores[worst]:.1f} ({params[worst]})"
    )
    assert min(scores) >= 38
    assert np.median(scores) >= 50


def test_batch_without_jpeg_differs_by_rounding_only():
    image = picture(96, 160)
    grid = itertools.product((0, 0.06, 0.87, 3, 12, 60), (1, 2, 3.3, 13.8, 500))
    params = [DegradationParams(sigma=s, rate=r) for s, r in grid]
    images = to_tensor(image).expand(len(params), -1, -1, -1)
    batch = to_images(degrade_batch(images, params, torch.Generator()))
    for i, p in enumerate(params):
        difference = np.abs(batch[i].astype(int) - degrade(image, p, rng()))
        assert difference.max() <= 1, p
        assert (difference > 0).mean() < 0.05, p


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 2), (17, 33)], ids=str)
def test_batch_takes_the_smallest_images(shape):
    params = [DegradationParams(sigma=s, rate=r) for s in (0, 3) for r in (1, 2, 50)]
    assert min(batch_against_reference(picture(*shape), params)) > 45
    compressed = [DegradationParams(jpeg=50)]
    output = degrade_batch(to_tensor(picture(*shape)), compressed, torch.Generator())
    assert output.shape == (1, 3, *shape)


def test_batch_treats_every_image_by_its_own_parameters():
    image = to_tensor(picture(48, 48))
    params = [
        DegradationParams(sigma=2, rate=4, jpeg=30),
        DegradationParams(),
        DegradationParams(rate=16, jpeg=90),
    ]
    together = degrade_batch(image.expand(3, -1, -1, -1), params, torch.Generator())
    for i, p in enumerate(params):
        alone = degrade_batch(image, [p], torch.Generator())
        assert psnr(to_images(together)[i], to_images(alone)[0]) > 50
    assert torch.allclose(together[1:2], image, atol=1e-6)


def test_batch_noise_follows_its_generator_and_deviation():
    images = torch.zeros(2, 3, 128, 128)
    params = [DegradationParams(noise=5), DegradationParams(noise=20)]
    first = degrade_batch(images, params, torch.Generator().manual_seed(1))
    again = degrade_batch(images, params, torch.Generator().manual_seed(1))
    other = degrade_batch(images, params, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first * 127.5).std(dim=(1, 2, 3)).tolist() == pytest.approx([5, 20], rel=0.03)


def test_batch_keeps_dtype_range_and_inputs_and_carries_no_gradient():
    images = torch.full((1, 3, 32, 32), 0.99, dtype=torch.bfloat16, requires_grad=True)
    before = images.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = degrade_batch(images, [DegradationParams(noise=60, jpeg=20)], torch.Generator())
    assert output.dtype == torch.bfloat16
    assert output.abs().max() <= 1
    assert not output.requires_grad
    assert torch.equal(images, before)


def test_batch_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"expected images \(N, 3, H, W\), got \(3, 8, 8\)"):
        degrade_batch(torch.zeros(3, 8, 8), [DegradationParams()], torch.Generator())
    with pytest.raises(ValueError, match="expected 2 parameters, one an image, got 1"):
        degrade_batch(torch.zeros(2, 3, 8, 8), [DegradationParams()], torch.Generator())


@pytest.mark.parametrize("quality", [1, 5, 37, 49, 50, 51, 80, 99, 100])
def test_quantisation_tables_are_libjpegs(quality):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as opened:
        tables = opened.quantization  # pyright: ignore[reportAttributeAccessIssue]
    assert _quantisation_tables(quality).tolist() == [list(tables[0]), list(tables[1])]


def test_a_rate_can_be_drawn_in_place_of_the_low_side():
    """As the paper prints it: uniform in the factor, not in the side."""
    drawn = [DegradationRange(rate=(10, 200)).sample(rng(seed)).rate for seed in range(400)]
    assert 10 <= min(drawn) < 20
    assert 190 < max(drawn) <= 200
    assert 95 < np.mean(drawn) < 115
    assert DegradationRange(rate=(2, 4), size=64).sample(rng(0)).rate <= 4  # no low side is drawn
    with pytest.raises(ConfigError, match=r"expected rate to be a number in 1\.\."):
        DegradationRange(rate=(0.5, 2))
    with pytest.raises(ConfigError, match="rate runs from 5 down to 2"):
        DegradationRange(rate=(5, 2))
