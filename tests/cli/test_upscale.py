"""`panini upscale`: files in, files out, and what is said when that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from panini.cli.main import app

runner = CliRunner()


@pytest.fixture
def face(head: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    head.resize((64, 64), Image.Resampling.BOX).save(path)
    return path


def run(weights: Path, *words: object) -> Any:
    return runner.invoke(
        app, ["upscale", *map(str, words), "--model", str(weights), "--device", "cpu"]
    )


def test_faces_into_a_folder(face: Path, sr16_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    face.rename(tmp_path / "more" / "a.png")
    (tmp_path / "more" / "b.png").write_bytes((tmp_path / "more" / "a.png").read_bytes())
    out = tmp_path / "out"
    result = run(sr16_weights, tmp_path / "more", "-o", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(line.endswith(" (the same for every face)") for line in lines)
    assert [line.split(" θ ")[0] for line in lines] == [
        f"{tmp_path / 'more' / name} -> {out / name}: 128x128 px," for name in ("a.png", "b.png")
    ]
    with Image.open(out / "a.png") as image:
        assert image.size == (128, 128)


def test_consistent_changes_the_face(face: Path, sr16_weights: Path, tmp_path: Path) -> None:
    pictures = []
    for name, words in (("plain.png", []), ("consistent.png", ["--consistent"])):
        result = run(sr16_weights, face, "-o", tmp_path / name, *words)
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / name) as image:
            reduced = image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
            pictures.append(np.asarray(reduced, dtype=float))
    with Image.open(face) as image:
        lq = np.asarray(image.convert("RGB"), dtype=float)
    plain, consistent = (np.abs(picture - lq).mean() for picture in pictures)
    assert consistent < 0.3 * plain


def test_a_bad_face_does_not_stop_the_others(
    face: Path, sr16_weights: Path, tmp_path: Path
) -> None:
    wide, empty, wall = (tmp_path / f"{name}.png" for name in ("wide", "empty", "wall"))
    Image.new("RGB", (64, 40)).save(wide)
    empty.touch()
    Image.new("RGB", (64, 64), (150, 120, 90)).save(wall)
    result = run(sr16_weights, wide, empty, wall, face, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["face.png"]
    first, second, third = result.stderr.splitlines()
    assert first.startswith(f"error: {wide}: expected a square aligned face, got 64x40 px")
    assert second.startswith(f"error: {empty}: ")
    assert third.startswith(f"error: {wall}: expected an aligned face, found none")


def test_another_side_is_said(
    head: Image.Image, sr16_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head.save(tmp_path / "head.png")
    result = run(sr16_weights, tmp_path / "head.png", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert caplog.messages == [
        f"{tmp_path / 'head.png'}: resized from 128 to 64 px, which the network takes"
    ]


def test_nothing_is_overwritten_unasked(face: Path, sr16_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"mine")
    result = run(sr16_weights, face, "-o", out)
    assert result.exit_code == 1
    assert "exists already; to replace it: --overwrite, in Python overwrite=True" in result.stderr
    assert out.read_bytes() == b"mine"
    assert run(sr16_weights, face, "-o", out, "--overwrite").exit_code == 0
    itself = run(sr16_weights, face, "-o", face.parent, "--overwrite")
    assert itself.exit_code == 1
    assert "is the face itself" in itself.stderr


def test_a_network_for_another_task_is_refused_once(
    face: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "again.png").write_bytes(face.read_bytes())
    result = run(tiny_weights, face, tmp_path / "again.png", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: tiny.safetensors: is for task mfr")
    assert result.stderr.count("\n") == 1


def test_help_names_only_options_of_its_own() -> None:
    result = runner.invoke(app, ["upscale", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Replace outputs." in result.stdout
    assert "-r " not in result.stdout
