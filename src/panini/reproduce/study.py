"""A study: its folder, its runs, which are resumed and never made twice, and its evaluations."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from panini import evaluation
from panini.checkpoints import load_model
from panini.errors import ConfigError, DataError, TrainingError
from panini.evaluation import Plan, Report, System
from panini.images import write_whole
from panini.models.panini_net import PaniniNet, Task
from panini.reproduce.budget import Budget
from panini.reproduce.result import Table, write_table
from panini.reproduce.untrained import resolve_untrained
from panini.runtime import resolve_device
from panini.training import degradation, restoration
from panini.training.config import RunConfig
from panini.training.network import WEIGHTS

logger = logging.getLogger(__name__)

RECIPE, DONE, STUDY = "recipe.yaml", "done.json", "study.json"
_PLACES = ("out", "device", "log_every_s")
"""Of a recipe: they change nothing of what is learned."""

RecipeT = TypeVar("RecipeT", bound=RunConfig)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asks of a study."""

    budget: Budget
    out: Path
    """Folder of the study."""
    data: Path | None = None
    """Faces to compare on: a tar shard or a folder."""
    metrics_dir: Path | None = None
    """Folder of the frozen networks."""
    train: tuple[Path, ...] = ()
    """Faces to train on, in place of the recipes': tar shards, or folders."""
    models: Path | None = None
    """Folder of other restorers' official weights."""
    model: str | None = None
    """In place of the budget's network for mfr."""
    images: int | None = None
    """Of each run of the restoration stage, in place of the recipe's."""
    only: tuple[str, ...] = ()
    """Rows or parts to make now; a table tells of what is ready. Empty: all."""
    device: str = "auto"
    command: str = "panini reproduce"
    """As it was given, for the record."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that is at its end."""

    folder: Path
    images: int
    seconds: float | None
    """Of the training; None where it was cut off in between."""

    @property
    def weights(self) -> Path:
        """The network."""
        return self.folder / WEIGHTS


class Study:
    """Runs and evaluations in one folder, of one budget.

    Args:
        options: What is asked for.

    Raises:
        ConfigError: The folder is another budget's, or a path is missing.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.budget = options.budget
        self.config = options.budget.config
        self.out = options.out
        self._check_paths()
        self._claim()

    # ------------------------------------------------------------------------------------------
    # What is asked for

    @property
    def data(self) -> Path:
        """Faces to compare on.

        Raises:
            ConfigError: None were named.
        """
        if self.options.data is None:
            raise ConfigError("--data: this part compares faces; name a tar shard or a folder")
        return self.options.data

    @property
    def metrics_dir(self) -> Path:
        """Folder of the frozen networks.

        Raises:
            ConfigError: None was named.
        """
        if self.options.metrics_dir is None:
            raise ConfigError(
                "--metrics-dir: this part needs the folder of the frozen networks that supervise "
                "and measure"
            )
        return self.options.metrics_dir

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those names that `--only` leaves; all without it."""
        only = self.options.only
        return [name for name in names if not only or name in only]

    def about(self, task: Task | None = None) -> dict[str, Any]:
        """What a table says of how it was made."""
        config = self.config
        facts: dict[str, Any] = {"command": self.options.command, "budget": self.budget.name}
        facts |= {"data": self.data.name} if self.options.data is not None else {}
        facts |= {"seed of the runs": config.seed}
        facts |= {"seed of the degradations": config.evaluation.seed}
        if task is not None:
            facts |= {"task": task, "images a run": self.images(task)}
        return facts

    def write(self, table: Table) -> list[Path]:
        """Write a table's files into the study's folder."""
        return write_table(table, self.out)

    def _check_paths(self) -> None:
        options = self.options
        for name, path in (
            ("--data", options.data),
            ("--metrics-dir", options.metrics_dir),
            ("--models", options.models),
            *(("--train", path) for path in options.train),
        ):
            if path is not None and not path.exists():
                raise DataError(f"{path}: no such file or folder; see {name}")

    def _claim(self) -> None:
        """Mark the folder as this budget's."""
        path = self.out / STUDY
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8")).get("budget")
            if found != self.budget.name:
                raise ConfigError(
                    f"{path}: a study of budget {found}, not {self.budget.name}; choose another "
                    "--out"
                )
            return
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"budget": self.budget.name}).encode())

    # ------------------------------------------------------------------------------------------
    # Runs

    def folder(self, name: str) -> Path:
        """Of a run."""
        return self.out / "runs" / name

    def is_done(self, name: str) -> bool:
        """Whether a run is at its end."""
        return (self.folder(name) / DONE).is_file()

    def restoration(
        self, task: Task, name: str, start: Mapping[str, Any], **changes: Any
    ) -> Trained:
        """A run of the restoration stage.

        Args:
            task: Says which recipe of the budget.
            name: Of the run and its folder.
            start: What differs in the recipe's `start`.
            changes: What differs beside.
        """
        recipe = self.budget.restoration[task]
        assert recipe.start is not None  # the budget saw to it
        fixed = {"start": recipe.start.model_copy(update=dict(start)), "images": self.images(task)}
        return self._run(name, self._fitted(recipe, name, fixed | changes), restoration.train)

    def images(self, task: Task) -> int:
        """Of each run for a task."""
        return self.options.images or self.budget.restoration[task].images

    def prior_path(self, task: Task) -> Path:
        """Where a task's runs have their prior from."""
        fields = self.budget.restoration[task].model_dump()
        return Path(resolve_untrained(fields, self.out / "start")["start"]["prior"])

    def degradation(self, name: str, **changes: Any) -> Trained:
        """A run of the degradation stage."""
        recipe = self._fitted(self.budget.degradation, name, changes)
        return self._run(name, recipe, degradation.train)

    def _fitted(self, recipe: RecipeT, name: str, changes: Mapping[str, Any]) -> RecipeT:
        """A recipe with this study's folder, seed, faces and frozen networks."""
        fixed = {"out": self.folder(name), "seed": self.config.seed, "device": self.options.device}
        fields = recipe.model_copy(update={**changes, **fixed}).model_dump()
        if self.options.train:
            _replace_faces(fields, self.options.train)
        fields = _with_networks_of(fields, self.metrics_dir)
        fields = resolve_untrained(fields, self.out / "start")
        return type(recipe).model_validate(fields)

    def _run(self, name: str, recipe: RecipeT, train: Callable[[RecipeT], bool]) -> Trained:
        folder = self.folder(name)
        _keep_recipe(folder, recipe)
        done = folder / DONE
        if not done.is_file():
            fresh = not (folder / "checkpoints").exists()
            logger.info("run %s: %d images, in %s", name, recipe.images, folder)
            since = time.monotonic()
            if not train(recipe):
                raise TrainingError(f"{folder}: not at its end; the same command goes on")
            seconds = round(time.monotonic() - since, 1) if fresh else None
            write_whole(done, json.dumps({"images": recipe.images, "seconds": seconds}).encode())
        return Trained(folder=folder, **json.loads(done.read_text(encoding="utf-8")))

    # ------------------------------------------------------------------------------------------
    # Networks and evaluations

    def shipped(self, task: Task) -> str | None:
        """A network with other training, that stands beside the runs; None: there is none."""
        return (self.options.model if task == "mfr" else None) or self.config.networks.get(task)

    def network(self) -> tuple[PaniniNet, str]:
        """What table 4, figure 7 and the levels are measured on, and its name."""
        name = self.shipped("mfr")
        if name is None:
            run = self.restoration("mfr", "mfr-dafi", {"fusion_method": "dafi"})
            return load_model(run.weights).to(self.device), "dafi"
        return load_model(name).to(self.device), name

    def masked_network(self) -> tuple[PaniniNet, str]:
        """The same, if it has masks that follow degradations.

        Raises:
            ConfigError: It has none.
        """
        net, name = self.network()
        if net.config.task != "mfr" or net.config.fusion.method != "dafi":
            raise ConfigError(
                f"{name}: expected a network of DAFI for mfr, found {net.config.fusion.method} for "
                f"{net.config.task}; name another with --model"
            )
        return net, name

    @property
    def device(self) -> str:
        """Where networks are evaluated."""
        return resolve_device(self.options.device)

    def is_measured(self, folder: str, system: str) -> bool:
        """Whether an evaluation knows a system."""
        return (self.out / "evaluation" / folder / "faces" / f"{system}.jsonl").is_file()

    def evaluate(
        self,
        folder: str,
        task: Task,
        systems: Sequence[System],
        *,
        faces: int | None = None,
        data: Path | None = None,
        metrics: tuple[str, ...] | None = None,
    ) -> Report:
        """Compare systems on the data; what was restored before is not restored again.

        Args:
            folder: Of the evaluation, below `evaluation/`.
            task: Says how faces are degraded.
            systems: The input comes first by itself.
            faces: In place of the budget's.
            data: In place of the study's.
            metrics: In place of the budget's.
        """
        config = self.config.evaluation
        plan = Plan(
            data=data or self.data,
            task=task,
            seed=config.seed,
            limit=faces or config.faces,
            batch=config.batch,
            out=self.out / "evaluation" / folder,
            metrics=metrics or config.metrics_of(task),
            metrics_dir=self.metrics_dir,
            device=self.device,
        )
        names = ", ".join(system.name for system in systems)
        logger.info("evaluation %s: %s", folder, names)
        about = self.about(task) | {"data": plan.data.name}
        return evaluation.run(plan, systems, about=about, progress=_tell(folder))


def _tell(folder: str) -> Callable[[int, int], None]:
    """Log each tenth of an evaluation."""

    def progress(done: int, total: int) -> None:
        if done * 10 // total != (done - 1) * 10 // total:
            logger.info("evaluation %s: %d of %d", folder, done, total)

    return progress


def _replace_faces(fields: dict[str, Any], paths: Sequence[Path]) -> None:
    """Other real faces in every group that has real ones."""
    kind = "shards" if all(path.suffix == ".tar" for path in paths) else "folder"
    for group in fields["data"]["groups"]:
        if group["source"]["kind"] in ("shards", "folder"):
            group["source"] |= {"kind": kind, "paths": tuple(paths)}


def _with_networks_of(value: Any, folder: Path) -> Any:
    """Paths of frozen networks that a folder has are those of the folder."""
    if isinstance(value, dict):
        return {key: _with_networks_of(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_networks_of(item, folder) for item in value]
    if isinstance(value, Path) and (folder / value.name).is_file():
        return folder / value.name
    return value


def _keep_recipe(folder: Path, recipe: RunConfig) -> None:
    """Write a run's recipe before it starts; refuse to go on with another one."""
    path = folder / RECIPE
    fields = recipe.model_dump(mode="json")
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, yaml.safe_dump(fields, sort_keys=False).encode())
        return
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    for place in _PLACES:
        found[place] = fields[place]
    key = first_difference(found, fields)
    if key is not None:
        raise ConfigError(
            f"{path}: {key} differs from what is asked for now; choose another --out, or remove "
            f"{folder} to run it anew"
        )


def first_difference(a: Any, b: Any, key: str = "") -> str | None:
    """Dotted key at which two trees of JSON values differ first; None where they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(name, a.get(name), b.get(name)) for name in [*a, *(b.keys() - a.keys())]]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(str(index), x, y) for index, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b else key
    for name, x, y in pairs:
        found = first_difference(x, y, f"{key}.{name}" if key else name)
        if found is not None:
            return found
    return None
