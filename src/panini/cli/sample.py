"""`panini sample`: faces of the prior, with their w, to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    prior: Annotated[Path, typer.Argument(help="The prior, of `panini convert`.")],
    out: Annotated[Path, typer.Argument(help="Folder for images.npy and w.npy.")],
    count: Annotated[int, typer.Option(min=1, help="Faces.")] = 1000,
    truncation: Annotated[
        float, typer.Option(min=0, max=1, help="Least ψ; each face draws its own up to 1.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(help="Of the latents.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace the faces of OUT.")] = False,
) -> None:
    """Draw faces from the prior for `panini train`: 3 MB a face at 1024 px."""
    from rich.progress import track

    from panini.checkpoints import load_prior
    from panini.data import draw_prior_faces
    from panini.errors import DataError
    from panini.runtime import keep_memory

    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, expected a folder; name another place")
    # images.npy may be somebody's own, or all that an interrupted run left.
    if any((out / name).exists() for name in ("images.npy", "w.npy")) and not overwrite:
        raise DataError(f"{out}: holds faces already; add --overwrite to replace them")
    keep_memory()
    steps = draw_prior_faces(load_prior(prior), out, count, truncation, seed)
    try:
        for _ in track(steps, description="Drawing faces", total=count):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{out}: cannot be written ({reason}); name another place") from error
    typer.echo(f"{count} faces in {out}")
