"""Similarity, crops, and the warp behind both ways."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panini.faces.align import TEMPLATE, align, apply, invert, rescale, similarity, warp


def turn(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    c, s = scale * np.cos(a), scale * np.sin(a)
    return np.array([[c, -s, x], [s, c, y]])


def waves(height: int, width: int, period: float) -> np.ndarray:
    """A smooth colour picture whose value is known at every continuous point."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    grid = np.sin(2 * np.pi * x / period)[None, :] * np.cos(2 * np.pi * y / period)[:, None]
    return np.repeat(np.rint(127.5 + 100 * grid)[..., None], 3, axis=2).astype(np.uint8)


@settings(max_examples=40)
@given(
    scale=st.floats(0.01, 100),
    degrees=st.floats(-180, 180),
    x=st.floats(-5000, 5000),
    y=st.floats(-5000, 5000),
)
def test_similarity_finds_the_transform(scale: float, degrees: float, x: float, y: float) -> None:
    truth = turn(scale, degrees, x, y)
    found = similarity(TEMPLATE * 512, apply(truth, TEMPLATE * 512))
    np.testing.assert_allclose(found, truth, atol=1e-6 * max(1, abs(x), abs(y), scale))


def test_similarity_is_the_best_fit() -> None:
    rng = np.random.default_rng(0)
    target = TEMPLATE * 512 + rng.normal(0, 10, (5, 2))

    def error(matrix: np.ndarray) -> float:
        return float(np.sum((apply(matrix, TEMPLATE * 512) - target) ** 2))

    best = similarity(TEMPLATE * 512, target)
    for _ in range(50):
        nudge = turn(*(rng.normal(0, 1e-3, 4) + np.array([1, 0, 0, 0])))
        nudged = np.concatenate([nudge[:, :2] @ best[:, :2], best[:, 2:] + nudge[:, 2:]], axis=1)
        assert error(nudged) >= error(best)


def test_mirrored_points_are_not_reflected() -> None:
    mirrored = TEMPLATE * (-1, 1)
    assert np.linalg.det(similarity(TEMPLATE, mirrored)[:, :2]) > 0


def test_one_point_five_times_is_a_shift() -> None:
    same = np.full((5, 2), 7.0)
    np.testing.assert_allclose(apply(similarity(same, same + 1), same), same + 1)


def test_invert_and_rescale() -> None:
    matrix = turn(0.3, 25, 40, -7)
    points = np.random.default_rng(0).uniform(0, 500, (6, 2))
    np.testing.assert_allclose(apply(invert(matrix), apply(matrix, points)), points, atol=1e-9)
    larger = rescale(matrix, source=4, target=2)
    np.testing.assert_allclose(apply(larger, points * 4), apply(matrix, points) * 2)


def test_identity_warp_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    assert np.array_equal(warp(image, np.eye(2, 3), (47, 33)), image)


@pytest.mark.parametrize("scale", [3.0, 1.0, 0.37, 0.1])
def test_warp_puts_every_point_where_the_matrix_says(scale: float) -> None:
    period = 400.0
    image = waves(700, 800, period)
    matrix = turn(scale, 15, -30 * scale, -150 * scale)
    width, height = int(300 * scale), int(240 * scale)
    drawn = warp(image, matrix, (width, height))
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    source = apply(invert(matrix), np.stack([x.ravel(), y.ravel()], axis=1))
    assert source.min() > 0
    expected = 127.5 + 100 * np.prod(
        [np.sin(2 * np.pi * source[:, 0] / period), np.cos(2 * np.pi * source[:, 1] / period)], 0
    )
    # Half a pixel of shift at the smallest scale would be 5 px of the source: 8 levels.
    assert np.abs(drawn[..., 0].ravel() - expected).mean() < 1.0


def test_shrinking_does_not_alias() -> None:
    checks = np.indices((800, 800)).sum(axis=0) % 2 * 255
    image = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    drawn = warp(image, turn(0.11, 10, 10, 0), (64, 64))
    assert drawn[8:-8, 12:-8].std() < 6  # plain linear sampling: over 30
    plain = cv2.warpAffine(image, turn(0.11, 10, 10, 0), (64, 64))
    assert plain[8:-8, 12:-8].std() > 30


def test_landmarks_reach_the_template() -> None:
    photo = waves(300, 400, 60)
    truth = turn(1.7, -12, 120, 30)
    landmarks = apply(truth, TEMPLATE * 64)
    crop, matrix = align(photo, landmarks, 128)
    assert crop.shape == (128, 128, 3)
    np.testing.assert_allclose(apply(matrix, landmarks), TEMPLATE * 128, atol=1e-9)


def test_face_at_the_corner_sees_a_mirror() -> None:
    photo = np.full((100, 100, 3), 200, np.uint8)
    crop, _ = align(photo, TEMPLATE * 80 - 40, 128)
    assert crop.min() == 200


def test_tiny_photo_around_a_huge_face() -> None:
    photo = np.full((5, 7, 3), 90, np.uint8)
    crop, _ = align(photo, TEMPLATE * 300 - 100, 64)
    assert np.all(crop == 90)


def test_wider_than_opencv_can_warp() -> None:
    photo = np.full((40, 40000, 3), 50, np.uint8)
    photo[:, 36000:] = 180
    crop, _ = align(photo, TEMPLATE * 40 + (39000, 0), 64)
    assert crop.min() == 180
