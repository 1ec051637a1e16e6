"""A study: its folder, its runs, which are resumed and never made twice, and its evaluations."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from panini import evaluation
from panini.checkpoints import load_model
from panini.config import validated
from panini.errors import ConfigError, DataError, TrainingError
from panini.evaluation import Plan, Report, System
from panini.evaluation.cases import check_face
from panini.evaluation.faces import iter_faces
from panini.evaluation.results import lines_file
from panini.images import RgbImage, write_whole
from panini.models.panini_net import PaniniNet, Task
from panini.reproduce.budget import Budget
from panini.reproduce.recipes import keep_recipe, replace_faces, with_networks_of
from panini.reproduce.result import Table, write_table
from panini.reproduce.synthetic import draw_faces
from panini.reproduce.untrained import resolve_untrained
from panini.runtime import resolve_device
from panini.training import degradation, restoration, warmup
from panini.training.config import RunConfig
from panini.training.degradation import DegradationRunConfig
from panini.training.network import WEIGHTS
from panini.training.restoration import RestorationRunConfig
from panini.training.warmup import WarmupRunConfig

logger = logging.getLogger(__name__)

DONE, STUDY = "done.json", "study.json"

_FACES = "a tar shard, or a folder of faces or of shards"
_EXPECTED = {
    "--data": _FACES,
    "--train": _FACES,
    "--metrics-dir": "the folder of the frozen networks",
    "--models": "the folder of other restorers' official weights",
}
"""Option → what its path leads to."""
_FOLDERS = ("--metrics-dir", "--models")
"""Options that take no file."""

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
    model: tuple[str, ...] = ()
    """Networks in place of the budget's, at most one a task: shipped models or files."""
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
        ConfigError: The folder is another budget's, or two networks are for one task.
        CheckpointError: A network cannot be loaded.
        DataError: A path is missing, or a file where a folder is expected; or the folder's record
            is damaged.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.budget = options.budget
        self.config = options.budget.config
        self.out = options.out
        self._check_paths()
        self.given = _by_task(options.model)
        """Task → the network that `--model` names for it."""
        self._check_budget()

    # ------------------------------------------------------------------------------------------
    # What is asked for

    @property
    def data(self) -> Path:
        """Faces to compare on; where a budget has it so, the prior draws those that are not named.

        Raises:
            ConfigError: None were named.
        """
        if self.options.data is not None:
            return self.options.data
        count = self.config.drawn_faces
        if not count:
            raise ConfigError("--data: this part compares faces; name a tar shard or a folder")
        folder = self.out / "faces-of-the-prior"
        draw_faces(self.prior_path("mfr"), folder, count, self.config.evaluation.seed)
        return folder

    def faces(self, count: int | None) -> Iterator[tuple[str, RgbImage]]:
        """The faces to compare on: (key, uint8 RGB), square and large enough for that.

        Args:
            count: Only the first so many; None takes all.

        Raises:
            ConfigError: None were named.
            DataError: One is not square, or too small.
        """
        for face in itertools.islice(iter_faces(self.data), count):
            check_face(face)
            yield face.key, face.read()

    def metrics(self, task: Task) -> tuple[str, ...] | None:
        """What is measured; None = all.

        Raises:
            ConfigError: That needs frozen networks, and no folder of them was named.
        """
        config = self.config.evaluation
        plain = self.options.metrics_dir is None
        if plain and not config.weights_optional:
            raise ConfigError(
                "--metrics-dir: this part needs the folder of the frozen networks that supervise "
                "and measure"
            )
        return config.metrics_of(task, plain=plain)

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those names that `--only` leaves; all without it."""
        only = self.options.only
        return [name for name in names if not only or name in only]

    def about(self, task: Task | None = None) -> dict[str, Any]:
        """What a table says of how it was made."""
        config = self.config
        facts: dict[str, Any] = {"command": self.options.command, "budget": self.budget.name}
        named = self.options.data is not None or self.config.drawn_faces
        facts |= {"data": self.data.name} if named else {}
        facts |= {"seed of the runs": config.seed}
        facts |= {"seed of the degradations": config.evaluation.seed}
        if task != "sr16":
            facts |= {"degradations": config.evaluation.degradations}
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
            if path is not None:
                _check_path(name, path)

    def claim(self) -> None:
        """Mark the folder as this budget's, once all that is asked for can be made."""
        self.out.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"budget": self.budget.name})
        write_whole(self.out / STUDY, content.encode())

    def _check_budget(self) -> None:
        path = self.out / STUDY
        if not path.is_file():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["budget"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{path}: does not tell the study's budget ({error}); delete that file, and name "
                "the budget that the runs beside it were made with"
            ) from error
        if found != self.budget.name:
            raise ConfigError(
                f"{path}: a study of budget {found}, not {self.budget.name}; choose another --out"
            )

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
        return self.run(name, self.restoration_recipe(task, name, start, **changes))

    def restoration_recipe(
        self, task: Task, name: str, start: Mapping[str, Any], **changes: Any
    ) -> RestorationRunConfig:
        """What `restoration` trains by."""
        recipe = self.budget.restoration[task]
        assert recipe.start is not None  # the budget saw to it
        fixed = {"start": recipe.start.model_copy(update=dict(start)), "images": self.images(task)}
        return self.fitted(recipe, name, fixed | changes)

    def images(self, task: Task) -> int:
        """Of each run for a task."""
        return self.options.images or self.budget.restoration[task].images

    def prior_path(self, task: Task) -> Path:
        """Where a task's runs have their prior from."""
        fields = self.budget.restoration[task].model_dump()
        return Path(resolve_untrained(fields, self.out / "start")["start"]["prior"])

    def degradation(self, name: str, **changes: Any) -> Trained:
        """A run of the degradation stage."""
        return self.run(name, self.degradation_recipe(name, **changes))

    def degradation_recipe(self, name: str, **changes: Any) -> DegradationRunConfig:
        """What `degradation` trains by."""
        return self.fitted(self.budget.degradation, name, changes)

    def fitted(self, recipe: RecipeT, name: str, changes: Mapping[str, Any]) -> RecipeT:
        """A recipe with changes, and with this study's folder, seed, faces and frozen networks.

        Raises:
            ConfigError: The changes do not fit the recipe.
        """
        fixed = {"out": self.folder(name), "seed": self.config.seed, "device": self.options.device}
        fields = recipe.model_copy(update={**changes, **fixed}).model_dump()
        if self.options.train:
            replace_faces(fields, self.options.train)
        if self.options.metrics_dir is not None:
            fields = with_networks_of(fields, self.options.metrics_dir)
        fields = resolve_untrained(fields, self.out / "start")
        return validated(fields, type(recipe), f"run {name}")

    def run(self, name: str, recipe: RunConfig) -> Trained:
        """Train by a recipe of any stage, unless that is done.

        Raises:
            TrainingError: The run was halted before its end.
            ConfigError: It was begun with another recipe.
            DataError: Its recipe, or the record of its end, is damaged.
        """
        folder = self.folder(name)
        keep_recipe(folder, recipe)
        done = folder / DONE
        if not done.is_file():
            fresh = not (folder / "checkpoints").exists()
            logger.info("run %s: %d images, in %s", name, recipe.images, folder)
            since = time.monotonic()
            if not _train(recipe):
                raise TrainingError(f"{folder}: not at its end; the same command goes on")
            seconds = round(time.monotonic() - since, 1) if fresh else None
            write_whole(done, json.dumps({"images": recipe.images, "seconds": seconds}).encode())
        return _read_done(done)

    # ------------------------------------------------------------------------------------------
    # Networks and evaluations

    def shipped(self, task: Task) -> str | None:
        """A network with other training, that stands beside the runs; None: there is none."""
        return self.given.get(task) or self.config.networks.get(task)

    def shipped_network(self, task: Task) -> tuple[PaniniNet, str] | None:
        """That network, and its name.

        Raises:
            ConfigError: It is for the other task.
        """
        name = self.shipped(task)
        if name is None:
            return None
        net = load_model(name).to(self.device)
        if net.config.task != task:
            raise ConfigError(f"{name}: is for task {net.config.task}, expected one for {task}")
        return net, name

    def masked_network(self) -> tuple[PaniniNet, str]:
        """What table 4, figure 7 and the levels are measured on, and its name.

        Raises:
            ConfigError: It has no masks that follow degradations.
        """
        found = self.shipped_network("mfr")
        if found is None:
            run = self.restoration("mfr", "mfr-dafi", {"fusion_method": "dafi"})
            return load_model(run.weights).to(self.device), "dafi"
        net, name = found
        if net.config.fusion.method != "dafi":
            raise ConfigError(
                f"{name}: expected a network of DAFI, found {net.config.fusion.method}; name "
                "another with --model"
            )
        return found

    @property
    def device(self) -> str:
        """Where networks are evaluated."""
        return resolve_device(self.options.device)

    def is_measured(self, folder: str, system: str) -> bool:
        """Whether an evaluation knows a system."""
        return lines_file(self.out / "evaluation" / folder, system).is_file()

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

        Raises:
            ConfigError: The folder was made with other faces or settings, or by other weights.
            DataError: Faces that cannot be compared, or a damaged file in the folder.
        """
        plan = self.plan(folder, task, faces=faces, data=data, metrics=metrics)
        names = ", ".join(system.name for system in systems)
        logger.info("evaluation %s: %s", folder, names)
        about = self.about(task) | {"data": plan.data.name}
        return evaluation.run(plan, systems, about=about, progress=_tell(folder))

    def plan(
        self,
        folder: str,
        task: Task,
        *,
        faces: int | None = None,
        data: Path | None = None,
        metrics: tuple[str, ...] | None = None,
    ) -> Plan:
        """What `evaluate` asks for; its arguments mean the same."""
        config = self.config.evaluation
        out = self.out / "evaluation" / folder
        return Plan(
            data=data or self.data,
            task=task,
            seed=config.seed,
            degradations=config.degradations if task == "mfr" else "floor",
            limit=faces or config.faces,
            batch=config.batch,
            size=config.compared,
            out=out,
            metrics=metrics or self.metrics(task),
            metrics_dir=self.options.metrics_dir,
            device=self.device,
            # There is no --overwrite: it would read as if the runs started afresh as well.
            remedy=f"delete {out} (no run is lost), or choose another --out",
        )


def _read_done(path: Path) -> Trained:
    """What a run left when it came to its end."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Trained(folder=path.parent, images=found["images"], seconds=found["seconds"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: does not tell what the run was ({error}); delete that file, and the same "
            "command writes it again from the run's last checkpoint"
        ) from error


def _train(recipe: RunConfig) -> bool:
    if isinstance(recipe, RestorationRunConfig):
        return restoration.train(recipe)
    if isinstance(recipe, WarmupRunConfig):
        return warmup.train(recipe)
    assert isinstance(recipe, DegradationRunConfig)
    return degradation.train(recipe)


def _check_path(name: str, path: Path) -> None:
    expected = _EXPECTED[name]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; see {name}: expected {expected}")
    if name in _FOLDERS and not path.is_dir():
        raise DataError(f"{path}: is a file, expected {expected}; name that folder with {name}")


def _by_task(names: Sequence[str]) -> dict[Task, str]:
    """Which task each network is for, as it says itself.

    Raises:
        ConfigError: Two are for one task.
        CheckpointError: One cannot be loaded.
    """
    found: dict[Task, str] = {}
    for name in names:
        task = load_model(name).config.task
        if task in found:
            raise ConfigError(
                f"--model {name}: is for task {task}, and so is {found[task]}; name one a task"
            )
        found[task] = name
    return found


def _tell(folder: str) -> Callable[[int, int], None]:
    """Log each tenth of an evaluation."""

    def progress(done: int, total: int) -> None:
        if done * 10 // total != (done - 1) * 10 // total:
            logger.info("evaluation %s: %d of %d", folder, done, total)

    return progress
