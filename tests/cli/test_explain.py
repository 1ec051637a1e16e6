"""`panini explain`: a folder that tells how a face was made, and every way to go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from panini.checkpoints import save_model
from panini.cli.main import app
from panini.models.panini_net import PaniniNet

runner = CliRunner()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(PaniniNet.named("tiny"), path, provenance={})
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut's head, 192 px."""
    astronaut = pytest.importorskip("skimage.data").astronaut()
    path = tmp_path_factory.mktemp("photos") / "head.png"
    image = Image.fromarray(astronaut[:256, 97:353])
    image.resize((192, 192), Image.Resampling.BOX).save(path)
    return path


def run(weights: Path, *words: object) -> Any:
    options = ["--model", str(weights), "--device", "cpu", "--variations", "1"]
    return runner.invoke(app, ["explain", *map(str, words), *options])


def test_a_photo(photo: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(weights, photo, "-o", out, "--prior-bias", "64=1,32=-0.5", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{photo} -> {out / 'explain.html'}: θ 0.")
    facts = json.loads((out / "explain.json").read_text(encoding="utf-8"))
    assert facts["photo"] == "head.png"
    assert facts["model"] == "tiny.safetensors"
    assert facts["face"] == "largest"
    assert facts["prior_bias"] == {"64": 1.0, "32": -0.5}
    assert facts["seed"] == 7
    assert (out / "heatmap.png").is_file()
    again = run(weights, photo, "-o", out)
    assert again.exit_code == 1
    assert "exists already; to replace it: --overwrite" in again.stderr
    assert run(weights, photo, "-o", out, "--overwrite", "--face", "1").exit_code == 0


def test_an_aligned_face(photo: Path, weights: Path, tmp_path: Path) -> None:
    result = run(weights, photo, "-o", tmp_path / "out", "--aligned")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "out" / "explain.json").read_text(encoding="utf-8"))
    assert facts["face"] == "aligned"
    assert facts["box"] == [0, 0, 192, 192]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prior-bias", "9"], "prior bias '9': expected a number in -3..3"),
        (["--face", "all"], "--face all: one face is explained"),
        (["--face", "nose"], "got 'nose'"),
        (["--face", "2"], "no face 2"),
    ],
)
def test_bad_options(
    photo: Path, weights: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = run(weights, photo, "-o", tmp_path / "out", *words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_photo(weights: Path, tmp_path: Path) -> None:
    result = run(weights, tmp_path / "none.png", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path / 'none.png'}: does not exist\n"
    result = run(weights, tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "is no image file; give one photo" in result.stderr


def test_no_face(weights: Path, tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), (10, 200, 30)).save(tmp_path / "scene.png")
    result = run(weights, tmp_path / "scene.png", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "no face was found; a face crop is explained with --aligned" in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_room_for_the_folder(photo: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = run(weights, photo, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "is a file, expected a folder" in result.stderr


@pytest.mark.usefixtures("auto_weights")
def test_small_faces_by_their_own_network(head: Image.Image, tmp_path: Path) -> None:
    head.resize((64, 64)).save(tmp_path / "small.png")
    out = tmp_path / "out"
    words = ["explain", str(tmp_path / "small.png"), "-o", str(out), "--model", "auto"]
    result = runner.invoke(app, [*words, "--aligned", "--variations", "2", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert " (the same for every face), mean invention" in result.stdout
    told = json.loads((out / "explain.json").read_text())
    assert (told["model"], told["theta_fixed"]) == ("tiny-sr16.safetensors", True)
    assert "the same for every face" in (out / "explain.html").read_text()
