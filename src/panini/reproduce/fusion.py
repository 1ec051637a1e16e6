"""Tables 1 to 3: Panini-Net beside its peers, and the fusion study.

Official weights of the peers, where the user has them; and for everyone the same encoder, prior,
faces, seed and number of images, where only the way of fusing differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from panini.checkpoints import load_model
from panini.evaluation import System, network_system
from panini.evaluation.systems import INPUTS
from panini.models.panini_net import PaniniNet, Task
from panini.reproduce.additions import SYSTEMS
from panini.reproduce.inputs import Needs
from panini.reproduce.others import OFFICIAL, PULSE, are_measured, official_rows, pulse_row
from panini.reproduce.result import Row, Table, measured, with_comparable_sets
from panini.reproduce.sheets import keep_sheet, synthetic_sheet
from panini.reproduce.study import Study, Trained

METHODS: dict[str, str] = {
    "dafi": "DAFI (Panini-Net)",
    "concat": "concatenation and convolution (GLEAN)",
    "modulation": "channel-split modulation (GFP-GAN)",
    "noise": "noise input (GPEN)",
    "latent": "latent codes only (pSp)",
}
"""Fusion method → what it is, and whose."""

REFERENCE = "dafi"
"""What the others are set against."""

SHIPPED = "shipped"
"""`--only`: the network that ships or is given, which had other training than the other rows."""

CONSTANT, DRE = "constant", "dre"
"""Rows of `beyond` that are measured in the same folder."""

PUBLISHED_NOTE = (
    "Its PSNR is of images in [-1, 1] with peak 1, 6.02 dB below that of 8 bits, and all of it is "
    "measured at 1024 px, where PSNR and LPIPS are worse than at the 256 px of the smaller "
    "budgets: set it beside the column with peak 1 of budget paper, and not beside the others."
)
"""The paper does not say so; its numbers do, see docs/evaluation.md."""

_ALIKE = (
    "The rows trained here share the recipe, the seed, the faces and their order, the number of "
    "images, the prior and the encoder's start; only the way of fusing differs. They say which way "
    "of fusing learns faster at this budget, not which is best in the end."
)
_HEAD_START = (
    "The encoder starts from a network that learned beside DAFI: that is a head start for what "
    "reads its features as DAFI does (DAFI, concatenation)."
)
_AT_THE_PRIOR = (
    "DAFI and concatenation start as a mixture of prior and image; modulation and noise input "
    "start at the prior alone, and latent codes stay there. In short runs that is a large part of "
    "the gap between them."
)
_OF_METHOD = {
    "noise": "The row of GPEN adds P F_IFE to the prior's feature. That is its concatenation where "
    "the next convolution's weights for the image's feature are W₂ = W₁ P; W₂ of its own it has "
    "not. GPEN injects a feature at every convolution, this row once a level.",
    "modulation": "The row of GFP-GAN has two layers in each head, as the original; where the "
    "recipe's branch is separable, they are 1×1 convolutions, and the original's are 3×3.",
}
_INTERVALS = (
    "Intervals of means and of differences are 95 %, from the bootstrap over faces; runs were made "
    "with one seed, so the spread between seeds is not in them."
)
_SETS = (
    "Distances of sets carry the network's name and are biased upwards for few faces: compare rows "
    "of this table only. Their intervals, from random halves, tell the spread over faces, not that "
    "bias. A row that stands on other faces than the first has none."
)


@dataclass(frozen=True, kw_only=True)
class _Spec:
    """What one of the tables compares."""

    title: str
    task: Task
    methods: tuple[str, ...]
    others: bool
    """Whether peers and latent optimisation have rows."""
    published: list[tuple[str, ...]]


TABLES: dict[str, _Spec] = {
    "table1": _Spec(
        title="Table 1: restoration of many degradations",
        task="mfr",
        methods=tuple(METHODS),
        others=True,
        published=[
            ("method", "PSNR ↑", "FID ↓", "LPIPS ↓"),
            ("GFP-GAN", "17.22", "34.61", "0.4150"),
            ("GPEN", "17.91", "32.03", "0.4355"),
            ("Panini-Net", "18.01", "24.66", "0.4470"),
        ],
    ),
    "table2": _Spec(
        title="Table 2: 16× super-resolution",
        task="sr16",
        methods=tuple(METHODS),
        others=True,
        published=[
            ("method", "PSNR ↑", "FID ↓", "LPIPS ↓"),
            ("pSp", "12.90", "47.65", "0.6529"),
            ("GLEAN", "21.66", "19.76", "0.4013"),
            ("Panini-Net", "21.19", "16.77", "0.3886"),
        ],
    ),
    "table3": _Spec(
        title="Table 3: DAFI against concatenation and convolution",
        task="sr16",
        methods=("dafi", "concat"),
        others=False,
        published=[
            ("method", "PSNR ↑", "FID ↓"),
            ("Panini-Net with Cat-Conv", "21.17", "18.41"),
            ("Panini-Net with DAFI", "21.19", "16.77"),
        ],
    ),
}


class _Entry(NamedTuple):
    """A row to be measured, and its system."""

    row: Row
    system: System


def rows_of(name: str) -> tuple[str, ...]:
    """What `--only` can name of a table."""
    spec = TABLES[name]
    return (*spec.methods, *((SHIPPED, OFFICIAL, PULSE) if spec.others else ()))


def table_needs(study: Study, name: str) -> Needs:
    """What one of `TABLES` reads."""
    spec = TABLES[name]
    chosen = study.chosen(rows_of(name))
    return Needs(
        runs=frozenset((spec.task, f"{spec.task}-{m}") for m in _ready(study, spec, chosen)),
        compared=frozenset({spec.task}),
        networks=frozenset({spec.task} if _with_shipped(study, spec, chosen) else ()),
        faces=1,
        peers=spec.task == "mfr" and _with_official(study, spec, chosen),
        taken=frozenset({*METHODS, SHIPPED, PULSE, CONSTANT, DRE, *SYSTEMS, INPUTS[spec.task]}),
    )


def fusion_table(study: Study, name: str) -> list[Path]:
    """Train what is not trained yet, compare, and write one of `TABLES`; returns the files."""
    spec = TABLES[name]
    chosen = study.chosen(rows_of(name))
    entries = [_trained(study, spec.task, method) for method in _ready(study, spec, chosen)]
    absent: dict[str, str] = {}
    if _with_shipped(study, spec, chosen):
        entries += _shipped(study, spec.task)
    if _with_official(study, spec, chosen):
        found, absent = official_rows(study, spec.task, known_only=OFFICIAL not in chosen)
        entries += [_Entry(*pair) for pair in found]
    ours = next((entry.system for entry in entries if entry.row.system == REFERENCE), None)
    rows = _measured(study, spec.task, entries, None if ours is None else REFERENCE)
    if PULSE in chosen or (spec.others and study.is_measured(f"{spec.task}-{PULSE}", PULSE)):
        rows.append(pulse_row(study, spec.task, ours))
        rows = with_comparable_sets(rows)
    table = Table(
        name=name,
        title=spec.title,
        about=study.about(spec.task),
        rows=rows,
        reference=None if ours is None else REFERENCE,
        published=spec.published,
        published_note=PUBLISHED_NOTE,
        absent=absent,
        notes=_notes(study, spec, rows),
    )
    files = [*study.write(table), *keep_sheet(study, spec.task, name)]
    return files + synthetic_sheet(study, spec.task, [entry.system for entry in entries], name)


def _notes(study: Study, spec: _Spec, rows: Sequence[Row]) -> list[str]:
    """What is true of this table."""
    recipe = study.budget.restoration[spec.task]
    systems = {row.system for row in rows}
    notes = [_ALIKE]
    if recipe.mask_rate != 1:
        notes.append(
            f"DAFI's masks learn at {recipe.mask_rate:g} times the rate of all else: an advantage "
            "that no other row has."
        )
    if recipe.start is not None and recipe.start.transfer is not None:
        notes.append(_HEAD_START)
    if not systems.isdisjoint({"modulation", "noise", "latent"}):
        notes.append(_AT_THE_PRIOR)
    notes += [note for method, note in _OF_METHOD.items() if method in systems]
    return [*notes, _INTERVALS, *([_SETS] if any(row.sets for row in rows) else [])]


def _measured(
    study: Study, task: Task, entries: Sequence[_Entry], reference: str | None
) -> list[Row]:
    """The rows, the input first."""
    if not entries:
        return []
    report = study.evaluate(task, task, [entry.system for entry in entries])
    first = INPUTS[task]
    rows = [Row(label=first, system=first, source="no restorer")]
    rows += [entry.row for entry in entries]
    return [measured(row, report, None if row.system == first else reference) for row in rows]


def _ready(study: Study, spec: _Spec, chosen: Iterable[str]) -> list[str]:
    """Methods that are asked for or trained already, in the table's order."""
    wanted = set(chosen)
    return [m for m in spec.methods if m in wanted or study.is_done(f"{spec.task}-{m}")]


def _with_shipped(study: Study, spec: _Spec, chosen: Iterable[str]) -> bool:
    """Whether the network with other training is asked for or measured already."""
    return SHIPPED in chosen or (spec.others and study.is_measured(spec.task, SHIPPED))


def _with_official(study: Study, spec: _Spec, chosen: Iterable[str]) -> bool:
    """Whether others' official weights are asked for, or some of them measured already."""
    return OFFICIAL in chosen or (spec.others and are_measured(study, spec.task))


def _trained(study: Study, task: Task, method: str) -> _Entry:
    run = study.restoration(task, f"{task}-{method}", {"fusion_method": method})
    return network_entry(study, run, method, METHODS[method])


def network_entry(study: Study, run: Trained, name: str, label: str) -> _Entry:
    """A run's network as a row."""
    net = load_model(run.weights).to(study.device)
    row = Row(
        label=label,
        system=name,
        source="trained here",
        images=run.images,
        seconds=run.seconds,
    )
    return _entry(study, net, row)


def _shipped(study: Study, task: Task) -> list[_Entry]:
    """The network that the user or the budget names for the task, if any."""
    found = study.shipped_network(task)
    if found is None:
        return []
    net, name = found
    how = "as given" if task in study.given else "as it ships"
    row = Row(
        label=f"{Path(name).name}, {how}",
        system=SHIPPED,
        source="other training, more images" if how == "as it ships" else "other training",
    )
    return [_entry(study, net, row)]


def _entry(study: Study, net: PaniniNet, row: Row) -> _Entry:
    """With what a network weighs."""
    whole, fusion = (sum(p.numel() for p in part.parameters()) for part in (net, net.fusion))
    row = replace(row, parameters=whole, fusion_parameters=fusion)
    return _Entry(row, network_system(net, row.system, size=study.config.evaluation.size))
