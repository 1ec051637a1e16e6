"""What a study reads, opened before anything is trained: a mistake costs seconds, not a night."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

from panini.checkpoints import load_degradation_encoder, load_model
from panini.data import SourceConfig, load_live_prior, open_source
from panini.errors import CheckpointError, ConfigError, DataError
from panini.evaluation.cases import Cases, check_face
from panini.evaluation.faces import iter_faces
from panini.evaluation.sets import feature_network
from panini.features.identity import load_identity
from panini.metrics.judge import load_judge
from panini.models.panini_net import Task
from panini.peers import load_peer
from panini.reproduce.others import SUFFIXES, weight_files
from panini.reproduce.study import Study
from panini.shards import iter_members
from panini.training.config import RunConfig
from panini.training.network import StartConfig
from panini.training.restoration import Perceptual, RestorationRunConfig

logger = logging.getLogger(__name__)

_BASE = "mfr-dafi"
"""The run that stands in where no network for mfr is named."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a part asks for."""

    runs: frozenset[tuple[Task, str]] = frozenset()
    """Task and name of runs of the restoration stage."""
    encoders: frozenset[str] = frozenset()
    """Names of runs of the degradation stage."""
    compared: frozenset[Task] = frozenset()
    """Tasks of its evaluations."""
    networks: frozenset[Task] = frozenset()
    """Tasks whose network with other training has a row, or is what is measured."""
    masks: bool = False
    """Whether that for mfr has to have masks; where there is none, the run of DAFI stands in."""
    faces: int = 0
    """Least number of faces to compare on."""
    heads: int | None = 0
    """Of how many faces the files' heads are looked at before, as far as there are so many; None is
    all of them."""
    faces_for: str = "what is asked for"
    """What needs so many, for the error."""
    peers: bool = False
    """Whether others' official weights have rows."""
    taken: frozenset[str] = frozenset()
    """Names of the rows beside those."""

    def __or__(self, other: Needs) -> Needs:
        most = max(self, other, key=lambda needs: needs.faces)
        return Needs(
            runs=self.runs | other.runs,
            encoders=self.encoders | other.encoders,
            compared=self.compared | other.compared,
            networks=self.networks | other.networks,
            masks=self.masks or other.masks,
            faces=most.faces,
            heads=_more(self.heads, other.heads),
            faces_for=most.faces_for,
            peers=self.peers or other.peers,
            taken=self.taken | other.taken,
        )


def _more(a: int | None, b: int | None) -> int | None:
    """The larger number of faces; None is all."""
    return None if a is None or b is None else max(a, b)


def check_needs(study: Study, needs: Needs) -> None:
    """Open whatever a study is going to read, as far as that is quick.

    Raises:
        ConfigError: An option is missing, a network does not fit, or two rows have one name.
        CheckpointError: Weights are missing or damaged.
        DataError: There are no faces, too few, or such as cannot be compared; or no weights of
            others where a folder of them is named.
        MissingExtraError: Others' weights cannot be read here.
    """
    runs: set[tuple[Task, str]] = set(needs.runs)
    if needs.masks and study.shipped("mfr") is None:
        runs.add(("mfr", _BASE))
        _tell_of_base(study)
    _check_networks(study, needs)
    if study.options.models is not None:
        _check_peers(study.options.models, needs)
    if needs.faces:
        _check_faces(study.data, needs)
    for task in sorted(needs.compared):
        _check_evaluation(study, task)
    wanted: set[Task] = {task for task, name in runs if not study.is_done(name)}
    for task in sorted(wanted):
        _check_recipe(study.restoration_recipe(task, _BASE, {}))
    if any(not study.is_done(name) for name in needs.encoders):
        _check_recipe(study.degradation_recipe("pairs-udrl"))


def _tell_of_base(study: Study) -> None:
    """Before any error: what is missing may be needed for this run alone."""
    if not study.is_done(_BASE):
        logger.warning(
            "no network for mfr is named: the study's own run of DAFI comes first, %s images; "
            "--model NAME|PATH takes a trained one instead",
            f"{study.images('mfr'):,}",
        )


def _check_networks(study: Study, needs: Needs) -> None:
    """Load the networks with other training; refuse one that has no use."""
    for task, name in study.given.items():
        if task not in needs.networks:
            raise ConfigError(
                f"--model {name}: is for task {task}, and nothing that is asked for takes such a "
                "network; leave it out"
            )
    for task in sorted(needs.networks):
        study.shipped_network(task)
    if needs.masks and study.shipped("mfr") is not None:
        study.masked_network()


def _check_peers(folder: Path, needs: Needs) -> None:
    """Build the networks of others' weights; one that is unknown is a row less, and no error."""
    if not needs.peers:
        logger.warning(
            "--models %s: is not read; others' weights have rows in table 1 alone (official)",
            folder,
        )
        return
    paths = weight_files(folder)
    if not paths:
        raise DataError(
            f"{folder}: expected official weights ({', '.join(SUFFIXES)}), found none; name "
            "another folder with --models, or leave it out"
        )
    named: dict[str, Path] = {}
    for path in paths:
        try:
            name = load_peer(path).name
        except CheckpointError as error:
            logger.warning("%s; it will have no row", error)
            continue
        if name in named or name in needs.taken:
            other = f"as {named[name].name} does" if name in named else "which the study has itself"
            raise ConfigError(f"{path}: would have the row {name}, {other}; rename the file")
        named[name] = path


# ----------------------------------------------------------------------------------------------
# Faces and metrics


def _check_faces(data: Path, needs: Needs) -> None:
    most = None if needs.heads is None else max(needs.heads, needs.faces)
    found = sum(1 for _ in itertools.islice(iter_faces(data), needs.faces))
    if found < needs.faces:
        raise DataError(
            f"{data}: expected at least {needs.faces} faces for {needs.faces_for}, found "
            f"{found}; name more faces with --data, or leave that part out: --only names the "
            "parts to make"
        )
    for index, face in enumerate(itertools.islice(iter_faces(data), most)):
        check_face(face)
        if not index:
            face.read()


def _check_evaluation(study: Study, task: Task) -> None:
    plan = study.plan("check", task)
    cases = Cases(plan)
    next(iter(cases.truths()))()
    load_judge(plan.metrics_dir, "cpu", plan.judged)
    feature_network(plan, cases)
    _load_start(study.prior_path(task))  # draws the faces of the second sheet


# ----------------------------------------------------------------------------------------------
# Recipes


def _check_recipe(recipe: RunConfig) -> None:
    """Open what a run reads."""
    for group in recipe.data.groups:
        _check_source(group.source)
    if isinstance(recipe, RestorationRunConfig):
        assert recipe.start is not None  # the budget saw to it
        _check_start(recipe.start)
        _check_supervision(recipe)


def _check_source(source: SourceConfig) -> None:
    if source.kind == "prior_live":
        _load_start(source.paths[0])
        return
    for path in source.paths:
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder; the recipe trains on it: name faces of yours "
                "with --train, shards or folders"
            )
        if source.kind == "shards":
            next(iter_members(path))  # reading all of them takes a while
    if source.kind != "shards":
        open_source(source)


def _check_start(start: StartConfig) -> None:
    start.shape()
    _load_start(start.prior)
    if start.degradation_encoder is not None:
        _load_start(start.degradation_encoder, encoder=True)
    if start.transfer is not None:
        load_model(start.transfer.source)


def _load_start(path: Path, *, encoder: bool = False) -> None:
    """Load a prior, or a degradation encoder, that runs start from."""
    load = load_degradation_encoder if encoder else load_live_prior
    try:
        load(path)
    except CheckpointError as error:
        what = "degradation encoder" if encoder else "prior"
        raise CheckpointError(
            f"{error}; the budget's recipes name it as their {what}: train or convert it, or name "
            "another in a budget of your own"
        ) from error


def _check_supervision(recipe: RestorationRunConfig) -> None:
    """Load the frozen networks of the losses."""
    try:
        Perceptual(recipe.perceptual)
        if recipe.identity is not None:
            load_identity(recipe.identity.weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; the runs learn by it: name its folder with --metrics-dir"
        ) from error
