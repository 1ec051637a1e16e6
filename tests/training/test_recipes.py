"""Every recipe of configs/ is one that its stage accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from panini.config import load_config
from panini.models.panini_net import named_config
from panini.training.degradation import DegradationRunConfig
from panini.training.restoration import RestorationRunConfig
from panini.training.run import RunConfig
from panini.training.warmup import WarmupRunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SCHEMAS: dict[str, type[RunConfig]] = {
    "degradation": DegradationRunConfig,
    "warmup": WarmupRunConfig,
    "restoration": RestorationRunConfig,
}
RECIPES = sorted(CONFIGS.rglob("*.yaml"))


def load(path: Path) -> RunConfig:
    return load_config(path, SCHEMAS[path.parent.name])


def test_every_stage_has_a_recipe():
    assert {path.parent.name for path in RECIPES} == SCHEMAS.keys()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_fits_its_stage(path):
    recipe = load(path)
    assert recipe.device == "cpu"
    assert len(recipe.data.degradation_weights) == len(recipe.data.degradations)
    for entry in recipe.data.degradations:
        entry.build(recipe.data.lq_size)
    if isinstance(recipe, WarmupRunConfig):
        assert named_config(recipe.size).in_size == recipe.data.lq_size
    if isinstance(recipe, DegradationRunConfig):
        assert all(group.count % 2 == 0 for group in recipe.data.groups)


def test_each_stage_reads_what_the_one_before_it_writes():
    degradation, warmup, restoration = (
        load(CONFIGS / name / f"mobile{end}.yaml")
        for name, end in (("degradation", ""), ("warmup", "-mfr"), ("restoration", "-mfr"))
    )
    assert isinstance(warmup, WarmupRunConfig)
    assert isinstance(restoration, RestorationRunConfig)
    assert warmup.degradation_encoder == degradation.out / "degradation_encoder.safetensors"
    assert restoration.init == warmup.out / "panini.safetensors"
