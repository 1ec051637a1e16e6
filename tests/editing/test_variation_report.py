"""Variations of a photo as files, and the distances between them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panini.editing import VariationOptions, write_variations
from panini.editing.variation_report import PIXEL_RMS, distances
from panini.errors import CheckpointError, ConfigError, ImageError
from panini.metrics.judge import WEIGHTS
from panini.restorer import RestoredFace, Restorer

METRICS = Path(__file__).parents[3] / "shared" / "models"


def write(restorer: Restorer, face: RestoredFace, target: Path, count: int = 2, **options: object):
    restoration = restorer.restore_aligned(face.lq)
    return write_variations(restorer, restoration, target, VariationOptions(count=count, **options))


def test_a_photo_each_and_a_sheet(restorer: Restorer, face: RestoredFace, tmp_path: Path) -> None:
    told = write(restorer, face, tmp_path / "a.b.jpg")
    names = ["a.b_v1.jpg", "a.b_v2.jpg", "a.b_variations.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [path.name for path in (*told.photos, told.sheet)] == names
    pictures = [np.asarray(Image.open(path)) for path in told.photos]
    assert all(picture.shape == (128, 128, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    with Image.open(told.sheet) as sheet:
        assert sheet.width == 5 * 262 - 6


def test_the_report(restorer: Restorer, face: RestoredFace, tmp_path: Path) -> None:
    told = write(restorer, face, tmp_path / "a.png", count=3)
    (numbers,) = told.faces
    assert told.measure == PIXEL_RMS == "pixel_rms_levels"
    table = np.array(numbers.distances)
    assert table.shape == (3, 3)
    assert np.array_equal(table, table.T)
    assert not table.diagonal().any()
    assert told.least_distance == table[np.triu_indices(3, 1)].min() > 0.2
    data = json.loads(told.to_json())
    assert data["photos"] == ["a_v1.png", "a_v2.png", "a_v3.png"]
    assert data["faces"][0]["agreement_db"] == numbers.agreement_db
    assert len(numbers.agreement_db) == len(numbers.shares) == 3
    assert min(numbers.agreement_db) >= numbers.result_agreement_db - 0.5


def test_quality_and_mark_are_those_of_the_photo(
    restorer: Restorer, face: RestoredFace, tmp_path: Path
) -> None:
    contents = {}
    for name, words in {"fine": {}, "small": {"quality": 10, "mark": False}}.items():
        (photo, *_) = write(restorer, face, tmp_path / f"{name}.jpg", count=1, **words).photos
        contents[name] = photo.read_bytes()
    assert b"AlgorithmicMedia" in contents["fine"]
    assert b"AlgorithmicMedia" not in contents["small"]
    assert len(contents["small"]) < 0.6 * len(contents["fine"])


def test_one_variation_has_no_distance(
    restorer: Restorer, face: RestoredFace, tmp_path: Path
) -> None:
    assert write(restorer, face, tmp_path / "a.png", count=1).least_distance == 0


def test_lpips_where_there_are_weights(
    restorer: Restorer, face: RestoredFace, tmp_path: Path
) -> None:
    if not all((METRICS / name).is_file() for name in WEIGHTS):
        pytest.skip("the metrics' networks are not beside the project")
    told = write(restorer, face, tmp_path / "a.png", lpips_dir=METRICS)
    assert told.measure == "lpips_vgg_caffe"
    assert 0 < told.least_distance < 1


def test_lpips_without_weights(restorer: Restorer, face: RestoredFace, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vgg16_caffe\.safetensors"):
        write(restorer, face, tmp_path / "a.png", lpips_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_distances_are_in_levels_at_256_px() -> None:
    flat = [np.full((300, 300, 3), value, np.uint8) for value in (10, 10, 30)]
    assert distances(flat, None) == [[0, 0, 20], [0, 0, 20], [20, 20, 0]]


def test_nothing_is_overwritten_unasked(
    restorer: Restorer, face: RestoredFace, tmp_path: Path
) -> None:
    (tmp_path / "a_variations.png").write_text("mine")
    with pytest.raises(ImageError, match=r"a_variations\.png: exists already"):
        write(restorer, face, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a_variations.png"]
    write(restorer, face, tmp_path / "a.png", overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_photo_without_faces(restorer: Restorer, face: RestoredFace, tmp_path: Path) -> None:
    from dataclasses import replace

    empty = replace(restorer.restore_aligned(face.lq), faces=[])
    with pytest.raises(ConfigError, match="variations need a face"):
        write_variations(restorer, empty, tmp_path / "a.png", VariationOptions(count=1))


def test_two_faces_have_a_row_each(restorer: Restorer, tmp_path: Path) -> None:
    astronaut = pytest.importorskip("skimage.data").astronaut()
    head = Image.fromarray(astronaut[:256, 97:353]).resize((160, 160), Image.Resampling.BOX)
    restoration = restorer.restore(np.tile(np.asarray(head), (1, 2, 1)))
    assert len(restoration.faces) == 2
    told = write_variations(restorer, restoration, tmp_path / "a.png", VariationOptions(count=1))
    assert [face.face for face in told.faces] == [1, 2]
    with Image.open(told.photos[0]) as photo, Image.open(told.sheet) as sheet:
        assert photo.size == (320, 160)
        assert sheet.size == (4 * 262 - 6, 2 * (256 + 20 + 6) - 6)
