"""`panini upscale`: aligned faces of 64 px, drawn at 1024 px."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panini.cli.options import (
    FILES,
    MACHINE,
    Consistent,
    Device,
    Format,
    MarkIt,
    Out,
    Quality,
)
from panini.cli.restore import complain, shown, told_thetas
from panini.errors import ImageError, MissingExtraError, NoFaceError

if TYPE_CHECKING:
    from panini.batch import Job
    from panini.restored import Restoration

MODEL = "mobile-sr16"


def upscale(
    faces: Annotated[
        list[Path],
        typer.Argument(metavar="FACE...", help="Square face crops, FFHQ-aligned, or folders."),
    ],
    out: Out,
    consistent: Consistent = False,
    format_: Format = None,
    quality: Quality = None,
    mark: MarkIt = True,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace outputs. Without it, an output that exists stays, and is an error.",
            rich_help_panel=FILES,
        ),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="A shipped model for sr16, or a .safetensors file.",
            rich_help_panel=MACHINE,
        ),
    ] = MODEL,
    device: Device = "auto",
) -> None:
    """Draw small aligned faces 16 times as large: 64 px in, 1024 px out.

    As `panini restore --aligned` with the model for it. A face of another side is resized to
    64 px, with a warning; what shows no face is an error. θ, the share that comes from the face
    generator, is the same for every face: this network does not look at the degradation.
    """
    from panini.batch import make_plan

    suffix = f".{format_.lower().removeprefix('.')}" if format_ else None
    plan = make_plan(faces, out, suffix=suffix)
    for problem in plan.problems:
        complain(problem)
    failed = len(plan.problems)
    if plan.jobs:
        from panini.restorer import Restorer
        from panini.upscaler import upscale as upscale_face

        restorer = Restorer.from_pretrained(model, device)
        for job in plan.jobs:
            try:
                _check_target(job, overwrite)
                result = upscale_face(restorer, job.source, consistent=consistent)
                result.save(job.target, overwrite=overwrite, quality=quality, mark=mark)
            except (ImageError, NoFaceError, MissingExtraError) as error:
                complain(str(error))
                failed += 1
            else:
                typer.echo(shown(_line(job, result)))
    if failed:
        raise typer.Exit(1)


def _check_target(job: Job, overwrite: bool) -> None:
    """Say before the work what would be said after it."""
    from panini.images import check_output

    if job.target.exists() and job.source.exists() and job.target.samefile(job.source):
        raise ImageError(f"{job.target}: is the face itself; choose another output")
    check_output(job.target, overwrite=overwrite)


def _line(job: Job, result: Restoration) -> str:
    from panini.batch import FaceRecord

    width, height = result.photo.size
    thetas = told_thetas([FaceRecord.of(face) for face in result.faces])
    return f"{job.source} -> {job.target}: {width}x{height} px, {thetas}"
