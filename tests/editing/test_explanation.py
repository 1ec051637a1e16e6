"""An explanation and its files: complete, self-contained, whole, and the same again."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image

from panini.editing import Explanation, explain, write_explanation
from panini.editing import explanation_report as report
from panini.errors import ConfigError, ImageError
from panini.images import to_tensor, to_uint8
from panini.models.fusion import FusionControl
from panini.restorer import RestoredFace, Restorer

ABOUT = {"photo": '<b>&"Jo\'s" photo.jpg', "face": 1, "model": "tiny"}


@pytest.fixture(scope="module")
def told(restorer: Restorer, face: RestoredFace) -> Explanation:
    return explain(restorer, face, variations=2, seed=5)


@pytest.fixture(scope="module")
def folder(told: Explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "new" / "deep"
    files = write_explanation(told, folder, about=ABOUT)
    assert files == [folder / name for name in report.FILES]
    return folder


def test_parts_are_those_of_the_network(
    restorer: Restorer, face: RestoredFace, told: Explanation
) -> None:
    lq = to_tensor(np.asarray(face.lq))
    with torch.inference_mode():
        plain = restorer.model(lq)
        gpb = restorer.model(lq, control=FusionControl(image_gain=0.0))
        ife = restorer.model(lq, control=FusionControl(prior_gain=0.0))
    assert list(told.masks) == [4, 8, 16, 32, 64]
    for level, mask in told.masks.items():
        assert mask == pytest.approx(plain.masks[level].flatten().numpy())
    assert told.theta == pytest.approx(float(told.masks[64].mean()), abs=1e-6)
    assert np.array_equal(np.asarray(told.y_gpb), to_uint8(gpb.image)[0])
    assert np.array_equal(np.asarray(told.y_ife), to_uint8(ife.image)[0])
    assert len(told.variations.faces) == 2


def test_the_same_again_by_seed(restorer: Restorer, face: RestoredFace, told: Explanation) -> None:
    again = explain(restorer, face, variations=2, seed=5)
    other = explain(restorer, face, variations=2, seed=6)
    assert np.array_equal(again.invention.map, told.invention.map)
    assert not np.array_equal(other.invention.map, told.invention.map)


def test_trusting_the_generator_varies_more(restorer: Restorer, face: RestoredFace) -> None:
    lq = face.lq
    spreads = []
    for bias in (-3.0, 3.0):
        (biased,) = restorer.restore_aligned(lq, prior_bias=bias).faces
        told = explain(restorer, biased, variations=2, prior_bias=bias)
        spreads.append(told.invention.spread.mean())
        assert told.theta == pytest.approx(float(told.masks[64].mean()), abs=1e-6)
    assert spreads[0] < spreads[1]


def test_bad_count_is_refused(restorer: Restorer, face: RestoredFace) -> None:
    with pytest.raises(ConfigError, match="variations: expected 1 to 64, got 0"):
        explain(restorer, face, variations=0)


def test_every_picture_is_one(folder: Path, face: RestoredFace) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(report.FILES)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    for name in report.FILES:
        if name.endswith(".png"):
            with Image.open(folder / name) as image:
                image.load()
    with Image.open(folder / "restored.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(face.restored))


def test_the_map_of_the_file_is_the_map(folder: Path, told: Explanation) -> None:
    with Image.open(folder / "invention.png") as image:
        assert image.mode == "L"
        assert np.asarray(image) / 255 == pytest.approx(told.invention.map, abs=0.003)


def test_json_tells_the_numbers(folder: Path, told: Explanation) -> None:
    facts = json.loads((folder / "explain.json").read_text(encoding="utf-8"))
    assert facts["photo"] == ABOUT["photo"]
    assert facts["theta"] == pytest.approx(told.theta, abs=1e-4)
    assert facts["seed"] == 5
    assert facts["prior_bias"] == 0.0
    assert facts["invention"]["mean"] == pytest.approx(told.invention.mean, abs=1e-4)
    assert list(facts["masks"]) == ["4", "8", "16", "32", "64"]
    assert sum(facts["masks"]["64"]["histogram_20_bins"]) == facts["masks"]["64"]["channels"] == 32
    assert len(facts["variations"]) == 2
    assert facts["own_resolution_px"] == told.variations.own_side


class Links(HTMLParser):
    """Collects what a page loads, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else(folder: Path) -> None:
    page = (folder / "explain.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert len(links.sources) == 11
    for source in links.sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(BytesIO(base64.b64decode(data, validate=True))) as image:
            image.load()
    assert not re.search(r"https?://|url\(|@import", page.replace("data:", ""))
    assert "script" not in links.tags


def test_the_page_escapes_what_it_is_given(folder: Path) -> None:
    links = Links()
    links.feed((folder / "explain.html").read_text(encoding="utf-8"))
    assert "b" not in links.tags
    assert f"How this face was made: {ABOUT['photo']}" in links.text


def test_nothing_is_overwritten_unasked(told: Explanation, folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folder, tmp_path / "copy")
    before = (folder / "explain.json").read_bytes()
    with pytest.raises(ImageError, match=r"overview\.png: exists already; to replace"):
        write_explanation(told, folder, about={})
    (folder / "mine.txt").write_text("kept")
    write_explanation(told, folder, about={"photo": "other"}, overwrite=True)
    assert (folder / "explain.json").read_bytes() != before
    assert (folder / "mine.txt").read_text() == "kept"


def test_a_link_to_another_disk(told: Explanation, tmp_path: Path) -> None:
    disk = Path("/dev/shm")
    if not disk.is_dir() or disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk")
    with TemporaryDirectory(dir=disk) as other:
        (tmp_path / "out").symlink_to(other)
        write_explanation(told, tmp_path / "out", about=ABOUT)
        assert sorted(path.name for path in Path(other).iterdir()) == sorted(report.FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_one_is_in(
    told: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_explanation(told, Path(), about=ABOUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(report.FILES)


def test_a_name_that_is_not_utf8(told: Explanation, tmp_path: Path) -> None:
    write_explanation(told, tmp_path, about={"photo": os.fsdecode(b"caf\xe9 \xc3\xa9.jpg")})
    facts = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    assert facts["photo"] == "caf\\xe9 é.jpg"
    assert "made: caf\\xe9 é.jpg" in (tmp_path / "explain.html").read_text(encoding="utf-8")


def test_a_file_in_the_place_of_the_folder(told: Explanation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="is a file, expected a folder"):
        write_explanation(told, tmp_path / "file", about={})


def test_a_full_disk_leaves_nothing(
    told: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def fail(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise ImageError(f"{path}: cannot be written (No space left on device)")
        path.write_bytes(content)

    monkeypatch.setattr(report, "write_whole", fail)
    with pytest.raises(ImageError, match="No space left"):
        write_explanation(told, tmp_path / "out", about={})
    assert list(tmp_path.iterdir()) == []
