"""`--model auto`: small faces by one network, large ones by another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from panini.batch import FaceRecord
from panini.cli.main import app
from panini.cli.restore import told_thetas
from panini.faces.align import TEMPLATE
from panini.faces.detect import Face
from panini.photos import load_photo

runner = CliRunner()


class LargeAndSmall:
    """Finds a face of 120 px and one of 60 px beside it."""

    def detect(self, photo: np.ndarray, **_: Any) -> list[Face]:
        faces = []
        for left, side in ((0.0, 120.0), (130.0, 60.0)):
            points = (TEMPLATE * side + (left, 0)).astype(np.float32)
            faces.append(Face(box=(left, 0.0, left + side, side), landmarks=points, score=1.0))
        return faces


@pytest.fixture
def photo(head: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("panini.restorer.FaceDetector", LargeAndSmall)
    image = Image.new("RGB", (192, 128), (90, 90, 90))
    image.paste(head.resize((120, 120)), (0, 0))
    image.paste(head.resize((60, 60)), (130, 0))
    image.save(tmp_path / "two.png")
    return tmp_path / "two.png"


def run(*words: object) -> Any:
    return runner.invoke(app, ["restore", *map(str, words), "--model", "auto", "--device", "cpu"])


@pytest.mark.usefixtures("auto_weights")
def test_each_face_by_the_network_that_suits_it(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(photo, "-o", out, "-r", "--save-faces")
    assert result.exit_code == 0, result.output
    line = result.stdout.splitlines()[0]
    assert re.search(
        r": 2 faces, θ 0\.\d\d \(tiny\.safetensors\) 0\.\d\d "
        r"\(tiny-sr16\.safetensors, the same for every face\)$",
        line,
    )
    lines = [json.loads(text) for text in (out / "report.jsonl").read_text().splitlines()]
    assert [entry["state"] for entry in lines] == ["begun", "done"]
    entry = lines[-1]
    told = [(face["model"], face["theta_fixed"]) for face in entry["faces"]]
    assert told == [("tiny.safetensors", False), ("tiny-sr16.safetensors", True)]
    assert entry["settings"]["model"].startswith("auto: tiny.safetensors ")
    for number, side in ((1, 128), (2, 64)):
        with Image.open(out / "faces" / f"two_{number}_lq.png") as lq:
            assert lq.size == (side, side)
    xmp = (load_photo(out / "two.png").metadata.xmp or b"").decode()
    assert "<panini:Model>tiny.safetensors, tiny-sr16.safetensors</panini:Model>" in xmp
    assert '"models": ["tiny.safetensors", "tiny-sr16.safetensors"]' in xmp
    assert '"theta_fixed": [false, true]' in xmp
    assert "1 done before" in run(photo, "-o", out, "-r", "--save-faces").stdout


@pytest.mark.usefixtures("auto_weights")
def test_consistency_is_for_small_faces(photo: Path, tmp_path: Path) -> None:
    faces = {}
    for name, words in (("plain", []), ("consistent", ["--consistent"])):
        result = run(photo, "-o", tmp_path / name, "--save-faces", *words)
        assert result.exit_code == 0, result.output
        folder = tmp_path / name / "faces"
        # Their mark tells of the photo's other face: the pixels are compared.
        faces[name] = [load_photo(folder / f"two_{n}_restored.png").rgb for n in (1, 2)]
    assert np.array_equal(faces["plain"][0], faces["consistent"][0])
    assert not np.array_equal(faces["plain"][1], faces["consistent"][1])


@pytest.mark.usefixtures("auto_weights")
def test_variations_and_aligned_crops(photo: Path, head: Image.Image, tmp_path: Path) -> None:
    result = run(photo, "-o", tmp_path / "out", "--variations", 1)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "two_v1.png").exists()
    head.resize((64, 64)).save(tmp_path / "small.png")
    result = run(tmp_path / "small.png", "-o", tmp_path / "out", "--aligned")
    assert "(tiny-sr16.safetensors, the same for every face)" in result.stdout


def test_consistency_needs_super_resolution(
    photo: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["restore", photo, photo, "-o", tmp_path / "out", "--consistent"]
    result = runner.invoke(app, [*map(str, words), "--model", str(tiny_weights)])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: consistent: is for faces drawn by a network for sr16, and tiny.safetensors is "
        "for task mfr\n"
    )


def test_thetas_are_told() -> None:
    def record(model: str, theta: float, fixed: bool = False) -> FaceRecord:
        return FaceRecord(box=(0, 0, 1, 1), model=model, theta=theta, theta_fixed=fixed)

    assert told_thetas([record("a", 0.361), record("a", 0.3)]) == "θ 0.36 0.30"
    assert told_thetas([record("b", 0.25, True)]) == "θ 0.25 (the same for every face)"
    assert told_thetas([record("b", float("nan"), True)]) == "θ –"
    both = [record("a", 0.5), record("b", 0.25, True), record("b", 0.25, True)]
    assert told_thetas(both, named=True) == "θ 0.50 (a) 0.25 0.25 (b, the same for every face)"
