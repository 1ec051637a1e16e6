"""Crops back into their photo."""

from __future__ import annotations

import numpy as np
import pytest

from panini.faces.align import TEMPLATE, align, apply, rescale, similarity
from panini.faces.paste import PasteOptions, face_mask, paste_into

PLAIN = PasteOptions(match_colour=False)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """The astronaut: public domain, ships with scikit-image."""
    return pytest.importorskip("skimage.data").astronaut()


def paste(photo: np.ndarray, crop: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    result = photo.copy()
    paste_into(result, crop, matrix, options=PLAIN)
    return result


def landmarks(side: float, degrees: float = 0.0, at: tuple[float, float] = (0, 0)) -> np.ndarray:
    a = np.deg2rad(degrees)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return (TEMPLATE - 0.5) @ rotation.T * side + at


@pytest.mark.parametrize("side", [40, 150, 400])
@pytest.mark.parametrize("degrees", [0, 20])
def test_round_trip(photo: np.ndarray, side: int, degrees: float) -> None:
    points = landmarks(side, degrees, at=(230, 240))
    crop, matrix = align(photo, points, 512)
    result = paste(photo, crop, matrix)
    change = np.abs(result.astype(int) - photo).max(axis=2)
    y, x = np.nonzero(change)
    inside = np.abs(apply(matrix, np.stack([x + 0.5, y + 0.5], axis=1)) / 512 - 0.5)
    assert inside.max() < 0.48  # bit for bit the photo outside of the mask
    assert change[change > 0].mean() < 6
    assert photo.flags.owndata or result is not photo


def test_crop_arrives_where_it_was_cut(photo: np.ndarray) -> None:
    points = landmarks(100, 15, at=(200, 260))
    matrix = similarity(points, TEMPLATE * 1024)
    result = paste(photo, np.full((1024, 1024, 3), (255, 0, 0), np.uint8), matrix)
    assert np.all(result[260, 200] == (255, 0, 0))
    changed = np.argwhere((result != photo).any(axis=2))
    np.testing.assert_allclose(changed.mean(axis=0) + 0.5, (260, 200), atol=1.5)


def test_corners_of_the_crop_never_show(photo: np.ndarray) -> None:
    crop = np.zeros((256, 256, 3), np.uint8)
    crop[32:-32, 32:-32] = photo[132:324, 132:324]
    matrix = np.array([[1.0, 0, -100], [0, 1.0, -100]])
    result = paste(photo, crop, matrix)
    assert np.array_equal(result[100:128, 100:128], photo[100:128, 100:128])


def test_half_outside_and_wholly_outside(photo: np.ndarray) -> None:
    red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    partly = paste(photo, red, similarity(landmarks(100, at=(0, 0)), TEMPLATE * 64))
    assert np.all(partly[0, 0] == (255, 0, 0))
    assert np.array_equal(partly[60:, 60:], photo[60:, 60:])
    outside = paste(photo, red, similarity(landmarks(100, at=(-300, 900)), TEMPLATE * 64))
    assert np.array_equal(outside, photo)


def test_coverage_is_raised_to_the_mask(photo: np.ndarray) -> None:
    canvas = photo.copy()
    coverage = np.zeros(photo.shape[:2], np.float32)
    coverage[:, 300:] = 0.5
    red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    matrix = similarity(landmarks(150, at=(300, 240)), TEMPLATE * 64)
    paste_into(canvas, red, matrix, coverage=coverage, options=PLAIN)
    assert min(coverage[240, 290], coverage[240, 310]) > 0.999
    assert coverage[10, 10] == 0
    assert coverage[10, 400] == 0.5
    assert np.array_equal(canvas[coverage == 0], photo[coverage == 0])


def test_enlarged_photo_takes_a_rescaled_matrix(photo: np.ndarray) -> None:
    points = landmarks(120, at=(220, 120))
    matrix = similarity(points, TEMPLATE * 256)
    larger = np.repeat(np.repeat(photo, 2, axis=0), 2, axis=1)
    red = np.full((256, 256, 3), (255, 0, 0), np.uint8)
    paste_into(larger, red, rescale(matrix, source=2), options=PLAIN)
    y, x = np.nonzero((larger == (255, 0, 0)).all(axis=2))
    np.testing.assert_allclose((x.mean() + 0.5, y.mean() + 0.5), (440, 240), atol=1)


def test_mask_is_a_soft_box() -> None:
    mask = face_mask(128)
    assert mask[0].max() == mask[:, 0].max() == mask[-1].max() == 0
    assert np.all(mask[40:88, 40:88] == 1)
    assert np.abs(np.diff(mask, axis=0)).max() < 0.15
