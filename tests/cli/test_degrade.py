"""`panini degrade`: what is written, what is said, and what is refused."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from panini.cli.degrade import Preset
from panini.cli.degrade import degrade as command
from panini.cli.main import app as panini
from panini.degradations import SAMPLERS, DegradationParams, degrade
from panini.images import read_rgb

app = typer.Typer()
app.command()(command)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (40, 48)) -> Path:
    """A smooth picture as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


def record(path: Path) -> dict[str, float]:
    with Image.open(path) as image:
        return json.loads(image.info["panini:degradation"])


def test_a_file_is_degraded_as_the_reference_does(tmp_path):
    source = draw(tmp_path / "in.png")
    target = tmp_path / "out.png"
    result = run(source, target, "--r", 4, "--sigma", 1.5, "--noise", 10, "--jpeg", 40, "--seed", 7)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{source} -> {target}: --r 4 --sigma 1.5 --noise 10 --jpeg 40 --seed 7\n"
    )
    params = DegradationParams(rate=4, sigma=1.5, noise=10, jpeg=40)
    expected = degrade(read_rgb(source), params, np.random.default_rng(7))
    assert np.array_equal(read_rgb(target), expected)
    assert record(target) == {**params.to_dict(), "seed": 7}


@pytest.mark.parametrize("preset", SAMPLERS)
def test_the_printed_options_make_the_same_image_again(tmp_path, preset):
    source = draw(tmp_path / "in.png")
    drawn = run(source, tmp_path / "drawn.png", "--preset", preset, "--seed", 3)
    options = shlex.split(drawn.stdout.rpartition(": ")[2])
    again = run(source, tmp_path / "again.png", *options)
    assert (drawn.exit_code, again.exit_code) == (0, 0)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "drawn.png").read_bytes()


def test_presets_are_the_samplers():
    assert {preset.value for preset in Preset} == set(SAMPLERS)


def test_a_number_given_replaces_the_drawn_one(tmp_path):
    source = draw(tmp_path / "in.png")
    assert run(source, tmp_path / "a.png", "--preset", "floor").exit_code == 0
    assert run(source, tmp_path / "b.png", "--preset", "floor", "--r", 2).exit_code == 0
    assert record(tmp_path / "b.png") == {**record(tmp_path / "a.png"), "rate": 2}


def test_a_folder_is_mirrored_as_png_and_each_file_has_its_own_seed(tmp_path):
    draw(tmp_path / "in" / "a.jpg")
    draw(tmp_path / "in" / "sub" / "b.webp")
    draw(tmp_path / "in" / ".hidden" / "c.png")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    result = run(tmp_path / "in", tmp_path / "out", "--preset", "measured")
    assert result.exit_code == 0
    written = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*"))
    assert written == [Path("a.png"), Path("sub/b.png")]
    first, second = record(tmp_path / "out/a.png"), record(tmp_path / "out/sub/b.png")
    assert all(first[name] != second[name] for name in ("sigma", "rate", "noise", "seed"))

    # A file's seed depends on its name alone, and gives the same bytes when used by hand.
    draw(tmp_path / "in" / "0.png")
    assert run(tmp_path / "in", tmp_path / "more", "--preset", "measured").exit_code == 0
    assert (tmp_path / "more/a.png").read_bytes() == (tmp_path / "out/a.png").read_bytes()
    options = ["--preset", "measured", "--seed", first["seed"]]
    assert run(tmp_path / "in/a.jpg", tmp_path / "one.png", *options).exit_code == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out/a.png").read_bytes()


def test_names_that_differ_by_suffix_only_keep_it(tmp_path):
    draw(tmp_path / "in" / "a.jpg", seed=1)
    draw(tmp_path / "in" / "a.png", seed=2)
    assert run(tmp_path / "in", tmp_path / "out", "--noise", 5).exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg.png", "a.png.png"]


def test_no_image_replaces_another(tmp_path):
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        draw(tmp_path / "in" / name)
    result = run(tmp_path / "in", tmp_path / "out", "--noise", 5, "--overwrite")
    assert result.exit_code == 2
    assert result.stderr == "error: a.jpg and a.jpg.png would both be a.jpg.png; rename one\n"
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        draw(tmp_path / "in" / name)
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    words = ["degrade", str(tmp_path / "in"), str(tmp_path / "out"), "--noise", "5"]
    result = CliRunner().invoke(panini, words)
    assert result.exit_code == 0, result.output
    assert record(tmp_path / "out" / name)["noise"] == 5


def test_seeds_follow_the_names(tmp_path):
    draw(tmp_path / "in" / "a.jpg")
    draw(tmp_path / "in" / "sub" / "é.png")
    assert run(tmp_path / "in", tmp_path / "out", "--noise", 5, "--seed", 3).exit_code == 0
    seeds = [record(tmp_path / "out" / name)["seed"] for name in ("a.png", "sub/é.png")]
    assert seeds == [972934949, 3539339502]


def test_an_output_folder_inside_the_input_is_not_read_again(tmp_path):
    draw(tmp_path / "a.png")
    for _ in range(2):
        assert run(tmp_path, tmp_path / "low", "--r", 4, "--overwrite").exit_code == 0
    assert [p.name for p in (tmp_path / "low").rglob("*")] == ["a.png"]


@pytest.mark.parametrize("name", ["new", "there"])
def test_a_file_goes_into_a_folder_under_its_name(tmp_path, name):
    (tmp_path / "there").mkdir()
    assert run(draw(tmp_path / "in.jpg"), tmp_path / name, "--r", 4).exit_code == 0
    assert record(tmp_path / name / "in.png")["rate"] == 4


def test_other_formats_follow_the_suffix(tmp_path):
    assert run(draw(tmp_path / "in.png"), tmp_path / "out.jpg", "--r", 4).exit_code == 0
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "JPEG"


def test_outputs_are_not_replaced_unasked(tmp_path):
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "b.png")
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "a.png"
    kept.write_bytes(b"mine")
    result = run(tmp_path / "in", tmp_path / "out", "--r", 4)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: {kept}: exists already; to replace it: --overwrite, in Python overwrite=True",
        "error: 1 of 2 images failed",
    ]
    assert kept.read_bytes() == b"mine"
    assert record(tmp_path / "out" / "b.png")["rate"] == 4

    assert run(tmp_path / "in", tmp_path / "out", "--r", 4, "--overwrite").exit_code == 0
    assert record(kept)["rate"] == 4


def test_a_damaged_file_does_not_stop_the_others(tmp_path):
    draw(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "a.png").write_bytes(b"")
    result = run(tmp_path / "in", tmp_path / "out", "--jpeg", 30)
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'in/a.png'}: the file is empty" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("source", "target", "options", "code", "message"),
    [
        ("in/a.png", "o.png", [], 2, "nothing to do: give --preset, or some of --r"),
        ("in/a.png", "o.png", ["--r", "0.5"], 2, "expected rate to be a number in 1"),
        ("in/a.png", "o.png", ["--preset", "floor", "--jpeg", "101"], 2, "expected jpeg"),
        ("in/a.png", "in/a.png", ["--r", "2", "--overwrite"], 1, "is the input itself"),
        ("in/a.png", "o.xyz", ["--r", "2"], 1, "cannot write '.xyz' files"),
        ("gone.png", "o.png", ["--r", "2"], 1, "gone.png: does not exist"),
        ("in", "in", ["--r", "2"], 2, "the input folder cannot be the output folder"),
        ("in", "in/a.png", ["--r", "2"], 2, "is a file, expected a folder"),
        ("empty", "o", ["--r", "2"], 2, "empty: the folder holds no image"),
    ],
)
def test_mistakes_get_one_line(tmp_path, source, target, options, code, message):
    before = draw(tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / source, tmp_path / target, *options)
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert (tmp_path / "in/a.png").read_bytes() == before
    assert not (tmp_path / "o.png").exists()
