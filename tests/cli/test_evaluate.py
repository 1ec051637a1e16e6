from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from panini.checkpoints import save_model
from panini.cli.evaluate import _bar, evaluate
from panini.cli.logs import show_log
from panini.models.panini_net import PaniniNet, named_config

METRICS = "psnr,ssim,lpips,identity,grid,theta"


@pytest.fixture(scope="module")
def parts():
    """The fixtures of the evaluation's own tests, as functions."""
    path = Path(__file__).parents[1] / "evaluation" / "conftest.py"
    spec = importlib.util.spec_from_file_location("evaluation_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def metrics_dir(parts, tmp_path_factory) -> Path:
    judge = parts.judge.__wrapped__()
    return parts.metrics_dir.__wrapped__(judge, tmp_path_factory)


@pytest.fixture(scope="module")
def photo(parts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a.png"
    Image.fromarray(parts.make_face(0)).save(path)
    return path


def save(path: Path, *, task: str = "mfr", seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tiny = named_config("tiny")
    if task == "sr16":
        encoder = replace(tiny.encoder, in_size=64, unshuffle=1)
        tiny = replace(tiny, task="sr16", encoder=encoder, degradation_encoder=None)
    path.parent.mkdir(exist_ok=True)
    save_model(PaniniNet(tiny), path, provenance={})
    return path


def run_command(*arguments: object):
    app = Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_models_are_compared_and_the_report_goes_on(tmp_path, metrics_dir, photo) -> None:
    models = [save(tmp_path / name / "net.safetensors", seed=s) for s, name in enumerate("ab")]
    options = ["--data", photo, "--metrics-dir", metrics_dir, "--metrics", METRICS]
    options += ["--out", tmp_path / "out", "--device", "cpu"]
    options += ["--model", models[0]]
    # An output of 128 px cannot be compared at 256 px, but enlarged it can; it is poor, not wrong.
    done = run_command(*options, "--model", models[1])
    assert done.exit_code == 0, done.output
    assert f"| faces | metric | input | {models[0]} | {models[1]} |" in done.stdout
    assert "| rate 16 |" in done.stdout
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["systems"] == ["input", *map(str, models)]
    assert data["models"][str(models[0])]["fusion"] == "dafi"
    assert data["models"][str(models[0])]["parameters"] > 1000
    again = run_command(*options, "--model", models[1], "--seed", 1)
    assert again.exit_code == 2
    assert "was made with seed 0" in again.stderr
    assert "--overwrite" in again.stderr
    checked = run_command(*options, "--overwrite", "--check")
    assert checked.exit_code == 1, checked.output
    assert "| net |" in checked.stdout
    assert "**missed**" in checked.stdout


def test_the_task_is_the_models_own(tmp_path, metrics_dir, photo) -> None:
    small = save(tmp_path / "sr.safetensors", task="sr16")
    options = ["--data", photo, "--metrics-dir", metrics_dir, "--device", "cpu", "--model", small]
    done = run_command(*options, "--metrics", "lpips,faithfulness", "--out", tmp_path / "own")
    assert done.exit_code == 0, done.output
    assert "| faces | metric | bicubic | sr | sr consistent |" in done.stdout
    assert "| all (1) | faithfulness to the input, dB ↑ |" in done.stdout
    assert json.loads((tmp_path / "own" / "report.json").read_text())["task"] == "sr16"
    other = [*options, "--out", tmp_path / "other", "--metrics", METRICS]
    asked = run_command(*other, "--task", "mfr", "--check")
    assert asked.exit_code == 2
    assert asked.stderr.startswith(f"error: {small}: is a model for task sr16, and --task is mfr; ")
    large = save(tmp_path / "mfr.safetensors")
    for task in ([], ["--task", "sr16"]):
        mixed = run_command(*other, "--model", large, *task)
        assert mixed.exit_code == 2
        assert f"different tasks ({small} for sr16, {large} for mfr); evaluate" in mixed.stderr
    assert not (tmp_path / "other").exists()


def test_the_papers_degradations(tmp_path, photo) -> None:
    net = save(tmp_path / "net.safetensors")
    options = ["--data", photo, "--model", net, "--metrics", "psnr,psnr_full", "--device", "cpu"]
    options += ["--out", tmp_path / "out"]
    done = run_command(*options, "--degradations", "paper")
    assert done.exit_code == 0, done.output
    assert "Degraded as the paper prints it" in done.stdout
    assert "| all (1) | PSNR at full size, dB ↑ |" in done.stdout
    told = (tmp_path / "out" / "report.md").read_text()
    assert "1 faces, task mfr, seed 0, degradations paper." in told
    assert (tmp_path / "out" / "summary.csv").read_text().startswith("system,stratum,metric,mean")
    again = run_command(*options)
    assert again.exit_code == 2
    assert "was made with degradations paper, now it is floor" in again.stderr
    checked = run_command(*options, "--degradations", "paper", "--check")
    assert checked.exit_code == 2
    assert "--check is for --degradations floor, not for paper" in checked.stderr


def test_steps_after_the_last_face_are_told(monkeypatch, capsys) -> None:
    level = logging.root.level
    monkeypatch.setattr(logging.root, "handlers", [])
    try:
        show_log(stderr=True)
        logging.getLogger("panini.evaluation.sets").info("distances of sets: the truth")
    finally:
        logging.root.setLevel(level)
    told = capsys.readouterr()
    assert "distances of sets: the truth" in told.err
    assert told.out == ""  # that is the report's


def test_the_bar_shows_at_once_how_many_faces_there_are() -> None:
    told = StringIO()
    with _bar(Console(file=told, force_terminal=True, width=80)) as progress:
        assert told.getvalue() == ""
        progress(0, 3)
        assert "0/3" in told.getvalue()
        progress(2, 3)
    assert "2/3" in told.getvalue()
    assert "100" not in told.getvalue()


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path, photo, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("panini.evaluation.run", interrupted)
    weights = save(tmp_path / "weights.safetensors")
    result = run_command("--model", weights, "--data", photo, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "stopped; the same command goes on from here"


def test_ready_pairs(tmp_path, photo) -> None:
    net = save(tmp_path / "net.safetensors")
    (tmp_path / "lq").mkdir()
    with Image.open(photo) as image:
        image.resize((512, 512)).save(tmp_path / "lq" / "a.jpg")
    options = ["--data", photo, "--lq", tmp_path / "lq", "--metrics", "psnr", "--model", net]
    done = run_command(*options, "--out", tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "| all (1) | PSNR, dB ↑ |" in done.stdout
    assert "mild" not in done.stdout
    (tmp_path / "lq" / "a.jpg").rename(tmp_path / "lq" / "b.jpg")
    wrong = run_command(*options, "--out", tmp_path / "wrong", "--device", "cpu")
    assert wrong.exit_code == 2
    assert "b.jpg: has no truth of the same name" in wrong.stderr


def test_the_floor_is_not_about_ready_pairs(tmp_path, photo) -> None:
    net = save(tmp_path / "net.safetensors")
    options = ["--data", photo, "--lq", photo, "--model", net, "--out", tmp_path / "out"]
    refused = run_command(*options, "--check")
    assert refused.exit_code == 2
    assert "--check is for faces that are degraded here" in refused.stderr
    assert "leave out --check or --lq" in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "psnr,beauty"], "metric 'beauty': not known for task mfr; known: psnr"),
        (["--metrics", "psnr", "--check"], "--check needs lpips, identity, grid, theta"),
        (["--metrics", "lpips"], "give the folder that holds it with --metrics-dir"),
        (["--metrics", "lpips", "--metrics-dir", "none"], "none/vgg16_caffe.safetensors: no such"),
    ],
)
def test_wishes_that_cannot_be_met(tmp_path, photo, options, message) -> None:
    net = save(tmp_path / "net.safetensors")
    failed = run_command("--data", photo, "--out", tmp_path / "out", "--model", net, *options)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert message in failed.stderr
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_model_is_named_once(tmp_path, photo) -> None:
    options = ["--data", photo, "--out", tmp_path / "out", "--model", "x", "--model", "x"]
    failed = run_command(*options)
    assert failed.exit_code == 2
    assert "x: named twice" in failed.stderr


def test_a_peer_that_is_not_there_is_named(tmp_path, photo) -> None:
    options = ["--data", photo, "--out", tmp_path / "out", "--metrics", "psnr"]
    for kind in ("peer", "gfpgan"):
        failed = run_command(*options, "--model", f"{kind}:{tmp_path / 'none.pth'}")
        assert failed.exit_code == 2
        told = f"error: {tmp_path / 'none.pth'}: no such file; name the weights of another restorer"
        assert told in failed.stderr


def test_peers_of_one_stem_go_by_their_paths(tmp_path, photo, parts, monkeypatch) -> None:
    from panini import peers

    def load(path, device, *, name):
        return parts.Drawing(name, lambda lq: lq)

    monkeypatch.setattr(peers, "load_peer", load)
    options = ["--data", photo, "--metrics", "psnr", "--device", "cpu"]
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "G.pth").touch()
    first, second = (f"peer:{tmp_path / folder / 'G.pth'}" for folder in "ab")
    both = ("--model", first, "--model", second)
    done = run_command(*options, "--out", tmp_path / "both", *both)
    assert done.exit_code == 0, done.output
    systems = json.loads((tmp_path / "both" / "report.json").read_text())["systems"]
    assert systems == ["input", first, second]
    alone = run_command(*options, "--out", tmp_path / "alone", "--model", first)
    assert alone.exit_code == 0, alone.output
    assert "| faces | metric | input | G |" in alone.stdout


def test_latent_optimisation_takes_part(tmp_path, photo, parts, monkeypatch) -> None:
    from panini import peers

    net = save(tmp_path / "net.safetensors")
    given = []

    def system(source, name):
        given.append(source)
        return parts.Drawing(name, lambda lq: lq)

    monkeypatch.setattr(peers, "pulse_system", system)
    options = ["--data", photo, "--out", tmp_path / "out", "--metrics", "psnr", "--device", "cpu"]
    done = run_command(*options, "--model", f"pulse:{net}", "--model", net)
    assert done.exit_code == 0, done.output
    assert "| faces | metric | input | pulse net | net |" in done.stdout
    assert isinstance(given[0], PaniniNet)
