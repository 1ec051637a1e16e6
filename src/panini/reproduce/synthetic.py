"""New faces of a prior, which show nobody."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from panini.data import load_live_prior, resize
from panini.evaluation.sizes import COMPARED_SIZE
from panini.images import RgbImage, to_uint8, write_whole
from panini.models.prior import GanPrior


def draw_faces(prior: Path, folder: Path, count: int, seed: int) -> None:
    """Fill a folder with new faces of a prior, unless so many are there.

    Args:
        prior: As `load_live_prior` takes it.
        folder: Where to; it is made.
        count: Number of faces.
        seed: Of the latents.

    Raises:
        CheckpointError: It is no prior.
    """
    if folder.is_dir() and len(list(folder.iterdir())) >= count:
        return
    net = load_live_prior(prior)
    folder.mkdir(parents=True, exist_ok=True)
    for key, face in prior_faces(net, count, seed):
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
