"""Runs in processes of their own: killed, launched twice at once, in legs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from panini.training.degradation import DegradationRunConfig, DegradationStage
from panini.training.restoration import RestorationRunConfig
from panini.training.run import fit

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT / "src"),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
}
PATIENCE_S = 1500
"""A busy machine may freeze the processes for minutes."""


def write(recipe, path: Path) -> Path:
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


@pytest.fixture
def one_thread():
    """Sums in the same order in this process as in those it starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_was_killed_ends_as_one_that_was_not(kit, shard_group, tmp_path):
    """SIGKILL at a random step; the same command again; the same weights bit by bit."""

    def recipe(name: str) -> DegradationRunConfig:
        group = shard_group | {"count": 4}
        fields = {"images": 160, "data": kit.data(group), "queue_size": 16, "crop": 64}
        fields |= {"log_every_s": -1.0, "checkpoint_every_s": -1.0, "calibration_images": 0}
        return DegradationRunConfig.model_validate(fields | {"out": tmp_path / name})

    killed = recipe("killed")
    path = write(killed, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "panini.cli.main", "train", "degradation", "--config", path]
    steps = int(np.random.default_rng().integers(2, 30))
    stats = killed.out / "stats.jsonl"
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if stats.exists() and stats.read_text().count("\n") >= steps:
            break
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert 0 < kit.state(killed)["meta"]["progress"]["step"] < 40, "the run was over too soon"
    assert fit(DegradationStage(killed), killed, paired=True)
    whole = recipe("whole")
    assert fit(DegradationStage(whole), whole, paired=True)
    found, expected = kit.state(killed)["tensors"], kit.state(whole)["tensors"]
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_two_processes_do_what_one_does_with_twice_the_faces(
    kit, shard_group, tiny_weights, vgg, tmp_path
):
    """After one step Adam's first moments are the gradients: the means over both processes."""

    def recipe(name: str, count: int, images: int) -> RestorationRunConfig:
        group = shard_group | {"count": count}
        fields = {"images": images, "data": kit.data(group), "init": tiny_weights, "patch": 64}
        fields |= {"perceptual": {"vgg": vgg, "weight": 1e-5}, "out": tmp_path / name}
        return RestorationRunConfig.model_validate(fields)

    two = recipe("two", count=2, images=4)
    path = write(two, tmp_path / "recipe.yaml")
    # What `accelerate launch` runs for several GPUs; it knows no several processes of a CPU.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    launch += ["2", "-m", "panini.cli.main", "train", "restoration"]
    result = subprocess.run(
        [*launch, "--config", str(path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    from panini.training.restoration import train

    one = recipe("one", count=4, images=4)
    assert train(one)
    found, expected = kit.state(two), kit.state(one)
    assert found["meta"]["progress"] == expected["meta"]["progress"]
    assert found["meta"]["progress"]["nimg"] == 4
    moments = [name for name in expected["tensors"] if name.endswith("/exp_avg")]
    assert len(moments) > 20
    for name in moments:
        gradient = expected["tensors"][name]
        error = (found["tensors"][name] - gradient).norm()
        assert error <= 1e-3 * gradient.norm() + 1e-7, name


def test_the_gpu_recipe_runs_in_legs(kit, shard, tiny_weights, vgg, heads, tmp_path):
    """The very script and recipe of the chain, on tiny networks and faces."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    out = tmp_path / "out"
    shards = {"kind": "shards", "paths": [str(shard)], "decoded_mb": 10}
    live = {"kind": "prior_live", "paths": [str(tiny_weights)]}
    groups = [
        {"source": shards, "count": 2, "gt_size": 64, "scales": [64]},
        {"source": live, "count": 2, "gt_size": 128, "scales": [64, 128]},
    ]
    changes = {
        "out": str(out),
        "init": str(tiny_weights),
        "images": 16,
        "phases": [{"until": 8, "window": 32}],
        "perceptual.vgg": str(vgg),
        "perceptual.heads": str(heads),
        "identity": None,
        "adversarial.scale": 128,
        "adversarial.patch": 32,
        "adversarial.max_channels": 8,
        "adversarial.start": 0,
        "validation.source": shards,
        "validation.every": 8,
        "validation.count": 4,
        "validation.batch": 4,
        "validation.gt_size": 64,
        "validation.sheet": 2,
        "data.num_workers": 1,
        "data.lq_size": 128,
        "data.groups": groups,
        "data.degradations": [{"low_side": [16, 100]}],
        "data.degradation_weights": [1.0],
        "data.curriculum": [{"until": 8, "weights": [2.0]}],
        "log_every_s": -1.0,
    }
    sets: list[str] = []
    for key, value in changes.items():
        sets += ["--set", f"{key}={json.dumps(value)}"]

    def leg(seconds: float) -> str:
        result = subprocess.run(
            ["bash", str(ROOT / "scripts" / "gpu_leg.sh"), str(seconds), *sets],
            env=ENVIRONMENT | {"PYTHON": sys.executable, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    assert "not at its end, go on with the same command" in leg(1e-3)
    assert "weights and log in" in leg(1e6)
    assert json.loads((out / "stats.jsonl").read_text().splitlines()[0])["nimg"] == 4
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    assert lines[-1]["nimg"] == 16
    assert {"validation_perceptual", "validation_l1"} <= set().union(*lines)
    sections = {"data", "degrade", "forward", "backward", "optimizer", "discriminator"}
    assert sections <= set().union(*(line.get("seconds_a_step", {}) for line in lines))
    assert (out / "best" / "panini.safetensors").is_file()
    assert len(list((out / "samples").iterdir())) == 2
