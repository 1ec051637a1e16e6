"""`panini convert`: foreign weights → safetensors of ours."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Foreign formats that can be converted."""

    MOBILE_PRIOR = "mobile-prior"


def convert(
    source_format: Annotated[Format, typer.Argument(metavar="FORMAT", help="What SOURCE is.")],
    source: Annotated[Path, typer.Argument(help="The file, or the folder it unpacks to.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert foreign weights to safetensors; nothing in them is ever executed.

    FORMAT mobile-prior: the wheel random_face-2021.7.21.1-py3-none-any.whl, or its folder.
    """
    from panini.checkpoints.convert.mobile_prior import convert_mobile_prior
    from panini.errors import CheckpointError

    if out.exists() and not overwrite:
        raise CheckpointError(f"{out}: exists already; add --overwrite to replace it")
    quality = convert_mobile_prior(source, out)
    typer.echo(f"{out}: {source_format.value} prior, sha256 of the source checked")
    for size, psnr in quality.items():
        typer.echo(f"  image head {size} px derived by least squares, {psnr:.1f} dB")
