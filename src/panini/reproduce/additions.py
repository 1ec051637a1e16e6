"""What the training has that the paper has not, one thing at a time.

Every addition is a switch of the recipe. It is measured by two runs that share all but it: seed,
faces and their order, number of images, start. The base is the study's run of DAFI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from panini.metrics.bootstrap import Interval, paired_interval
from panini.models.stylegan2 import SIZES
from panini.reproduce.inputs import Needs
from panini.reproduce.result import Table, number, verdict
from panini.reproduce.study import Study, Trained
from panini.training.critics import AdversarialConfig, FeatureAdversarialConfig
from panini.training.network import WEIGHTS
from panini.training.restoration import (
    IdentityConfig,
    OutputPhase,
    PerceptualConfig,
    RestorationRunConfig,
)
from panini.training.warmup import WarmupRunConfig

BASE = "dafi"
"""The run that most others differ from in one thing."""
IDENTITY_FILE = "face_identity.safetensors"
"""Of the folder of frozen networks."""

LEAST_SIZE = 128
"""That is ever drawn, px."""

Changes = Mapping[str, Any]


class Addition(NamedTuple):
    """One row: what is added, and the two runs that tell its effect."""

    label: str
    switch: str
    without: str
    added: str


ADDITIONS = (
    Addition("windows instead of whole faces", "window", "whole", "window"),
    Addition("growing output", "phases[].size", "whole", "growing"),
    Addition("LPIPS instead of conv4_3", "perceptual.kind: lpips", "conv4-3", BASE),
    Addition("identity loss", "identity", BASE, "identity"),
    Addition("R1 for the discriminator", "adversarial.r1_weight", "critic", "critic-r1"),
    Addition("discriminator of VGG features", "feature_adversarial", BASE, "features"),
    Addition("average of the weights", "ema_half_life", "no-average", BASE),
    Addition("curriculum of degradations", "data.curriculum", BASE, "curriculum"),
    Addition("faces of the prior in the mix", "a group of prior_live", BASE, "prior-faces"),
    Addition("masks learn faster", "mask_rate", "mask-rate-1", BASE),
    Addition("half of the run is warm-up", "panini train warmup", "scratch", "warmed"),
    Addition("start from a trained network", "transfer", "scratch", BASE),
)

NEEDS = Needs(runs=frozenset({("mfr", "mfr-dafi")}), compared=frozenset({"mfr"}), faces=1)


def additions(study: Study) -> list[Path]:
    """Train what is not trained yet, compare each addition's two runs; returns the files."""
    names = dict.fromkeys(name for row in ADDITIONS for name in (row.without, row.added))
    runs = {name: run for name in names if (run := _trained(study, name)) is not None}
    report = study.evaluate("mfr", "mfr", list(_systems(study, runs)))
    rows = [row for row in ADDITIONS if {row.without, row.added} <= runs.keys()]
    absent = {
        row.label: f"needs {IDENTITY_FILE} in --metrics-dir" for row in ADDITIONS if row not in rows
    }
    table = Table(
        name="beyond-additions",
        title="What the training adds to the paper's",
        about=study.about("mfr"),
        absent=absent,
        notes=[
            "A row is two runs that share the rest: seed, faces and their order, number of images. "
            "A cell is the mean with the addition, and its paired difference from the run without.",
            "The first two rows draw twice the side of the others, and are set against whole faces "
            "of that side from the first image on. The last two begin at a new network.",
            "Seconds are those of training, with and without; where a run was cut off, they are "
            "not known. Intervals are 95 %, from the bootstrap over faces; one seed, so the spread "
            "between seeds is not in them.",
            "So short a run says what helps at its beginning. What steadies a long one, such as R1 "
            "or a curriculum, has little to do here.",
        ],
        more={"runs": {name: _facts(report, name, run) for name, run in runs.items()}},
        sections=[_effects(report, runs, rows)],
    )
    return study.write(table)


def _systems(study: Study, runs: Mapping[str, Trained]) -> Iterator[System]:
    for name, run in runs.items():
        net = load_model(run.weights).to(study.device)
        large = name in _LARGE
        yield network_system(net, name, size=_size(study, large=large))


# ----------------------------------------------------------------------------------------------
# Runs

_LARGE = frozenset({"whole", "window", "growing"})
"""Runs that draw twice the side of the base, where that does not draw the network's own."""


def _size(study: Study, *, large: bool) -> int | None:
    """Side that is drawn, px; None = the network's own."""
    size = study.config.evaluation.size
    return 2 * size if large and size is not None else size


def _trained(study: Study, name: str) -> Trained | None:
    """One of the runs; None where a network that it learns by is not there."""
    start = {"fusion_method": "dafi"}
    if name == BASE:
        return study.restoration("mfr", "mfr-dafi", start)
    base = study.restoration_recipe("mfr", "mfr-dafi", start)
    changes = _changes(study, base, name)
    if changes is None:
        return None
    starts = {"scratch": start | {"transfer": None}, "warmed": None}
    return study.restoration("mfr", f"mfr-{name}", starts.get(name, start), **changes)


def _changes(study: Study, base: RestorationRunConfig, name: str) -> Changes | None:
    """In what a run's recipe differs from the base, beside the start; None: it cannot be run."""
    match name:
        case "scratch":
            return {}
        case "warmed":
            images = max(1, base.images // 2)
            warm = study.warmup("mfr-warmup", _warmup_recipe(study, base, images))
            return {"init": warm.weights, "images": images}
        case "identity":
            path = _identity_file(study)
            term = None if path is None else IdentityConfig(weights=path, weight=3.0, every=2)
            return None if term is None else {"identity": term}
        case "whole" | "window" | "growing":
            return {"phases": _phases(study, base, name)}
        case "conv4-3":
            return {"perceptual": PerceptualConfig(vgg=base.perceptual.vgg)}
        case "critic" | "critic-r1":
            weight, (scale, patch) = 0.5 if name == "critic-r1" else 0.0, _place(base)
            critic = AdversarialConfig(r1_weight=weight, scale=scale, patch=patch)
            return {"adversarial": critic}
        case "features":
            scale, patch = _place(base)
            critic = FeatureAdversarialConfig(vgg=base.perceptual.vgg, scale=scale, patch=patch)
            return {"feature_adversarial": critic}
        case "no-average":
            return {"ema_half_life": 0}
        case "curriculum":
            return {"data": _mild_first(base)}
        case "prior-faces":
            return {"data": _with_prior_faces(base)}
        case "mask-rate-1":
            return {"mask_rate": 1.0}
    raise AssertionError(name)


def _phases(study: Study, base: RestorationRunConfig, name: str) -> tuple[OutputPhase, ...]:
    """What is drawn: whole faces of the large side, their windows, or smaller faces first."""
    large = _size(study, large=True)
    always = 10 * base.images
    if name != "growing":
        return (OutputPhase(until=always, window=32 if name == "window" else 64, size=large),)
    assert base.start is not None  # the budget saw to it
    whole = large or base.start.shape().out_size
    small = max(LEAST_SIZE, whole // 2)
    first = OutputPhase(until=max(1, base.images * 3 // 4), size=small)
    return (first, OutputPhase(until=always, size=large))


def _identity_file(study: Study) -> Path | None:
    """Of the descriptor's weights, where there is one."""
    folder = study.options.metrics_dir
    path = None if folder is None else folder / IDENTITY_FILE
    return path if path is not None and path.is_file() else None


def _warmup_recipe(study: Study, base: RestorationRunConfig, images: int) -> WarmupRunConfig:
    """Stage 2 of the base's network, on as many faces a batch, all of them the prior's."""
    assert base.start is not None  # the budget saw to it
    source = SourceConfig(kind="prior_live", paths=(base.start.prior,))
    side = base.data.groups[-1].gt_size
    group = GroupConfig(source=source, count=base.data.batch, gt_size=side, flip=False)
    return WarmupRunConfig(
        out=base.out,
        images=images,
        # The shape that the runs have: the named size may have bands.
        size=str(study.folder("mfr-dafi") / WEIGHTS),
        prior=base.start.prior,
        degradation_encoder=base.start.degradation_encoder,
        data=base.data.model_copy(update={"groups": (group,)}),
        learning_rate=base.learning_rate,
        warmup_images=base.warmup_images,
        mask_rate=base.mask_rate,
        precision=base.precision,
        log_every_s=base.log_every_s,
    )


def _place(base: RestorationRunConfig) -> tuple[int, int]:
    """Where a discriminator looks: the finest side of a truth, and patches of a quarter of it."""
    scale = max(side for group in base.data.groups for side in group.scales)
    return scale, max(min(SIZES), scale // 4)


def _mild_first(base: RestorationRunConfig) -> DataConfig:
    """The milder half of the low sides for the first half of the run."""
    whole = base.data.degradations[0]
    low, high = whole.low_side
    mild = whole.model_copy(update={"low_side": ((low + high) // 2, high)})
    phase = DegradationPhase(until=max(1, base.images // 2), weights=(0.0, 1.0))
    changes = {"degradations": (whole, mild), "degradation_weights": (1.0, 0.0)}
    return base.data.model_copy(update={**changes, "curriculum": (phase,)})


def _with_prior_faces(base: RestorationRunConfig) -> DataConfig:
    """One face of each batch is the prior's, in place of one of the first group."""
    assert base.start is not None  # the budget saw to it
    first, *others = base.data.groups
    if first.count > 1:
        first = first.model_copy(update={"count": first.count - 1})
    side, scales = base.data.groups[-1].gt_size, base.data.groups[-1].scales
    source = SourceConfig(kind="prior_live", paths=(base.start.prior,))
    drawn = GroupConfig(source=source, count=1, gt_size=side, scales=scales)
    return base.data.model_copy(update={"groups": (first, *others, drawn)})


# ----------------------------------------------------------------------------------------------
# What they say


def _facts(report: Report, name: str, run: Trained) -> dict[str, Any]:
    """A run, for the JSON."""
    scores = {metric: asdict(report.mean(name, metric)) for metric in report.metrics}
    return {"images": run.images, "seconds": run.seconds, "scores": scores}


def _effects(report: Report, runs: Mapping[str, Trained], rows: Sequence[Addition]) -> str:
    names = {report.names.get(metric, metric): metric for metric in report.metrics}
    # With peak 1 the difference of PSNR is the same.
    named = {
        name: metric
        for name, metric in names.items()
        if DESCRIPTIONS[name].better and metric != "psnr_peak1"
    }
    head = ["addition", "switch", "seconds", *(title(DESCRIPTIONS[name]) for name in named)]
    lines = []
    for row in rows:
        seconds = f"{_seconds(runs[row.added])} / {_seconds(runs[row.without])}"
        cells = [_effect(report, row, name, metric) for name, metric in named.items()]
        lines.append([row.label, f"`{row.switch}`", seconds, *cells])
    return grid(head, lines)


def _effect(report: Report, row: Addition, name: str, metric: str) -> str:
    mean: Interval = report.mean(row.added, metric)
    change = paired_interval(report.values(row.added, metric), report.values(row.without, metric))
    alone = number(name, mean).partition(" ")[0]
    return f"{alone}: {number(name, change, signed=True)} {verdict(name, change)}"


def _seconds(run: Trained) -> str:
    return NOTHING if run.seconds is None else f"{run.seconds:.0f}"
