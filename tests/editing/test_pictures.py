"""The pictures of an explanation: sizes, colours and labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from panini.editing.pictures import (
    balanced,
    close_up,
    grey_map,
    heat_map,
    masks_plot,
    png,
    sheet,
)


def test_heat_map_is_grey_where_the_photo_tells_and_coloured_where_not() -> None:
    face = np.full((256, 256, 3), 128, np.uint8)
    values = np.zeros((256, 256), np.float32)
    values[:, 128:] = 0.7
    image = np.asarray(heat_map(face, values)).astype(int)
    assert image.shape == (256, 256, 3)
    assert (image[:200, :128] == 128).all()
    red, green, blue = image[:200, 128:].mean(axis=(0, 1))
    assert red > max(green, blue) + 50


def test_the_legend_can_be_left_out_or_named() -> None:
    face, values = np.full((256, 256, 3), 128, np.uint8), np.zeros((256, 256), np.float32)
    bare = np.asarray(heat_map(face, values, ends=None))
    assert (bare == 128).all()
    named = np.asarray(heat_map(face, values, ends=("0 levels", "16 levels")))
    assert not np.array_equal(named, np.asarray(heat_map(face, values)))
    assert (named[:200] == 128).all()


def test_grey_map() -> None:
    values = np.array([[0.0, 8.0], [16.0, 99.0]], np.float32)
    assert np.asarray(grey_map(values, 16.0)).tolist() == [[0, 128], [255, 255]]


def test_masks_plot_shows_each_level() -> None:
    photo, prior = np.full(50, 0.02, np.float32), np.full(50, 0.98, np.float32)
    image = np.asarray(masks_plot({8: photo, 64: prior}, side=256)).astype(int)
    assert image.shape == (256, 256, 3)
    top, bottom = image[30:100], image[130:200]
    bluish = [part[..., 2] - part[..., 0] for part in (top, bottom)]
    assert bluish[0][:, :40].max() > 60 >= bluish[1][:, :40].max()
    assert bluish[1][:, -40:].min() < -60 <= bluish[0][:, -40:].min()
    assert np.asarray(masks_plot({}, side=128)).min() < 200


def test_sheet_places_pictures_under_their_labels() -> None:
    cells = [(f"picture {i}", Image.new("L", (20, 20), 60 * i)) for i in range(3)]
    image = np.asarray(sheet(cells, columns=2, side=100))
    assert image.shape == (2 * (100 + 20 + 6) - 6, 2 * 106 - 6, 3)
    assert image[20 + 50, 50].tolist() == [0, 0, 0]
    assert image[20 + 50, 106 + 50].tolist() == [60, 60, 60]
    assert image[126 + 20 + 50, 50].tolist() == [120, 120, 120]
    assert image[126 + 20 + 50, 156].tolist() == [255, 255, 255]
    assert image[:20, :100].min() < 100  # the label


def test_a_long_label_is_made_to_fit() -> None:
    cells = [("wider than its picture", Image.new("RGB", (8, 8), "white"))]
    image = np.asarray(sheet([*cells, ("", cells[0][1])], columns=2, side=100))
    assert image[:20, 102:].min() == 255


@pytest.mark.parametrize(
    ("count", "most", "columns"),
    [(3, 5, 3), (5, 5, 5), (6, 5, 3), (7, 5, 4), (11, 5, 4), (1, 5, 1)],
)
def test_balanced(count: int, most: int, columns: int) -> None:
    assert balanced(count, most) == columns


def test_close_up_is_the_middle() -> None:
    assert close_up(Image.new("RGB", (100, 100))).size == (60, 60)


def test_png() -> None:
    assert png(Image.new("RGB", (2, 2))).startswith(b"\x89PNG")
