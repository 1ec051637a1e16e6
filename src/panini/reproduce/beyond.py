"""Beyond the paper: what its claims rest on, each part a table of its own.

levels: what each fused level contributes. pairs: UDRL's against DASR's. masks: by degradation
against constant ones. dre: the degradation encoder frozen, as in the paper, against trained on.
additions: what the training has that the paper has not.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from panini.checkpoints import load_degradation_encoder
from panini.degradations import SAMPLERS
from panini.evaluation import FaceRow, network_system
from panini.evaluation.systems import INPUTS
from panini.evaluation.tables import table as grid
from panini.metrics.bootstrap import Interval, mean_interval
from panini.models.fusion import FusionControl
from panini.models.panini_net import Task
from panini.reproduce.additions import additions, additions_needs
from panini.reproduce.fusion import CONSTANT, DRE, METHODS, network_entry
from panini.reproduce.inputs import Needs
from panini.reproduce.result import Row, Table, measured, number
from panini.reproduce.sheets import keep_sheet, synthetic_sheet
from panini.reproduce.study import Study, Trained
from panini.training.degradation import WEIGHTS as ENCODER
from panini.training.degradation import DegradationRunConfig
from panini.training.probe import LEAST_FACES, TARGETS, ProbeReport, probe

OPEN = 30.0
"""A bias on the logits of the masks that leaves nothing of the other source."""


def beyond(study: Study) -> list[Path]:
    """Make the parts that are asked for; returns the files."""
    return [path for name in study.chosen(PARTS) for path in PARTS[name](study)]


def beyond_needs(study: Study) -> Needs:
    """What the parts that are asked for read."""
    return reduce(or_, (NEEDS[name](study) for name in study.chosen(PARTS)))


def _variant_needs(run: str) -> Needs:
    runs = frozenset[tuple[Task, str]]({("mfr", "mfr-dafi"), ("mfr", run)})
    return Needs(runs=runs, compared=frozenset({"mfr"}), faces=1)


def _levels_needs(study: Study) -> Needs:
    heads = study.config.level_faces or study.config.evaluation.faces
    networks = frozenset[Task]({"mfr"})
    return Needs(networks=networks, masks=True, compared=networks, faces=1, heads=heads)


NEEDS: dict[str, Callable[[Study], Needs]] = {
    "levels": _levels_needs,
    "pairs": lambda _: Needs(
        encoders=frozenset({"pairs-udrl", "pairs-dasr"}),
        faces=LEAST_FACES,
        faces_for="the part pairs of beyond",
    ),
    "masks": lambda _: _variant_needs("mfr-constant"),
    "dre": lambda _: _variant_needs("mfr-dre"),
    "additions": additions_needs,
}
"""Part → what it reads."""

# ----------------------------------------------------------------------------------------------
# What each level contributes


def levels(study: Study) -> list[Path]:
    """Force the masks of one level to the prior, or to the image; nothing is trained."""
    net, name = study.masked_network()
    size = study.config.evaluation.size
    bare = copy.deepcopy(net)
    bare.bands = None
    systems = {"whole": network_system(net, "whole", size=size)}
    labels = {"whole": f"{name}, whole"}
    if net.bands is not None:
        # Bands follow the bias of their level: without them only the fusion differs.
        systems["without bands"] = network_system(bare, "without bands", size=size)
        labels["without bands"] = "without the bands of the photo"
    reference = list(systems)[-1]
    for level, (source, bias) in itertools.product(
        net.fusion.levels, (("prior", OPEN), ("image", -OPEN))
    ):
        key = f"{level} px {source}"
        control = FusionControl(bias={level: bias})
        systems[key] = network_system(bare, key, size=size, control=control)
        labels[key] = f"level {level} px takes the {source} alone"
    report = study.evaluate("levels", "mfr", list(systems.values()), faces=study.config.level_faces)
    first = INPUTS["mfr"]
    rows = [measured(Row(label=first, system=first, source="no restorer"), report)]
    rows += [
        measured(Row(label=label, system=key, source=name), report, reference)
        for key, label in labels.items()
    ]
    table = Table(
        name="beyond-levels",
        title="What each fused level contributes",
        about=study.about() | {"task": "mfr", "network": name},
        rows=rows,
        reference=reference,
        notes=[
            "Nothing is trained: the masks of one level are forced to one source, and the other "
            "levels stay. A network that had learned without a level might do better without it.",
        ],
    )
    files = [*study.write(table), *keep_sheet(study, "levels", "beyond-levels")]
    return files + synthetic_sheet(study, "mfr", list(systems.values()), "beyond-levels")


# ----------------------------------------------------------------------------------------------
# Variants of one run


def masks(study: Study) -> list[Path]:
    """Masks that follow v_DR against masks that a learned constant makes."""
    start = {"fusion_method": "dafi", "constant_masks": True, "degradation_encoder": None}
    run = study.restoration("mfr", "mfr-constant", start)
    title = "Masks by degradation against constant masks"
    return _variant(study, "masks", title, (run, CONSTANT, "masks of a learned constant"))


def dre(study: Study) -> list[Path]:
    """The degradation encoder frozen, as in the paper, against trained with the rest."""
    start = {"fusion_method": "dafi"}
    run = study.restoration("mfr", "mfr-dre", start, train_degradation_encoder=1.0)
    title = "The degradation encoder frozen against trained"
    return _variant(study, "dre", title, (run, DRE, "degradation encoder trained too"))


def _variant(study: Study, name: str, title: str, variant: tuple[Trained, str, str]) -> list[Path]:
    """DAFI's run beside one that differs from it in one thing: (run, system, label)."""
    ours = study.restoration("mfr", "mfr-dafi", {"fusion_method": "dafi"})
    entries = [
        network_entry(study, ours, "dafi", f"{METHODS['dafi']}: as in the paper"),
        network_entry(study, *variant),
    ]
    systems = [entry.system for entry in entries]
    report = study.evaluate("mfr", "mfr", systems)
    rows = [measured(entry.row, report, "dafi") for entry in entries]
    thetas = {row.system: _Theta.of(report.rows[row.system]) for row in rows}
    table = Table(
        name=f"beyond-{name}",
        title=title,
        about=study.about("mfr"),
        rows=rows,
        reference="dafi",
        notes=["The rows share all but this: recipe, seed, faces, number of images, start."],
        more={
            "theta": {
                key: asdict(theta.mean) | {"deviation": theta.deviation}
                for key, theta in thetas.items()
            }
        },
        sections=[
            grid(
                ("system", "mean θ", "deviation over faces"),
                [
                    (key, number("theta", theta.mean), f"{theta.deviation:.3f}")
                    for key, theta in thetas.items()
                ],
            )
        ],
    )
    files = [*study.write(table), *keep_sheet(study, "mfr", table.name)]
    return files + synthetic_sheet(study, "mfr", systems, table.name)


class _Theta(NamedTuple):
    """θ of one system."""

    mean: Interval
    deviation: float
    """Over the faces."""

    @classmethod
    def of(cls, faces: Sequence[FaceRow]) -> _Theta:
        values = [face.theta for face in faces]
        return cls(mean_interval(values), float(np.std(values)))


# ----------------------------------------------------------------------------------------------
# Pairs of the contrastive loss


def pairs(study: Study) -> list[Path]:
    """Degradation encoders that learned from UDRL's pairs and from DASR's, probed."""
    config = study.config.probe
    faces = [image for _, image in study.faces(config.faces)]
    found: dict[str, ProbeReport] = {}
    for kind in ("udrl", "dasr"):
        changes = _one_face_a_pair(study.budget.degradation) if kind == "dasr" else {}
        run = study.degradation(f"pairs-{kind}", pairs=kind, crop=study.config.crop, **changes)
        found[kind] = probe(
            load_degradation_encoder(run.folder / ENCODER),
            faces,
            sampler=SAMPLERS[study.config.evaluation.degradations],
            size=config.size,
            views=config.views,
            seed=study.config.evaluation.seed,
        )
    counted = {"pairs a run": study.budget.degradation.images // 2, "crop": study.config.crop}
    table = Table(
        name="beyond-pairs",
        title="Pairs of the contrastive loss: UDRL's against DASR's",
        about=study.about() | counted,
        notes=[
            "UDRL's pairs are crops of different faces under one degradation, DASR's two crops of "
            "one face; the runs share recipe, seed, number of pairs, of steps and of negatives.",
            "v_DR is the vector that Panini-Net reads, before the projection head; of the mobile "
            "kind, every axis is brought to one size. contrast is the space of unit vectors after "
            "the head, where the loss compares. What the loss does shows in contrast, what the "
            "masks are given in v_DR.",
            f"{len(faces)} faces at {config.size} px under {config.views} degradations each. The "
            "columns of Eq. 10's numbers are R² of a linear probe on faces that it did not see; "
            "same face: how often the nearest vector under another degradation is of the same "
            "face. The paper claims that its pairs teach the degradation (R² high) and not the "
            "face (same face near chance). Intervals are 95 %, from the bootstrap over faces.",
        ],
        more={"probes": {kind: report.to_dict() for kind, report in found.items()}},
        sections=[_probes(found)],
    )
    return study.write(table)


def _one_face_a_pair(recipe: DegradationRunConfig) -> dict[str, Any]:
    """Half of the faces: DASR's pairs take one each. Steps, and so the rates, stay the same."""
    groups = [group.model_copy(update={"count": group.count // 2}) for group in recipe.data.groups]
    data = recipe.data.model_copy(update={"groups": tuple(groups)})
    halved = {"images": recipe.images // 2, "warmup_images": recipe.warmup_images // 2}
    return {"data": data, **halved}


def _probes(found: Mapping[str, ProbeReport]) -> str:
    head = ("pairs", "space", *TARGETS, "same face, %", "chance, %")
    rows = [
        (
            kind.upper(),
            space,
            *(_within(part.intervals[target], ".2f") for target in TARGETS),
            _within(part.intervals["same_face"], ".1f", 100),
            f"{100 * report.chance:.2f}",
        )
        for kind, report in found.items()
        for space, part in (("v_DR", report.v_dr), ("contrast", report.contrast))
    ]
    return grid(head, rows)


def _within(value: Interval, form: str, times: float = 1) -> str:
    mean, low, high = (times * bound for bound in (value.mean, value.low, value.high))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


PARTS: dict[str, Callable[[Study], list[Path]]] = {
    "levels": levels,
    "pairs": pairs,
    "masks": masks,
    "dre": dre,
    "additions": additions,
}
"""What `--only` can name."""
