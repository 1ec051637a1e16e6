"""`panini restore`: files in, files out, and every way in which that can go wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from panini.cli.main import app
from panini.models.panini_net import PaniniNet

runner = CliRunner()


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest) -> None:
    """Only the tests that ask for `real_detector` search for faces."""
    if "real_detector" not in request.fixturenames:
        request.getfixturevalue("quick_detector")


@pytest.fixture
def real_detector() -> None:
    """See `_quick`."""


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


def run(tiny_weights: Path, *words: object) -> Any:
    return runner.invoke(
        app, ["restore", *map(str, words), "--model", str(tiny_weights), "--device", "cpu"]
    )


@pytest.mark.usefixtures("real_detector")
def test_photo_into_a_folder(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = run(tiny_weights, photo, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{photo} -> {out / 'head.png'}: 1 face, θ 0.")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    with Image.open(photo) as before, Image.open(out / "head.png") as after:
        assert after.size == (128, 128)
        assert not np.array_equal(np.asarray(before), np.asarray(after))


def test_photo_into_a_file_of_another_format(
    photo: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    result = run(tiny_weights, photo, "-o", tmp_path / "sub" / "out.jpg", "--upscale", "2")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "sub" / "out.jpg") as after:
        assert after.format == "JPEG"
        assert after.size == (256, 256)


def test_saved_faces(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tiny_weights, photo, "-o", out, "--save-faces").exit_code == 0
    saved = sorted(path.name for path in (out / "faces").iterdir())
    assert saved == ["head_1_lq.png", "head_1_restored.png"]


def test_aligned(head: Image.Image, tiny_weights: Path, tmp_path: Path) -> None:
    head.resize((100, 100)).save(tmp_path / "head.png")
    result = run(tiny_weights, tmp_path / "head.png", "-o", tmp_path / "out", "--aligned")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "head.png") as after:
        assert after.size == (128, 128)


def test_prior_bias_reaches_the_network(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    thetas = [
        float(
            run(
                tiny_weights, photo, "-o", tmp_path / str(bias), "--prior-bias", bias
            ).output.split()[-1]
        )
        for bias in (-2, 2)
    ]
    assert thetas[1] > thetas[0] + 0.3


def test_bad_files_do_not_stop_the_others(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:2000])
    (tmp_path / "nothing").mkdir()
    names = ["missing.jpg", "empty.jpg", "text.jpg", "cut.png", "nothing"]
    out = tmp_path / "out"
    result = run(tiny_weights, *(tmp_path / name for name in names), photo, "-o", out)
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


@pytest.mark.usefixtures("real_detector")
@pytest.mark.parametrize("choice", ["copy", "skip", "fail"])
def test_no_face(choice: str, empty_scene: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(tiny_weights, empty_scene, "-o", out, "--no-face", choice)
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
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    result = run(tiny_weights, empty_scene, "-o", tmp_path / "a.jpg", *options)
    assert result.exit_code == 1
    assert words in result.stderr
    with Image.open(tmp_path / "a.jpg") as after:
        assert after.size == size


def test_existing_output(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "head.png").write_bytes(b"mine")
    result = run(tiny_weights, photo, "-o", out)
    assert result.exit_code == 1
    assert "exists already; to replace it: --overwrite" in result.stderr
    assert (out / "head.png").read_bytes() == b"mine"
    assert run(tiny_weights, photo, "-o", out, "--overwrite").exit_code == 0
    with Image.open(out / "head.png") as after:
        assert after.size == (128, 128)


def test_photo_is_never_its_own_output(photo: Path, tiny_weights: Path) -> None:
    before = photo.read_bytes()
    result = run(tiny_weights, photo, "-o", photo.parent, "--overwrite")
    assert result.exit_code == 1
    assert "is the photo itself" in result.stderr
    assert photo.read_bytes() == before


def test_same_name_twice_and_a_format_that_is_only_read(
    head: Image.Image, tiny_weights: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        head.save(tmp_path / folder / "head.png")
    head.save(tmp_path / "b" / "head.ppm")
    out = tmp_path / "out"
    result = run(tiny_weights, tmp_path / "a", tmp_path / "b", "-o", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == ["head-2.png", "head.png", "head.ppm.png"]


def test_many_photos_into_one_file(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    result = run(tiny_weights, photo, photo, "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert "is one file for 2 photos; give a folder" in result.stderr


def test_file_in_place_of_the_folder(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = run(tiny_weights, photo, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "is a file, expected a folder" in result.stderr
    assert "cannot be made" in run(tiny_weights, photo, "-o", tmp_path / "out" / "deep").stderr


def test_aligned_crop_that_is_not_square(
    empty_scene: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    result = run(tiny_weights, empty_scene, "-o", tmp_path / "out", "--aligned")
    assert result.exit_code == 1
    assert "expected a square aligned face, got 60x40 px" in result.stderr


def test_unknown_model(photo: Path, tmp_path: Path) -> None:
    result = runner.invoke(
        app, ["restore", str(photo), "-o", str(tmp_path / "out"), "--model", "no-such"]
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no-such: unknown model; known:")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--faces", "left"], "faces: expected all, largest, center or a number from 1 on"),
        (["--faces", "0"], "faces: expected all, largest, center or a number from 1 on"),
        (["--faces", "2"], "head.png: faces: there is no face 2, the photo has 1 face"),
        (["--aligned", "--faces", "1"], "--faces chooses among the faces of a photo"),
        (["--aligned", "--upscale", "2"], "--upscale enlarges the rest of a photo"),
        (["--format", "psd"], "--format: cannot write 'psd'; use one of avif"),
        (["--prior-bias", "strong"], "strong"),
        (["--prior-bias", "4"], "4"),
        (["--prior-bias", "64=x"], "64=x"),
        (["--quality", "0"], "--quality"),
        (["--min-face", "3"], "--min-face"),
        (["--variations", "-1"], "--variations"),
    ],
)
def test_bad_options(
    words: list[str], expected: str, photo: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    result = run(tiny_weights, photo, "-o", tmp_path / "out", *words)
    assert result.exit_code in (1, 2)
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("out/*"))


def test_format_and_quality(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    sizes = []
    for quality in (30, 95):
        out = tmp_path / str(quality)
        words = ("--format", "JPG", "--quality", quality)
        assert run(tiny_weights, photo, "-o", out, *words).exit_code == 0
        sizes.append((out / "head.jpg").stat().st_size)
        with Image.open(out / "head.jpg") as after:
            assert after.format == "JPEG"
    assert sizes[0] < sizes[1]


def test_bias_by_level(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    level = max(PaniniNet.named("tiny").config.fusion.prior_channels)
    thetas = [
        float(
            run(tiny_weights, photo, "-o", tmp_path / text, "--prior-bias", text).output.split()[-1]
        )
        for text in (f"{level}=-2", f"{level}=2")
    ]
    assert thetas[1] > thetas[0] + 0.3


@pytest.mark.usefixtures("real_detector")
def test_chosen_faces(head: Image.Image, tiny_weights: Path, tmp_path: Path) -> None:
    both = Image.new("RGB", (256, 128))
    both.paste(head, (0, 0))
    both.paste(head, (128, 0))
    both.save(tmp_path / "both.png")
    counts = {}
    for choice in ("all", "largest", "center", "2"):
        result = run(
            tiny_weights, tmp_path / "both.png", "-o", tmp_path / choice, "--faces", choice
        )
        assert result.exit_code == 0, result.output
        counts[choice] = result.stdout.split(": ")[1].split(",")[0]
    assert counts == {"all": "2 faces", "largest": "1 face", "center": "1 face", "2": "1 face"}


def test_mark_can_be_left_out(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    assert run(tiny_weights, photo, "-o", tmp_path / "marked").exit_code == 0
    assert run(tiny_weights, photo, "-o", tmp_path / "bare", "--no-mark").exit_code == 0
    marked, bare = ((tmp_path / name / "head.png").read_bytes() for name in ("marked", "bare"))
    assert b"trainedAlgorithmicMedia" in marked or b"AlgorithmicMedia" in marked
    assert b"AlgorithmicMedia" not in bare


def test_grey_photo_stays_grey_unless_asked(
    head: Image.Image, tiny_weights: Path, tmp_path: Path
) -> None:
    head.convert("L").save(tmp_path / "grey.png")
    modes = []
    for name, words in (("grey", []), ("colour", ["--keep-colour"])):
        assert (
            run(tiny_weights, tmp_path / "grey.png", "-o", tmp_path / name, *words).exit_code == 0
        )
        with Image.open(tmp_path / name / "grey.png") as after:
            modes.append(after.mode)
    assert modes == ["L", "RGB"]


def test_pasting_options_reach_the_face(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    choices = {"plain": [], "own": ["--no-colour-match"], "grain": ["--grain", "--seed", "3"]}
    contents = set()
    for name, words in choices.items():
        assert run(tiny_weights, photo, "-o", tmp_path / name, "--no-mark", *words).exit_code == 0
        with Image.open(tmp_path / name / "head.png") as after:
            contents.add(after.tobytes())
    assert len(contents) == len(choices)


def test_variations(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(tiny_weights, photo, "-o", out, "--variations", "2", "--seed", "5")
    assert done.exit_code == 0
    assert re.search(r"variations differ by \d\S* pixel_rms_levels or more", done.output)
    names = sorted(path.name for path in out.iterdir() if path.suffix == ".png")
    assert names == ["head.png", "head_v1.png", "head_v2.png", "head_variations.png"]


def test_help_groups_the_options() -> None:
    result = runner.invoke(app, ["restore", "--help"])
    for panel in ("Files", "Which faces", "How strongly", "Back into the photo"):
        assert panel in result.output
