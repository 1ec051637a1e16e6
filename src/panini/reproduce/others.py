"""Rows that are not trained here: official weights of other restorers, and latent optimisation."""

from __future__ import annotations

import logging
from pathlib import Path

from panini.data import load_live_prior
from panini.errors import CheckpointError, MissingExtraError
from panini.evaluation import System
from panini.models.panini_net import Task
from panini.peers import PulseConfig, load_peer, pulse_system
from panini.reproduce.result import Row, measured
from panini.reproduce.study import Study

logger = logging.getLogger(__name__)

OFFICIAL, PULSE = "official", "pulse"
"""What `--only` calls these rows."""

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
"""Of files that may be weights."""
_UNREAD = "its official weights are of an architecture that spandrel does not have"
_NONE = "no file GFPGAN* in the folder --models"
_OTHER_TASK = "not read for 16× super-resolution: such files are restorers, and stand in table 1"


def are_measured(study: Study, task: Task) -> bool:
    """Whether one of the restorers whose files are in `--models` was measured before."""
    return any(study.is_measured(task, path.stem) for path in _files(study))


def official_rows(
    study: Study, task: Task, *, known_only: bool = False
) -> tuple[list[tuple[Row, System]], dict[str, str]]:
    """Rows of the restorers whose files are in `--models`, and why the paper's are absent.

    Args:
        study: Has that folder.
        task: Of the table.
        known_only: Leave out what was not measured before.
    """
    paths = _files(study)
    if task == "sr16":
        absent = dict.fromkeys(("GLEAN", "pSp"), _UNREAD)
        return [], absent | {path.name: _OTHER_TASK for path in paths}
    found: list[tuple[Row, System]] = []
    absent = {"GFP-GAN": _NONE, "GPEN": _UNREAD}
    for path in paths:
        if path.stem.startswith("GFPGAN"):
            absent.pop("GFP-GAN", None)
        if known_only and not study.is_measured(task, path.stem):
            continue
        try:
            system = load_peer(path, study.device)
        except (CheckpointError, MissingExtraError) as error:
            logger.warning("%s", error)
            absent[path.name] = str(error)
            continue
        row = Row(label=path.stem, system=system.name, source="official weights")
        found.append((row, system))
    return found, absent


def _files(study: Study) -> list[Path]:
    return [] if study.options.models is None else weight_files(study.options.models)


def weight_files(folder: Path) -> list[Path]:
    """Files of a folder that may be weights."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def pulse_row(study: Study, task: Task, reference: System | None) -> Row:
    """Latent optimisation through the prior, on a few faces.

    Args:
        study: Says on how many.
        task: Of the table.
        reference: What it is set against, on the same faces; None = nothing.
    """
    config = study.config.pulse
    prior = load_live_prior(study.prior_path(task)).to(study.device)
    system = pulse_system(prior, PulseConfig(steps=config.steps), PULSE)
    systems = [system] if reference is None else [reference, system]
    report = study.evaluate(f"{task}-{PULSE}", task, systems, faces=config.faces)
    row = Row(
        label="latent optimisation (PULSE)",
        system=PULSE,
        source=f"no training; {config.steps} steps a face, the first {config.faces} faces alone",
        parameters=sum(p.numel() for p in prior.parameters()),
    )
    return measured(row, report, None if reference is None else reference.name)
