"""`panini restore FOLDER -r`: trees, resumption, Ctrl-C and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from panini.checkpoints import load_model, save_model
from panini.cli.main import app

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("quick_detector")

# The command, but the third photo waits until a signal comes.
WAITING = """
import sys, time
from panini import batch
run = batch.run
def wait_at_the_third(jobs, restorer, options, *, report=None, stop):
    restore, calls = restorer.restore, []
    def slow(photo, **words):
        calls.append(photo)
        if len(calls) == 3:
            print("AT THE THIRD\\n", end="", flush=True)
            while not stop():
                time.sleep(0.02)
        return restore(photo, **words)
    restorer.restore = slow
    return run(jobs, restorer, options, report=report, stop=stop)
batch.run = wait_at_the_third
from panini.cli.main import app
app()
"""

# The command, but the third result never gets its name. Another thread prints meanwhile: a line and
# its end are written at once.
STUCK = """
import time
from pathlib import Path
replace = Path.replace
def slow(part, target):
    if Path(target).name == "2.png":
        print("AT THE THIRD\\n", end="", flush=True)
        time.sleep(1000)
    return replace(part, target)
Path.replace = slow
from panini.cli.main import app
app()
"""


@pytest.fixture
def folder(head: Image.Image, tmp_path: Path) -> Path:
    """Six photos in three folders."""
    path = tmp_path / "in"
    (path / "sub" / "deep").mkdir(parents=True)
    for number in range(6):
        place = (path, path / "sub", path / "sub" / "deep")[number // 2]
        head.save(place / f"{number}.png")
    return path


def words_of(tiny_weights: Path, *words: object) -> list[str]:
    return ["restore", *map(str, words), "--model", str(tiny_weights), "--device", "cpu"]


def run(tiny_weights: Path, *words: object) -> Any:
    return runner.invoke(app, words_of(tiny_weights, *words))


def results(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


ALL = ["0.png", "1.png", "report.jsonl", "sub/2.png", "sub/3.png", "sub/deep/4.png"]
ALL.append("sub/deep/5.png")


def test_tree_is_kept_and_reported(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(tiny_weights, folder, "-r", "-o", out)
    assert result.exit_code == 0, result.output
    assert results(out) == ALL
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert {line["output"] for line in lines} == set(ALL) - {"report.jsonl"}
    for line in lines:
        assert line["state"] == "done"
        assert 0 < line["faces"][0]["theta"] < 1
        assert line["settings"]["model"].startswith("tiny.safetensors ")
    assert result.stdout.splitlines()[-1] == "6 restored"
    assert result.stderr == ""


def test_second_run_does_what_is_missing(
    folder: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(tiny_weights, folder, "-r", "-o", out).exit_code == 0
    (out / "sub" / "2.png").unlink()
    before = {name: (out / name).stat().st_mtime_ns for name in results(out)}
    result = run(tiny_weights, folder, "-r", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "1 restored, 5 done before"
    assert results(out) == ALL
    after = {name: (out / name).stat().st_mtime_ns for name in before}
    assert {name for name in after if after[name] != before[name]} == {"report.jsonl"}

    def unused(*_: object) -> None:
        raise AssertionError("the model was loaded for nothing")

    with monkeypatch.context() as patched:
        patched.setattr("panini.restorer.Restorer.from_pretrained", unused)
        assert run(tiny_weights, folder, "-r", "-o", out).stdout == "6 done before\n"
    everything = run(tiny_weights, folder, "-r", "-o", out, "--overwrite")
    assert everything.stdout.splitlines()[-1] == "6 restored"


def test_other_settings_and_changed_photos_are_not_replaced_unasked(
    folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(tiny_weights, folder, "-r", "-o", out).exit_code == 0
    other = run(tiny_weights, folder, "-r", "-o", out, "--prior-bias", "1")
    assert other.exit_code == 1
    assert other.stderr.count("exists already, of another photo or with other settings") == 6
    os.utime(folder / "0.png", (1, 1))
    changed = run(tiny_weights, folder, "-r", "-o", out)
    assert changed.exit_code == 1
    assert changed.stdout == "1 failed, 5 done before\n"
    assert f"{out / '0.png'}: exists already" in changed.stderr


def test_other_weights_under_a_name_of_the_hub_are_another_model(
    folder: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = tmp_path / "model.safetensors"
    monkeypatch.setattr("panini.checkpoints.hub.fetch", lambda _: pushed)
    out = tmp_path / "out"
    words = ["restore", str(folder / "sub" / "deep"), "-r", "-o", str(out), "--device", "cpu"]
    words += ["--model", "hf://me/net"]
    save_model(load_model(tiny_weights), pushed, provenance={"version": 1})
    assert runner.invoke(app, words).exit_code == 0
    result = runner.invoke(app, words)
    assert result.stdout.splitlines()[-1] == "2 done before"
    before = (out / "report.jsonl").read_text()
    assert json.loads(before.splitlines()[0])["settings"]["model"].startswith("hf://me/net ")
    save_model(load_model(tiny_weights), pushed, provenance={"version": 2})
    assert runner.invoke(app, words).exit_code == 1
    result = runner.invoke(app, [*words, "--overwrite"])
    assert result.stdout.splitlines()[-1] == "2 restored"


def test_foreign_results_are_not_replaced(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "2.png").write_bytes(b"mine")
    result = run(tiny_weights, folder, "-r", "-o", out)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "5 restored, 1 failed"
    assert (out / "sub" / "2.png").read_bytes() == b"mine"


def test_output_inside_the_input(folder: Path, tiny_weights: Path) -> None:
    for _ in range(2):
        result = run(tiny_weights, folder, "-r", "-o", folder / "restored", "--overwrite")
        assert result.exit_code == 0, result.output
        assert results(folder / "restored") == ALL


def test_bad_photos_in_a_tree(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    cut = (folder / "0.png").read_bytes()[:2000]
    (folder / "sub" / "cut.png").write_bytes(cut)
    (folder / "sub" / "text.jpg").write_text("hello")
    Image.new("RGB", (60, 40), (10, 200, 30)).save(folder / "scene.png")
    out = tmp_path / "out"
    result = run(tiny_weights, folder, "-r", "-o", out, "--format", "jpg", "--quality", "80")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "6 restored, 1 copied, 2 failed"
    errors = sorted(result.stderr.splitlines())
    assert len(errors) == 3
    assert errors[0].startswith(f"error: {folder / 'scene.png'}: no face of at least 24 px found")
    assert "truncated" in errors[1]
    assert "not an image" in errors[2]
    again = run(tiny_weights, folder, "-r", "-o", out, "--format", "jpg", "--quality", "80")
    assert again.stdout.splitlines()[-1] == "2 failed, 7 done before"


def test_name_that_is_not_utf8(head: Image.Image, tiny_weights: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "in").mkdir()
    try:
        head.save(tmp_path / "in" / name, "PNG")
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    result = run(tiny_weights, tmp_path / "in", "-r", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "caf�.png" in result.stdout
    assert (tmp_path / "out" / name).exists()
    again = run(tiny_weights, tmp_path / "in", "-r", "-o", tmp_path / "out")
    assert again.stdout == "1 done before\n"


def test_two_runs_in_one_folder(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from panini.batch import Report

    with Report(tmp_path / "out", {}):
        result = run(tiny_weights, folder, "-r", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "another run is writing to this folder; wait for it" in result.stderr


def start(code: str, words: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, as far as the third photo."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "AT THE THIRD\n":
            break
    return process


def whole(out: Path) -> list[str]:
    """The results, each of which can be read to its end."""
    found = [name for name in results(out) if not Path(name).name.startswith(".")]
    for name in found:
        if name.endswith(".png"):
            with Image.open(out / name) as image:
                image.load()
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_ctrl_c_stops_after_the_photo_at_hand(
    folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = words_of(tiny_weights, folder, "-r", "-o", out)
    process = start(WAITING, words)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "stopping after the photo at hand; Ctrl-C again stops at once" in errors
    last = errors.splitlines()[-1]
    assert last == "error: stopped: 3 of 6 photos done; the same command goes on from there"
    assert "Traceback" not in errors
    assert whole(out) == ["0.png", "1.png", "report.jsonl", "sub/2.png"]
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "3 restored, 3 done before"
    assert results(out) == ALL


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_kill_leaves_whole_files(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = words_of(tiny_weights, folder, "-r", "-o", out)
    process = start(STUCK, words)
    process.kill()
    process.communicate(timeout=300)
    # The other thread of the two that write may have gone on.
    assert set(whole(out)) <= set(ALL) - {"sub/2.png"}
    assert {"0.png", "1.png", "report.jsonl"} <= set(whole(out))
    assert any(path.name.startswith(".") for path in (out / "sub").iterdir())
    before = {name: (out / name).stat().st_mtime_ns for name in whole(out)}
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert results(out) == ALL
    changed = {name for name in before if (out / name).stat().st_mtime_ns != before[name]}
    assert changed == {"report.jsonl"}
    done = len(before) - 1
    assert result.stdout.splitlines()[-1] == f"{6 - done} restored, {done} done before"
