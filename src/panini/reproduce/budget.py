"""What a study may cost: the budgets smoke, laptop and paper, or a YAML file of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from panini.config import Config, load_config
from panini.errors import ConfigError
from panini.evaluation.plan import SETS, Degradations, askable_metrics, known_metrics
from panini.evaluation.sizes import COMPARED_SIZE, GT_SIZE
from panini.metrics.judge import LPIPS_KINDS
from panini.models.panini_net import Task
from panini.training.degradation import DegradationRunConfig
from panini.training.restoration import RestorationRunConfig

NAMES = ("smoke", "laptop", "paper")
FOLDER = Path("configs", "study")
_CHECKOUT = Path(__file__).parents[3]
WEIGHED = frozenset({"lpips", *LPIPS_KINDS, "identity", *SETS})
"""Metrics that need files of `--metrics-dir`."""


class EvaluationConfig(Config):
    """How networks are compared."""

    faces: int | None = Field(default=None, gt=0)
    """The first so many of the data; None = all."""
    batch: int = Field(default=4, gt=0)
    """Faces at a time."""
    size: int | None = None
    """Side of the restored faces, px; None = the network's own."""
    compared: int = Field(default=COMPARED_SIZE, ge=COMPARED_SIZE, le=GT_SIZE)
    """Side at which faces are compared with their truth, px; the paper's is 1024."""
    metrics: tuple[str, ...] | None = None
    """None = all that a task has."""
    weights_optional: bool = False
    """Without `--metrics-dir`, leave out the metrics that need networks; else it is asked for."""
    degradations: Degradations = "floor"
    """What faces of task mfr are degraded by: the ranges by which shipped weights are judged, or
    those that the paper prints."""
    seed: int = Field(default=0, ge=0)
    """Of the degradations."""

    @field_validator("metrics")
    @classmethod
    def _are_metrics(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = {*askable_metrics("mfr"), *askable_metrics("sr16"), *LPIPS_KINDS}
        if unknown := [name for name in names or () if name not in known]:
            raise ValueError(f"metric {unknown[0]!r}: not known; known: {', '.join(sorted(known))}")
        return names

    def metrics_of(self, task: Task, *, plain: bool = False) -> tuple[str, ...] | None:
        """The metrics without those that the task does not have; None = all.

        Args:
            task: Of the evaluation.
            plain: Leave out what needs frozen networks as well.
        """
        if self.metrics is None and not plain:
            return None
        names = known_metrics(task) if self.metrics is None else self.metrics
        able = {*askable_metrics(task), *LPIPS_KINDS} - (WEIGHED if plain else set())
        return tuple(name for name in names if name in able)


class PulseRowConfig(Config):
    """The row of latent optimisation, which is slow: few faces."""

    faces: int = Field(default=8, gt=0)
    steps: int = Field(default=100, gt=0)
    """Of the optimisation of a face."""


class ProbeConfig(Config):
    """How degradation encoders are probed, see `training.probe`."""

    faces: int = Field(default=200, ge=20)
    size: int = Field(default=256, gt=0)
    """Side at which faces are degraded, px."""
    views: int = Field(default=6, ge=2)
    """Degradations of each face."""


class BudgetConfig(Config):
    """A budget as its YAML file has it; recipes are named relative to that file."""

    restoration: dict[Task, Path]
    """Recipes of the restoration stage, from a `start`; one run for every method."""
    degradation: Path
    """Recipe of the degradation stage, for the study of its pairs."""
    crop: int = Field(gt=0)
    """Side that both kinds of pairs see, px: DASR's need patches."""
    networks: Mapping[Task, str] = Field(default_factory=dict)
    """Task → a shipped model or a file that stands beside the runs, unless `--model` names one for
    the task. That for mfr is what table 4, figure 7 and the levels are measured on; without it,
    the study's own run of DAFI."""
    seed: int = 0
    """Of every run."""
    additions: Mapping[str, Any] = Field(default_factory=dict)
    """What the base of the additions changes in the recipe for mfr: what would favour one way of
    fusing, and so has no place in tables 1 to 3."""
    evaluation: EvaluationConfig = EvaluationConfig()
    theta_faces: int | None = Field(default=None, gt=0)
    """Faces of table 4; None = all."""
    level_faces: int | None = Field(default=None, gt=0)
    """Faces on which levels are left out; None = as `evaluation`."""
    figure_faces: int = Field(default=2, gt=0)
    """Faces of figure 7."""
    drawn_faces: int = Field(default=0, ge=0)
    """Faces of the prior to compare on where there is no `--data`; 0 = it is asked for."""
    synthetic_faces: int = Field(default=4, gt=0)
    """New faces of the prior, for sheets that show nobody."""
    pulse: PulseRowConfig = PulseRowConfig()
    probe: ProbeConfig = ProbeConfig()

    @field_validator("additions")
    @classmethod
    def _are_of_the_recipe(cls, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        if unknown := sorted(changes.keys() - RestorationRunConfig.model_fields.keys()):
            raise ValueError(f"{unknown[0]!r}: no key of a recipe of the restoration stage")
        return changes


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A budget with its recipes."""

    name: str
    config: BudgetConfig
    restoration: dict[Task, RestorationRunConfig]
    degradation: DegradationRunConfig


def load_budget(name: str) -> Budget:
    """A budget by its name or by the path of its YAML file.

    Raises:
        ConfigError: The name is unknown, or a file is missing or wrong.
    """
    path = _find(name)
    config = load_config(path, BudgetConfig)
    restoration: dict[Task, RestorationRunConfig] = {
        task: _recipe(path.parent / recipe, task) for task, recipe in config.restoration.items()
    }
    degradation = load_config(path.parent / config.degradation, DegradationRunConfig)
    return Budget(name=path.stem, config=config, restoration=restoration, degradation=degradation)


def _recipe(path: Path, task: Task) -> RestorationRunConfig:
    recipe = load_config(path, RestorationRunConfig)
    if recipe.start is None:
        raise ConfigError(f"{path}: a study begins with a `start`, found `init`")
    if recipe.data.task != task:
        raise ConfigError(f"{path}: data.task: expected {task}, found {recipe.data.task}")
    return recipe


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in NAMES:
        raise ConfigError(
            f"budget {name}: unknown; expected one of {', '.join(NAMES)}, or a YAML file"
        )
    places = [folder / FOLDER / f"{name}.yaml" for folder in (Path(), _CHECKOUT)]
    for path in places:
        if path.is_file():
            return path
    raise ConfigError(
        f"{places[0]}: no such file; run the command in a checkout of panini-net, or give the "
        "budget's YAML file"
    )
