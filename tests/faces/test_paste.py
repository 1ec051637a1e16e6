"""Crops back into their photo."""

from __future__ import annotations

import numpy as np
import pytest

from panini.faces.align import TEMPLATE, align, apply, invert, rescale, similarity
from panini.faces.mask import CENTRE, SOLID, face_mask, rays
from panini.faces.paste import PasteOptions, paste_into
from panini.faces.seam import seam_step

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
    normal = paste(photo, red, matrix)
    paste_into(larger, red, rescale(matrix, source=2), options=PLAIN)
    centres = [
        np.argwhere((image == (255, 0, 0)).all(axis=2)).mean(axis=0) + 0.5
        for image in (normal, larger)
    ]
    np.testing.assert_allclose(centres[1], 2 * centres[0], atol=1)


def test_mask_covers_the_face_and_ends_within_the_crop() -> None:
    mask = face_mask(128)
    assert max(mask[0].max(), mask[:, 0].max(), mask[:, -1].max(), mask[-1].max()) == 0
    x, y = (TEMPLATE * 128).astype(int).T
    assert np.all(mask[y, x] == 1)
    assert mask[int(0.85 * 128), 64] > 0.95  # the chin
    assert np.abs(np.diff(mask, axis=0)).max() < 0.15
    np.testing.assert_array_equal(mask, mask[:, ::-1])


def test_rays_end_where_the_mask_does() -> None:
    mask = face_mask(512)
    points = rays(np.linspace(0, 6, 50), np.array([0.0, SOLID - 0.02, 1.02]))
    np.testing.assert_allclose(points[:, 0], np.tile(CENTRE, (50, 1)))
    x, y = (points * 512).astype(int).transpose(2, 0, 1)
    assert np.all(mask[y[:, 1], x[:, 1]] == 1)
    assert np.all(mask[y[:, 2], x[:, 2]] == 0)


def smooth_photo(height: int = 300, width: int = 340) -> np.ndarray:
    """Light that falls from one side, and a soft cheek."""
    y, x = np.mgrid[:height, :width].astype(float)
    level = 90 + 0.25 * x + 30 * np.exp(-((x - 170) ** 2 + (y - 150) ** 2) / 90**2)
    return np.rint(level[..., None] * (1.0, 0.85, 0.7)).astype(np.uint8)


@pytest.mark.parametrize("cast", [(25, 10, -15), (-20, -20, -20)])
def test_no_seam_where_the_photo_has_none(cast: tuple[int, int, int]) -> None:
    photo = smooth_photo()
    crop, matrix = align(photo, landmarks(160, 10, at=(170, 150)), 256)
    shifted = np.clip(crop.astype(int) + cast, 0, 255).astype(np.uint8)
    seams = []
    for options in (PasteOptions(), PLAIN):
        result = photo.copy()
        paste_into(result, shifted, matrix, options=options)
        seams.append(seam_step(photo, result, matrix, 256))
    matched, plain = seams
    assert matched.ratio < 0.5
    assert plain.ratio > 2
    assert plain.step > 5 * matched.step


def test_colours_match_inside_and_detail_stays() -> None:
    photo = smooth_photo()
    crop, matrix = align(photo, landmarks(160, at=(170, 150)), 256)
    checks = (np.indices((256, 256)) // 4).sum(axis=0) % 2 * 20 - 10
    drawn = np.clip(crop + checks[..., None] + (30, 0, 0), 0, 255).astype(np.uint8)
    result = photo.copy()
    paste_into(result, drawn, matrix)
    x, y = apply(invert(matrix), np.array([[128.0, 150.0]])).astype(int)[0]
    patch = np.s_[y - 20 : y + 20, x - 20 : x + 20]
    np.testing.assert_allclose(
        result[patch].mean(axis=(0, 1)), photo[patch].mean(axis=(0, 1)), atol=1.5
    )
    assert result[patch][..., 1].std() > photo[patch][..., 1].std() + 3


def test_face_half_outside_is_matched_to_what_is_there() -> None:
    photo = smooth_photo()
    points = landmarks(160, at=(10, 150))
    crop, matrix = align(photo, points, 256)
    result = photo.copy()
    paste_into(result, np.minimum(crop, 215) + np.uint8(40), matrix)
    assert np.abs(result.astype(int) - photo).mean() < 1


def noise_of(image: np.ndarray) -> np.ndarray:
    flat = image.astype(float)
    return (flat[1:, 1:] - flat[1:, :-1] - flat[:-1, 1:] + flat[:-1, :-1]).std(axis=(0, 1)) / 2


def test_grain_of_the_photo() -> None:
    rng = np.random.default_rng(1)
    grey = rng.normal(0, 6, (300, 340, 1))
    photo = np.clip(smooth_photo() + grey, 0, 255).astype(np.uint8)
    matrix = similarity(landmarks(200, at=(170, 150)), TEMPLATE * 256)
    clean = align(smooth_photo(), landmarks(200, at=(170, 150)), 256)[0]
    results = {}
    for name, options in {
        "without": PasteOptions(),
        "with": PasteOptions(grain=True),
        "again": PasteOptions(grain=True),
        "other": PasteOptions(grain=True, seed=1),
    }.items():
        results[name] = photo.copy()
        paste_into(results[name], clean, matrix, options=options)
    patch = np.s_[130:190, 140:200]
    wanted = noise_of(photo[patch])
    assert np.all(noise_of(results["without"][patch]) < 0.2 * wanted)
    np.testing.assert_allclose(noise_of(results["with"][patch]), wanted, rtol=0.2)
    added = results["with"][patch].astype(float) - results["without"][patch]
    assert np.corrcoef(added[..., 0].ravel(), added[..., 2].ravel())[0, 1] > 0.9  # grey, as there
    assert np.array_equal(results["with"], results["again"])
    assert not np.array_equal(results["with"], results["other"])


def test_seam_of_a_hard_edge() -> None:
    photo = smooth_photo()
    matrix = similarity(landmarks(160, at=(170, 150)), TEMPLATE * 256)
    soft, hard = photo.copy(), photo.copy()
    white = np.full((256, 256, 3), 255, np.uint8)
    coverage = np.zeros(photo.shape[:2], np.float32)
    paste_into(soft, white, matrix, coverage=coverage, options=PLAIN)
    hard[coverage > 0.5] = 255
    assert seam_step(photo, photo, matrix, 256).step == 0
    soft_step, hard_step = (seam_step(photo, x, matrix, 256).step for x in (soft, hard))
    assert hard_step > 3 * soft_step > 0
    outside = similarity(landmarks(160, at=(-900, 150)), TEMPLATE * 256)
    assert seam_step(photo, soft, outside, 256).step == 0
