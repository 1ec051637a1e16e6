"""What the training has that the paper has not, one thing at a time.

Every addition is a switch of the recipe. It is measured by two runs that share all but it: seed,
faces and their order, number of images, start. One of the two is, wherever it fits, the base: the
study's run of DAFI with what the budget's `additions` changes in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from panini.checkpoints import load_model
from panini.data import DataConfig, GroupConfig, SourceConfig
from panini.data.config import DegradationPhase
from panini.evaluation import Report, System, network_system
from panini.evaluation.tables import NOTHING, title
from panini.evaluation.tables import table as grid
from panini.metrics import DESCRIPTIONS
from panini.metrics.bootstrap import paired_interval
from panini.models.stylegan2 import SIZES
from panini.reproduce.inputs import Needs
from panini.reproduce.result import Table, number, verdict
from panini.reproduce.study import Study, Trained
from panini.training.critics import AdversarialConfig, FeatureAdversarialConfig
from panini.training.network import WEIGHTS, StartConfig
from panini.training.restoration import (
    IdentityConfig,
    OutputPhase,
    PerceptualConfig,
    RestorationRunConfig,
)
from panini.training.warmup import WarmupRunConfig

DAFI, DAFI_RUN = "dafi", "mfr-dafi"
BASE = "base"
WARMUP_RUN = "mfr-warmup"
IDENTITY_FILE, HEADS_FILE = "face_identity.safetensors", "lpips_vgg_heads.safetensors"
"""Of the folder of frozen networks."""
LEAST_SIZE = 128
"""That is ever drawn, px."""

WHOLE = 64
"""Window of whole faces, in cells."""

Changes = Mapping[str, Any]
Sides = tuple[Changes, Changes]
"""In what the runs without and with an addition differ from the base."""


ALONE: Changes = {"adversarial": None, "feature_adversarial": None}
"""Of rows that draw windows: a discriminator of whole faces cannot look at one."""


class Addition(NamedTuple):
    """One row."""

    name: str
    """Of its runs."""
    label: str
    switch: str
    """In the recipe."""
    sides: Callable[[Study, RestorationRunConfig], Sides | str]
    """Its two runs; or why they cannot be made."""


class Side(NamedTuple):
    """One of the two runs of an addition."""

    system: str
    recipe: RestorationRunConfig


class Pair(NamedTuple):
    """An addition with its recipes."""

    addition: Addition
    without: Side
    added: Side


def additions(study: Study) -> list[Path]:
    """Train what is not trained yet, compare each addition's two runs; returns the files."""
    pairs, absent = _pairs(study)
    sides = {side.system: side for pair in pairs for side in (pair.without, pair.added)}
    runs = {name: _trained(study, side) for name, side in sides.items()}
    report = study.evaluate("mfr", "mfr", list(_systems(study, sides, runs)))
    table = Table(
        name="beyond-additions",
        title="What the training adds to the paper's",
        about=study.about("mfr"),
        absent=absent,
        notes=[
            "A row is two runs that share the rest: seed, faces and their order, number of images. "
            "A cell is the mean with the addition, then its paired difference from the run "
            "without; better and worse are said of the addition.",
            "The first two rows draw the larger side, and are set against whole faces of that side "
            "from the first image on. Warm-up and the start from a trained network are set against "
            "a new network that begins with restoration.",
            "Seconds are those of training, with and without; where a run was cut off, they are "
            "not known. Intervals are 95 %, from the bootstrap over faces; one seed, so the spread "
            "between seeds is not in them.",
            "A short run says what helps at its beginning. What steadies a long one, such as R1 or "
            "a curriculum, has little to do there.",
        ],
        more={"runs": {name: _facts(report, name, run) for name, run in runs.items()}},
        sections=[_effects(report, runs, pairs)],
    )
    return study.write(table)


def additions_needs(study: Study) -> Needs:
    """What they read. The recipes are made, so that one that does not fit is known at once."""
    _pairs(study)
    return Needs(runs=frozenset({("mfr", DAFI_RUN)}), compared=frozenset({"mfr"}), faces=1)


# ----------------------------------------------------------------------------------------------
# Runs


def _pairs(study: Study) -> tuple[list[Pair], dict[str, str]]:
    """Recipes of the additions; and those that this study cannot measure, with the reason."""
    dafi = _dafi_recipe(study)
    known = [Side(DAFI, dafi)]
    base = _side(study, known, BASE, dafi, study.config.additions).recipe
    pairs, absent = [], {}
    for addition in ADDITIONS:
        sides = addition.sides(study, base)
        if isinstance(sides, str):
            absent[addition.label] = sides
            continue
        names = (f"no-{addition.name}", addition.name)
        without, added = (
            _side(study, known, name, base, changes)
            for name, changes in zip(names, sides, strict=True)
        )
        pairs.append(Pair(addition, without, added))
    return pairs, absent


def _dafi_recipe(study: Study) -> RestorationRunConfig:
    """Of the study's run of DAFI."""
    return study.restoration_recipe("mfr", DAFI_RUN, {"fusion_method": DAFI})


def _side(
    study: Study, known: list[Side], name: str, base: RestorationRunConfig, changes: Changes
) -> Side:
    """A run; where one of the known ones is the same but for its folder, that."""
    recipe = study.fitted(base, f"mfr-{name}", changes)
    for side in known:
        if side.recipe.model_copy(update={"out": recipe.out}) == recipe:
            return side
    known.append(Side(name, recipe))
    return known[-1]


def _trained(study: Study, side: Side) -> Trained:
    warm = None
    if side.recipe.init is not None:
        warm = study.run(WARMUP_RUN, _warmup_recipe(study, side.recipe))
    run = study.run(f"mfr-{side.system}", side.recipe)
    return run if warm is None else _together(warm, run)


def _together(first: Trained, second: Trained) -> Trained:
    """Two stages as one run: the second's network, and what both have cost."""
    seconds = None
    if first.seconds is not None and second.seconds is not None:
        seconds = first.seconds + second.seconds
    images = first.images + second.images
    return Trained(folder=second.folder, images=images, seconds=seconds)


def _systems(
    study: Study, sides: Mapping[str, Side], runs: Mapping[str, Trained]
) -> Iterator[System]:
    for name, run in runs.items():
        _, size = sides[name].recipe.output_at(run.images)
        yield network_system(load_model(run.weights).to(study.device), name, size=size)


# ----------------------------------------------------------------------------------------------
# Additions


def _windows(study: Study, base: RestorationRunConfig) -> Sides:
    """Half a face's side at a time."""
    whole = OutputPhase(until=_never(base), window=WHOLE, size=_large(base))
    half = whole.model_copy(update={"window": 32})
    return {"phases": (whole,), **ALONE}, {"phases": (half,), **ALONE}


def _growing(study: Study, base: RestorationRunConfig) -> Sides:
    """Faces of half the side for three quarters of the run."""
    large = _large(base)
    whole = OutputPhase(until=_never(base), window=WHOLE, size=large)
    small = max(LEAST_SIZE, (large or _start(base).shape().out_size) // 2)
    first = OutputPhase(until=max(1, base.images * 3 // 4), window=WHOLE, size=small)
    return {"phases": (whole,)}, {"phases": (first, whole)}


def _lpips(study: Study, base: RestorationRunConfig) -> Sides | str:
    heads = base.perceptual.heads or _frozen(study, HEADS_FILE)
    if heads is None:
        return f"needs {HEADS_FILE} in --metrics-dir"
    vgg = base.perceptual.vgg
    plain, ours = PerceptualConfig(vgg=vgg), base.perceptual
    if ours.kind != "lpips":
        ours = PerceptualConfig(kind="lpips", vgg=vgg, heads=heads, weight=4.0)
    return {"perceptual": plain}, {"perceptual": ours}


def _identity(study: Study, base: RestorationRunConfig) -> Sides | str:
    weights = _frozen(study, IDENTITY_FILE)
    if weights is None:
        return f"needs {IDENTITY_FILE} in --metrics-dir"
    identity = IdentityConfig(weights=weights, weight=3.0, every=2)
    return {"identity": None, **ALONE}, {"identity": identity, **ALONE}


def _r1(study: Study, base: RestorationRunConfig) -> Sides:
    critic = base.adversarial
    if critic is None:
        scale, patch = _place(base)
        critic = AdversarialConfig(scale=scale, patch=patch)
    plain, ours = (critic.model_copy(update={"r1_weight": weight}) for weight in (0.0, 0.5))
    return {"adversarial": plain}, {"adversarial": ours}


def _features(study: Study, base: RestorationRunConfig) -> Sides:
    scale, patch = _place(base)
    critic = FeatureAdversarialConfig(vgg=base.perceptual.vgg, scale=scale, patch=patch)
    return {"feature_adversarial": None}, {"feature_adversarial": critic}


def _average(study: Study, base: RestorationRunConfig) -> Sides:
    return {"ema_half_life": 0}, {"ema_half_life": base.ema_half_life or 10_000}


def _curriculum(study: Study, base: RestorationRunConfig) -> Sides:
    """The milder half of the downsampling for the first half of the run."""
    whole = base.data.degradations[0]
    low, high = whole.low_side
    milder: Changes = {"low_side": ((low + high) // 2, high)}
    if whole.rate is not None:
        low, high = whole.rate
        milder = {"rate": (low, (low + high) / 2)}
    phase = DegradationPhase(until=max(1, base.images // 2), weights=(0.0, 1.0))
    changes = {
        "degradations": (whole, whole.model_copy(update=milder)),
        "degradation_weights": (1.0, 0.0),
        "curriculum": (phase,),
    }
    return {}, {"data": base.data.model_copy(update=changes)}


def _prior_faces(study: Study, base: RestorationRunConfig) -> Sides:
    """One face of each batch is the prior's, in place of one of the first group."""
    first, *others = base.data.groups
    if first.count > 1:
        first = first.model_copy(update={"count": first.count - 1})
    finest = base.data.groups[-1]
    drawn = GroupConfig(source=_live(base), count=1, gt_size=finest.gt_size, scales=finest.scales)
    return {}, {"data": _with_groups(base, (first, *others, drawn))}


def _mask_rate(study: Study, base: RestorationRunConfig) -> Sides:
    fast = base.mask_rate if base.mask_rate != 1 else 3.0
    return {"mask_rate": 1.0}, {"mask_rate": fast}


def _jitter(study: Study, base: RestorationRunConfig) -> Sides:
    """Brightness, contrast and saturation by up to a tenth, each on its own."""
    plain, varied = (
        _with_groups(
            base,
            tuple(group.model_copy(update={"colour_jitter": by}) for group in base.data.groups),
        )
        for by in (0.0, 0.1)
    )
    return {"data": plain}, {"data": varied}


def _clip(study: Study, base: RestorationRunConfig) -> Sides:
    ours = base.clip_norm if math.isfinite(base.clip_norm) else 1.0
    return {"clip_norm": math.inf}, {"clip_norm": ours}


def _climb(study: Study, base: RestorationRunConfig) -> Sides:
    """The learning rate climbs to its peak over the first images."""
    return {"warmup_images": 0}, {"warmup_images": base.warmup_images or max(1, base.images // 8)}


def _warmup(study: Study, base: RestorationRunConfig) -> Sides:
    """Half of the images are stage 2's."""
    init = study.folder(WARMUP_RUN) / WEIGHTS
    images = max(1, base.images // 2)
    return _scratch(base), {"start": None, "init": init, "images": images}


def _transfer(study: Study, base: RestorationRunConfig) -> Sides | str:
    if _start(base).transfer is None:
        return "the budget's recipe names no network to start from"
    return _scratch(base), {}


ADDITIONS = (
    Addition("windows", "windows instead of whole faces", "phases[].window", _windows),
    Addition("growing", "growing output", "phases[].size", _growing),
    Addition("lpips", "LPIPS instead of conv4_3", "perceptual.kind: lpips", _lpips),
    Addition("identity", "identity loss", "identity", _identity),
    Addition("r1", "R1 for the discriminator", "adversarial.r1_weight", _r1),
    Addition("features", "discriminator of VGG features", "feature_adversarial", _features),
    Addition("average", "average of the weights", "ema_half_life", _average),
    Addition("curriculum", "curriculum of degradations", "data.curriculum", _curriculum),
    Addition("prior-faces", "faces of the prior in the mix", "kind: prior_live", _prior_faces),
    Addition("mask-rate", "masks learn faster", "mask_rate", _mask_rate),
    Addition("jitter", "colours of the faces varied", "colour_jitter", _jitter),
    Addition("clip", "gradients clipped", "clip_norm", _clip),
    Addition("climb", "learning rate that climbs first", "warmup_images", _climb),
    Addition("warmup-first", "half of the run is warm-up", "panini train warmup", _warmup),
    Addition("transfer", "a start from a trained network", "transfer", _transfer),
)


def _start(base: RestorationRunConfig) -> StartConfig:
    assert base.start is not None  # the budget saw to it
    return base.start


def _scratch(base: RestorationRunConfig) -> Changes:
    """A new network, but for its prior and degradation encoder."""
    return {"start": _start(base).model_copy(update={"transfer": None})}


def _never(base: RestorationRunConfig) -> int:
    """An image that the run does not come to."""
    return base.images + 1


def _large(base: RestorationRunConfig) -> int | None:
    """Twice the side that the base draws, px; None, where that is the network's own already."""
    _, size = base.output_at(base.images)
    return None if size is None else min(2 * size, _start(base).shape().out_size)


def _place(base: RestorationRunConfig) -> tuple[int, int]:
    """Where a discriminator looks: the finest side of a truth, and patches of a quarter of it."""
    scale = max(side for group in base.data.groups for side in group.scales)
    return scale, max(min(SIZES), scale // 4)


def _live(base: RestorationRunConfig) -> SourceConfig:
    return SourceConfig(kind="prior_live", paths=(_start(base).prior,))


def _with_groups(base: RestorationRunConfig, groups: tuple[GroupConfig, ...]) -> DataConfig:
    return base.data.model_copy(update={"groups": groups})


def _frozen(study: Study, name: str) -> Path | None:
    """A file of the frozen networks, where it is there."""
    folder = study.options.metrics_dir
    path = None if folder is None else folder / name
    return path if path is not None and path.is_file() else None


def _warmup_recipe(study: Study, recipe: RestorationRunConfig) -> WarmupRunConfig:
    """Stage 2 before a run: on as many faces a batch, all of them the prior's."""
    dafi = _dafi_recipe(study)
    start = _start(dafi)
    group = GroupConfig(
        source=_live(dafi),
        count=recipe.data.batch,
        gt_size=recipe.data.groups[-1].gt_size,
        flip=False,
    )
    warmup = WarmupRunConfig(
        out=recipe.out,
        images=recipe.images,
        # The shape that the runs have: the named size may have bands.
        size=str(study.folder(DAFI_RUN) / WEIGHTS),
        prior=start.prior,
        degradation_encoder=start.degradation_encoder,
        data=_with_groups(recipe, (group,)),
        learning_rate=recipe.learning_rate,
        warmup_images=recipe.warmup_images,
        mask_rate=recipe.mask_rate,
        precision=recipe.precision,
        log_every_s=recipe.log_every_s,
    )
    return study.fitted(warmup, WARMUP_RUN, {})


# ----------------------------------------------------------------------------------------------
# What they say


def _facts(report: Report, name: str, run: Trained) -> dict[str, Any]:
    """A run, for the JSON."""
    scores = {metric: asdict(report.mean(name, metric)) for metric in report.metrics}
    return {"images": run.images, "seconds": run.seconds, "scores": scores}


def _effects(report: Report, runs: Mapping[str, Trained], pairs: Sequence[Pair]) -> str:
    names = {report.names.get(metric, metric): metric for metric in report.metrics}
    # With peak 1 the difference of PSNR is the same.
    named = {
        name: metric
        for name, metric in names.items()
        if DESCRIPTIONS[name].better and metric != "psnr_peak1"
    }
    head = ["addition", "switch", "seconds", *(title(DESCRIPTIONS[name]) for name in named)]
    lines = []
    for pair in pairs:
        seconds = " / ".join(_seconds(runs[side.system]) for side in (pair.added, pair.without))
        cells = [_effect(report, pair, name, metric) for name, metric in named.items()]
        lines.append([pair.addition.label, f"`{pair.addition.switch}`", seconds, *cells])
    return grid(head, lines)


def _effect(report: Report, pair: Pair, name: str, metric: str) -> str:
    added, without = pair.added.system, pair.without.system
    alone = number(name, report.mean(added, metric))
    change = paired_interval(report.values(added, metric), report.values(without, metric))
    return f"{alone}: {number(name, change, signed=True)} {verdict(name, change)}"


def _seconds(run: Trained) -> str:
    return NOTHING if run.seconds is None else f"{run.seconds:.0f}"


SYSTEMS = frozenset(
    {BASE, *(name for addition in ADDITIONS for name in (addition.name, f"no-{addition.name}"))}
)
"""Rows of these runs, measured in the same folder as table 1."""
