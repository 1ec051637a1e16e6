"""Rows that are not trained here: official weights of other restorers, and latent optimisation."""

from __future__ import annotations

import logging
from pathlib import Path

from panini.data import load_live_prior
from panini.errors import MissingExtraError, PaniniError
from panini.evaluation import System
from panini.models.panini_net import Task
from panini.reproduce.result import Row, measured
from panini.reproduce.study import Study

logger = logging.getLogger(__name__)

OFFICIAL, PULSE = "official", "pulse"
"""What `--only` calls these rows."""

PEERS: dict[Task, dict[str, str]] = {
    "mfr": {"GFP-GAN": "GFPGAN*.pth", "GPEN": "GPEN*.pth"},
    "sr16": {},
}
"""The paper's rows → files that hold their official weights and that can be read."""
_UNREAD: dict[Task, dict[str, str]] = {
    "mfr": {},
    "sr16": {
        "GLEAN": "its official weights are of another framework, which is not read",
        "pSp": "its official weights are of another framework, which is not read",
    },
}


def official_rows(study: Study, task: Task) -> tuple[list[tuple[Row, System]], dict[str, str]]:
    """Rows of the peers whose files are in `--models`, and why the others are absent."""
    folder = study.options.models
    found: list[tuple[Row, System]] = []
    absent = dict(_UNREAD[task])
    for label, pattern in PEERS[task].items():
        files = [] if folder is None else sorted(folder.glob(pattern))
        if not files:
            where = "no --models was given" if folder is None else f"in {folder}"
            absent[label] = f"no file {pattern}: {where}"
            continue
        try:
            found.append(_official(study, label, files[-1]))
        except MissingExtraError as error:
            absent[label] = str(error)
        except PaniniError as error:
            logger.warning("%s: %s", label, error)
            absent[label] = str(error)
    return found, absent


def _official(study: Study, label: str, path: Path) -> tuple[Row, System]:
    from panini.peers import load_peer

    system = load_peer(path, study.device)
    row = Row(label=label, system=system.name, source=f"official weights, {path.name}")
    return row, system


def pulse_row(study: Study, task: Task) -> Row:
    """Latent optimisation through the prior, on a few faces."""
    from panini.peers import PulseConfig, pulse_system

    config = study.config.pulse
    prior = load_live_prior(study.prior_path(task)).to(study.device)
    system = pulse_system(prior, PulseConfig(steps=config.steps))
    report = study.evaluate(f"{task}-{PULSE}", task, [system], faces=config.faces)
    row = Row(
        label="latent optimisation (PULSE)",
        system=system.name,
        source=f"no training; {config.steps} steps a face, the first {config.faces} faces alone",
        parameters=sum(p.numel() for p in prior.parameters()),
    )
    return measured(row, report)
