"""Contact sheets and pictures of a study, on its data and on faces that nobody has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from panini.data import load_live_prior, resize
from panini.evaluation import System
from panini.evaluation.sizes import COMPARED_SIZE
from panini.images import RgbImage, to_uint8, write_whole
from panini.models.panini_net import Task
from panini.models.prior import GanPrior
from panini.reproduce.study import Study


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
    if not faces.is_dir() or len(list(faces.iterdir())) < count:
        _write_faces(study, task, faces, count)
    study.evaluate(folder, task, systems, faces=count, data=faces, metrics=("psnr",))
    return keep_sheet(study, folder, f"{name}-synthetic")


def _write_faces(study: Study, task: Task, folder: Path, count: int) -> None:
    prior = load_live_prior(study.prior_path(task))
    folder.mkdir(parents=True, exist_ok=True)
    for key, face in prior_faces(prior, count, study.config.evaluation.seed):
        # Tiny priors draw less than an evaluation takes.
        face = resize(face, max(len(face), COMPARED_SIZE))
        write_picture(folder / f"{key}.png", Image.fromarray(face))


@torch.inference_mode()
def prior_faces(prior: GanPrior, count: int, seed: int) -> Iterator[tuple[str, RgbImage]]:
    """New faces of a prior, which show nobody: (name, uint8 RGB at the prior's size)."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, prior.z_dim, generator=generator)
    for index, one in enumerate(z.split(1)):
        w = prior.mapping(one.to(prior.w_avg.device), 0.7)
        (face,) = to_uint8(prior.synthesis(prior.broadcast(w)))
        yield f"synthetic-{index}", face


def write_picture(path: Path, picture: Image.Image) -> Path:
    """Write a PNG, whole or not at all."""
    content = BytesIO()
    picture.save(content, "PNG")
    write_whole(path, content.getvalue())
    return path
