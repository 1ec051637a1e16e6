"""Every recipe of configs/ is one that its stage accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from panini.config import load_config
from panini.models.panini_net import named_config
from panini.models.stylegan2 import DiscriminatorConfig
from panini.training.degradation import DegradationRunConfig
from panini.training.estimate import estimate
from panini.training.prior import PriorRunConfig
from panini.training.restoration import RestorationRunConfig
from panini.training.run import RunConfig
from panini.training.warmup import WarmupRunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SCHEMAS: dict[str, type[RunConfig]] = {
    "degradation": DegradationRunConfig,
    "prior": PriorRunConfig,
    "warmup": WarmupRunConfig,
    "restoration": RestorationRunConfig,
}
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "study")


def load(path: Path) -> RunConfig:
    return load_config(path, SCHEMAS[path.parent.name])


def test_every_stage_has_a_recipe():
    assert {path.parent.name for path in RECIPES} == SCHEMAS.keys()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_fits_its_stage(path):
    recipe = load(path)
    assert recipe.device == "auto"
    if recipe.data.task == "mfr":
        assert len(recipe.data.degradation_weights) == len(recipe.data.degradations)
    for entry in recipe.data.degradations:
        entry.build(recipe.data.lq_size)
    if isinstance(recipe, WarmupRunConfig):
        assert recipe.start.shape().in_size == recipe.data.lq_size
        assert recipe.start.shape().task == recipe.data.task
    if isinstance(recipe, RestorationRunConfig) and recipe.start is not None:
        assert named_config(recipe.start.size).in_size == recipe.data.lq_size
        assert named_config(recipe.start.size).task == recipe.data.task


def test_papers_recipes_are_the_papers():
    """Fine-tuning as the paper and its authors' configuration tell it; nothing of ours is on."""
    for name, size in (("paper-mfr", "mfr-1024"), ("paper-sr16", "sr16-1024")):
        recipe = load(CONFIGS / "restoration" / f"{name}.yaml")
        assert isinstance(recipe, RestorationRunConfig)
        assert recipe.start is not None
        assert recipe.start.size == size
        # Eq. 6: an MLP of its own for every level, whatever the authors' code has.
        assert not recipe.start.shape().fusion.shared_mlp
        assert recipe.images == 600_000 * recipe.data.batch
        assert recipe.data.batch == 8
        assert (recipe.learning_rate, recipe.betas) == (1e-4, (0.9, 0.99))
        assert (recipe.schedule, recipe.warmup_images, recipe.final_rate) == ("cosine", 0, 1e-3)
        assert recipe.l1_weight == 1.0
        assert (recipe.perceptual.kind, recipe.perceptual.weight) == ("vgg", 1e-2)
        assert recipe.perceptual.signed
        assert recipe.adversarial is not None
        assert (recipe.adversarial.weight, recipe.adversarial.learning_rate) == (1e-2, 1e-4)
        assert recipe.adversarial.init is not None
        assert recipe.adversarial.build().config == DiscriminatorConfig()
        assert recipe.adversarial.patch == recipe.adversarial.scale == recipe.patch == 1024
        assert recipe.train_prior == recipe.mask_rate == 1.0
        assert (recipe.window, recipe.phases, recipe.data.curriculum) == (64, (), ())
        assert recipe.adversarial.r1_weight == recipe.ema_half_life == 0
        assert recipe.clip_norm == recipe.adversarial.clip_norm == float("inf")
        assert recipe.identity is recipe.feature_adversarial is None


def test_the_papers_encoder_sees_every_face_200_times_in_pairs_of_32():
    recipe = load(CONFIGS / "degradation" / "paper.yaml")
    assert recipe.data.batch == 2 * 32
    assert recipe.images / recipe.data.batch == 200 * 70_000 / 32


@pytest.mark.parametrize("name", ["mobile-mfr", "mobile-sr16"])
def test_the_shipped_sizes_recipes_keep_the_best(name):
    for end in ("", "-gpu"):
        validation = load(CONFIGS / "restoration" / f"{name}{end}.yaml").validation
        assert validation is not None
        assert validation.source.paths == (Path("../shared/data/celeba-val-256-000.tar"),)
        assert validation.sheet == 8


def test_each_stage_reads_what_the_one_before_it_writes():
    degradation, warmup, restoration = (
        load(CONFIGS / name / f"mobile{end}.yaml")
        for name, end in (("degradation", ""), ("warmup", "-mfr"), ("restoration", "-mfr"))
    )
    assert isinstance(warmup, WarmupRunConfig)
    assert isinstance(restoration, RestorationRunConfig)
    assert warmup.degradation_encoder == degradation.out / "degradation_encoder.safetensors"
    assert restoration.init == warmup.out / "panini.safetensors"


@pytest.mark.parametrize("end", ["", "-gpu"])
def test_super_resolution_reads_what_its_warm_up_writes(end):
    warmup, restoration = (
        load(CONFIGS / name / f"mobile-sr16{end}.yaml") for name in ("warmup", "restoration")
    )
    assert isinstance(warmup, WarmupRunConfig)
    assert isinstance(restoration, RestorationRunConfig)
    assert warmup.degradation_encoder is None
    assert restoration.init == warmup.out / "panini.safetensors"
    assert warmup.data.task == restoration.data.task == "sr16"


def test_ablation_a_is_one_setting_away():
    path = CONFIGS / "warmup" / "mobile-sr16.yaml"
    dafi, concat = (
        load_config(path, WarmupRunConfig, [f"fusion_method={method}"])
        for method in ("dafi", "concat")
    )
    assert dafi == load(path)
    found = [estimate(recipe)["parameters_m"] for recipe in (dafi, concat)]
    # As in the paper, Cat-Conv costs more.
    assert found == [20.007, 21.037]


def test_the_lengths_that_the_page_sets_are_taken():
    path = CONFIGS / "restoration" / "mobile-sr16-gpu.yaml"
    changes = ["phases=[{until: 66000, window: 32}]", "images=100000", "max_seconds=540"]
    recipe = load_config(path, RestorationRunConfig, changes)
    assert [recipe.output_at(nimg) for nimg in (65999, 66000)] == [(32, None), (64, None)]
