"""`panini train`: the recipe as it is resolved, and its mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from panini.cli.main import app
from panini.training import degradation, prior, restoration, warmup

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = {
    "degradation": CONFIGS / "degradation" / "mobile.yaml",
    "prior": CONFIGS / "prior" / "stylegan2-64.yaml",
    "warmup": CONFIGS / "warmup" / "mobile-mfr.yaml",
    "restoration": CONFIGS / "restoration" / "mobile-mfr.yaml",
}

runner = CliRunner()


def train(stage: str, *options: str | Path):
    recipe = RECIPES.get(stage, RECIPES["warmup"])
    arguments = ["train", stage, "--config", recipe, *options]
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def trained(monkeypatch) -> list:
    """Recipes that were trained; no stage runs in earnest here."""
    calls: list = []

    def run(name, config) -> bool:
        calls.append((name, config))
        return config.max_seconds is None

    for stage in (degradation, prior, warmup, restoration):
        name = stage.__name__.rpartition(".")[2]
        monkeypatch.setattr(stage, "train", lambda config, name=name: run(name, config))
    return calls


@pytest.mark.parametrize("stage", list(RECIPES))
def test_dry_run_prints_the_recipe_with_its_defaults(stage, trained):
    result = train(stage, "--dry-run", "--set", "images=77", "--set", "data.num_workers=0")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    recipe, estimate = answer["recipe"], answer["estimate"]
    assert recipe["images"] == 77
    assert recipe["data"]["num_workers"] == 0
    assert recipe["data"]["lq_size"] == (4 if stage == "prior" else 512)
    assert recipe["device"] == "auto"  # a default that the file does not name
    assert estimate["parameters_m"] > 0.5
    assert estimate["forward_gflop_a_face"] > 0
    # The network of the restoration comes out of a file that is not there yet.
    before = str(RECIPES["warmup"]) if stage == "restoration" else None
    assert estimate.get("network_of") == before
    assert trained == []


def test_a_dry_run_is_json_where_a_value_is_infinite(trained):
    result = train("restoration", "--dry-run", "--set", "clip_norm=.inf")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    recipe = json.loads(result.stdout, parse_constant=refuse)["recipe"]
    # A recipe takes it back.
    assert recipe["clip_norm"] == "inf"
    again = restoration.RestorationRunConfig.model_validate(recipe)
    assert again.clip_norm == float("inf")


@pytest.mark.parametrize("stage", list(RECIPES))
def test_each_stage_trains_its_own_recipe(stage, trained, tmp_path):
    result = train(stage, "--set", f"out={tmp_path}")
    assert result.exit_code == 0, result.output
    ((name, config),) = trained
    assert name == stage
    assert config.out == tmp_path
    assert f"weights and log in {tmp_path}" in result.stdout.replace("\n", " ")


def test_a_run_that_is_not_at_its_end_says_so(trained, tmp_path):
    result = train("warmup", "--set", f"out={tmp_path}", "--set", "max_seconds=1")
    assert result.exit_code == 0, result.output
    assert "not at its end, go on with the same command" in result.stdout


def refused(*arguments: str | Path) -> str:
    result = train(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_an_unknown_key_is_refused_in_a_line(trained):
    message = refused("warmup", "--set", "colour=red")
    assert message.endswith("mobile-mfr.yaml: colour: extra inputs are not permitted, got 'red'\n")
    assert trained == []


def test_a_bad_value_is_refused_in_a_line(trained):
    assert "images: input should be greater than 0, got -1" in refused(
        "restoration", "--set", "images=-1"
    )
    assert "expected key=value" in refused("restoration", "--set", "images")
    assert "data.groups: tuple should have at least 1 item" in refused(
        "warmup", "--set", "data.groups=[]"
    )
    assert trained == []


def test_missing_files_are_told_in_a_line_and_nothing_is_begun(monkeypatch, tmp_path):
    monkeypatch.undo()  # the stages run in earnest, as far as they come
    monkeypatch.chdir(tmp_path)
    message = refused("restoration", "--set", "data.num_workers=0")
    assert message == (
        "error: init: runs/warmup-mobile-mfr/panini.safetensors: no such file; "
        "run panini train warmup first\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_recipe_is_refused_in_a_line(tmp_path):
    result = runner.invoke(app, ["train", "warmup", "--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "none.yaml: cannot be read as YAML" in result.stderr


def test_an_unknown_stage_is_refused(trained):
    result = train("polish")
    assert result.exit_code == 2
    assert "degradation" in result.stderr
    assert trained == []
