"""Budgets and their recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from panini.errors import ConfigError
from panini.evaluation import Plan
from panini.models.panini_net import named_config
from panini.reproduce.budget import FOLDER, NAMES, EvaluationConfig, load_budget

CONFIGS = Path(__file__).parents[2] / FOLDER


@pytest.mark.parametrize("name", NAMES)
def test_budget_has_a_recipe_for_either_task(name):
    budget = load_budget(name)
    assert budget.name == name
    assert set(budget.restoration) == {"mfr", "sr16"}
    for task, recipe in budget.restoration.items():
        assert recipe.start is not None
        if recipe.start.size != "untrained":
            shape = named_config(recipe.start.size)
            assert (shape.task, shape.in_size) == (task, recipe.data.lq_size)
    assert budget.config.crop <= budget.degradation.data.lq_size
    assert all(group.count % 4 == 0 for group in budget.degradation.data.groups)


def test_every_file_is_a_budget_or_named_by_one():
    files = {path.name for path in CONFIGS.glob("*.yaml")}
    named = {f"{name}.yaml" for name in NAMES}
    for name in NAMES:
        config = load_budget(name).config
        named |= {path.name for path in (*config.restoration.values(), config.degradation)}
    assert files <= named


def test_laptop_compares_the_fusion_alone():
    recipes = load_budget("laptop").restoration.values()
    for recipe in recipes:
        assert recipe.start is not None
        assert recipe.start.transfer is not None
        assert recipe.start.transfer.prefixes == ("encoder.", "fusion.convs.")
        assert not recipe.start.bands
        assert recipe.output_at(recipe.images) == (64, 256)
        assert recipe.adversarial is recipe.identity is recipe.feature_adversarial is None
    mfr, sr16 = recipes
    same = {"out", "start", "data"}
    assert mfr.model_dump(exclude=same) == sr16.model_dump(exclude=same)
    assert mfr.data.groups == sr16.data.groups


def test_an_addition_that_is_no_key_of_the_recipe(tmp_path):
    own = tmp_path / "own.yaml"
    text = (CONFIGS / "smoke.yaml").read_text()
    own.write_text(text + "additions: {mask_speed: 5}\n")
    with pytest.raises(ConfigError, match=r"additions: .*'mask_speed': no key of a recipe"):
        load_budget(str(own))


def test_a_budget_may_be_a_file_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_budget("smoke").name == "smoke"  # found beside the package
    own = tmp_path / "own.yaml"
    text = (CONFIGS / "smoke.yaml").read_text()
    own.write_text(text.replace("smoke-", f"{CONFIGS}/smoke-"))
    assert load_budget(str(own)).name == "own"


def refused(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_budget(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_no_budget_is_refused(tmp_path, monkeypatch):
    message = "budget huge: unknown; expected one of smoke, laptop, paper, or a YAML file"
    assert refused("huge") == message
    assert "none.yaml: cannot be read as YAML" in refused(tmp_path / "none.yaml")
    monkeypatch.setattr("panini.reproduce.budget._CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "configs/study/smoke.yaml: no such file; run the command in a" in refused("smoke")


def test_recipes_that_do_not_fit_are_refused(tmp_path):
    for file in CONFIGS.glob("smoke*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    budget, recipe = tmp_path / "smoke.yaml", tmp_path / "smoke-mfr.yaml"
    budget.write_text(budget.read_text().replace("sr16: smoke-sr16", "sr16: smoke-mfr"))
    assert "smoke-mfr.yaml: data.task: expected sr16, found mfr" in refused(budget)
    start = next(line for line in recipe.read_text().splitlines() if line.startswith("start"))
    recipe.write_text(recipe.read_text().replace(start, "init: mobile-mfr"))
    assert "smoke-mfr.yaml: a study begins with a `start`, found `init`" in refused(budget)


def test_metrics_of_the_other_task_are_left_out():
    config = EvaluationConfig(metrics=("psnr", "grid", "psnr_full", "fid"))
    assert EvaluationConfig(metrics=("psnr", "faithfulness")).metrics_of("mfr") == ("psnr",)
    assert config.metrics_of("mfr") == ("psnr", "grid", "psnr_full", "fid")
    assert config.metrics_of("sr16") == ("psnr", "psnr_full", "fid")
    assert EvaluationConfig().metrics_of("mfr") is None
    assert config.metrics_of("sr16", plain=True) == ("psnr", "psnr_full")
    everything = EvaluationConfig().metrics_of("mfr", plain=True)
    assert everything is not None
    assert {"psnr", "theta"} <= set(everything)
    assert not {"lpips", "identity", "fid", "kid"} & set(everything)


def test_a_misspelt_metric_is_refused():
    with pytest.raises(ValidationError, match="metric 'lpisp': not known; known: "):
        EvaluationConfig(metrics=("psnr", "lpisp"))


def test_only_the_paper_budget_has_the_papers_degradations():
    found = {name: load_budget(name).config.evaluation.degradations for name in NAMES}
    assert found == {"smoke": "floor", "laptop": "floor", "paper": "paper"}


@pytest.mark.parametrize("name", ["laptop", "paper"])
@pytest.mark.parametrize("task", ["mfr", "sr16"])
def test_psnr_is_measured_as_the_paper_does_too(name, task, tmp_path):
    metrics = load_budget(name).config.evaluation.metrics_of(task)
    plan = Plan(data=tmp_path, task=task, out=tmp_path / "out", metrics=metrics)
    assert {"psnr", "psnr_peak1"} <= set(plan.per_face)


def test_only_the_paper_budget_compares_at_the_papers_side():
    found = {name: load_budget(name).config.evaluation.compared for name in NAMES}
    assert found == {"smoke": 256, "laptop": 256, "paper": 1024}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["mfr", "sr16"])
def test_what_a_budget_measures_can_be_planned(name, task, tmp_path):
    wanted = load_budget(name).config.evaluation.metrics_of(task)
    plan = Plan(data=tmp_path, task=task, out=tmp_path / "out", metrics=wanted)
    assert "psnr" in plan.wanted
