"""Contact sheets of a study, on its data and on faces that nobody has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panini.evaluation import System
from panini.images import write_whole
from panini.models.panini_net import Task
from panini.reproduce.study import Study
from panini.reproduce.synthetic import draw_faces


def keep_sheet(study: Study, folder: str, name: str) -> list[Path]:
    """Copy an evaluation's sheet beside the table that it belongs to; returns the copy, if any."""
    sheet = study.out / "evaluation" / folder / "sheet.png"
    if not sheet.is_file():
        return []
    path = study.out / f"{name}.png"
    write_whole(path, sheet.read_bytes())
    return [path]


def synthetic_sheet(study: Study, task: Task, systems: Sequence[System], name: str) -> list[Path]:
    """The same comparison on new faces of the prior: a sheet that may be shown to anybody."""
    if not systems:
        return []
    folder = f"{task}-synthetic"
    count = study.config.synthetic_faces
    faces = study.out / "synthetic" / task
    draw_faces(study.prior_path(task), faces, count, study.config.evaluation.seed)
    study.evaluate(folder, task, systems, faces=count, data=faces, metrics=("psnr",))
    return keep_sheet(study, folder, f"{name}-synthetic")
