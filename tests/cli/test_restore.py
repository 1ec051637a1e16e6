"""`panini restore`: files in, files out, and every way in which that can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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
def head() -> Image.Image:
    """The astronaut's head, 192 px."""
    astronaut = pytest.importorskip("skimage.data").astronaut()
    image = Image.fromarray(astronaut[:256, 97:353])
    return image.resize((192, 192), Image.Resampling.BOX)


@pytest.fixture
def photo(head: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "head.png"
    head.save(path)
    return path


@pytest.fixture
def empty_scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.new("RGBA", (60, 40), (10, 200, 30, 128)).save(path)
    return path


def run(weights: Path, *words: object) -> Any:
    return runner.invoke(
        app, ["restore", *map(str, words), "--model", str(weights), "--device", "cpu"]
    )


def test_photo_into_a_folder(photo: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = run(weights, photo, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{photo} -> {out / 'head.png'}: 1 face, θ 0.")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    with Image.open(photo) as before, Image.open(out / "head.png") as after:
        assert after.size == (192, 192)
        assert not np.array_equal(np.asarray(before), np.asarray(after))


def test_photo_into_a_file_of_another_format(photo: Path, weights: Path, tmp_path: Path) -> None:
    result = run(weights, photo, "-o", tmp_path / "sub" / "out.jpg", "--upscale", "2")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "sub" / "out.jpg") as after:
        assert after.format == "JPEG"
        assert after.size == (384, 384)


def test_saved_faces(photo: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(weights, photo, "-o", out, "--save-faces").exit_code == 0
    saved = sorted(path.name for path in (out / "faces").iterdir())
    assert saved == ["head_1_lq.png", "head_1_restored.png"]


def test_aligned(photo: Path, weights: Path, tmp_path: Path) -> None:
    result = run(weights, photo, "-o", tmp_path / "out", "--aligned")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "head.png") as after:
        assert after.size == (128, 128)


def test_prior_bias_reaches_the_network(photo: Path, weights: Path, tmp_path: Path) -> None:
    thetas = [
        float(
            run(weights, photo, "-o", tmp_path / str(bias), "--prior-bias", bias).output.split()[-1]
        )
        for bias in (-2, 2)
    ]
    assert thetas[1] > thetas[0] + 0.3


def test_bad_files_do_not_stop_the_others(photo: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:2000])
    (tmp_path / "nothing").mkdir()
    names = ["missing.jpg", "empty.jpg", "text.jpg", "cut.png", "nothing"]
    out = tmp_path / "out"
    result = run(weights, *(tmp_path / name for name in names), photo, "-o", out)
    assert result.exit_code == 1
    assert "1 face" in result.stdout
    assert [path.name for path in out.iterdir()] == ["head.png"]
    lines = sorted(result.stderr.splitlines())
    expected = {
        "missing.jpg": "does not exist",
        "empty.jpg": "the file is empty",
        "text.jpg": "not an image",
        "cut.png": "truncated",
        "nothing": "the folder holds no image",
    }
    assert len(lines) == len(expected)
    for name, words in expected.items():
        line = next(line for line in lines if f"{tmp_path / name}:" in line)
        assert line.startswith("error: ")
        assert words in line


@pytest.mark.parametrize("choice", ["copy", "skip", "fail"])
def test_no_face(choice: str, empty_scene: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(weights, empty_scene, "-o", out, "--no-face", choice)
    assert result.exit_code == (0 if choice == "skip" else 1)
    assert f"{empty_scene}: no face of at least 24 px found" in result.output
    if choice == "copy":
        assert (out / "scene.png").read_bytes() == empty_scene.read_bytes()
        assert "copied unchanged" in result.stderr
    else:
        assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "size", "words"),
    [([], (60, 40), "converted to"), (["--upscale", "2"], (120, 80), "only enlarged to")],
)
def test_no_face_in_another_format_or_size(
    options: list[str],
    size: tuple[int, int],
    words: str,
    empty_scene: Path,
    weights: Path,
    tmp_path: Path,
) -> None:
    result = run(weights, empty_scene, "-o", tmp_path / "a.jpg", *options)
    assert result.exit_code == 1
    assert words in result.stderr
    with Image.open(tmp_path / "a.jpg") as after:
        assert after.size == size


def test_existing_output(photo: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "head.png").write_bytes(b"mine")
    result = run(weights, photo, "-o", out)
    assert result.exit_code == 1
    assert "exists already; --overwrite replaces it" in result.stderr
    assert (out / "head.png").read_bytes() == b"mine"
    assert run(weights, photo, "-o", out, "--overwrite").exit_code == 0
    with Image.open(out / "head.png") as after:
        assert after.size == (192, 192)


def test_photo_is_never_its_own_output(photo: Path, weights: Path) -> None:
    before = photo.read_bytes()
    result = run(weights, photo, "-o", photo.parent, "--overwrite")
    assert result.exit_code == 1
    assert "is the photo itself" in result.stderr
    assert photo.read_bytes() == before


def test_same_name_twice_and_a_format_that_is_only_read(
    head: Image.Image, weights: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        head.save(tmp_path / folder / "head.png")
    head.save(tmp_path / "b" / "head.ppm")
    out = tmp_path / "out"
    result = run(weights, tmp_path / "a", tmp_path / "b", "-o", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == ["head-2.png", "head.png", "head.ppm.png"]


def test_many_photos_into_one_file(photo: Path, weights: Path, tmp_path: Path) -> None:
    result = run(weights, photo, photo, "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert "is one file for 2 photos; give a folder" in result.stderr


def test_file_in_place_of_the_folder(photo: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = run(weights, photo, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "is a file, expected a folder" in result.stderr
    assert "cannot be made" in run(weights, photo, "-o", tmp_path / "out" / "deep").stderr


def test_aligned_crop_that_is_not_square(empty_scene: Path, weights: Path, tmp_path: Path) -> None:
    result = run(weights, empty_scene, "-o", tmp_path / "out", "--aligned")
    assert result.exit_code == 1
    assert "expected a square aligned face, got 60x40 px" in result.stderr


def test_unknown_model(photo: Path, tmp_path: Path) -> None:
    result = runner.invoke(
        app, ["restore", str(photo), "-o", str(tmp_path / "out"), "--model", "no-such"]
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no-such: unknown model; known:")
