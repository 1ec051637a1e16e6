"""`panini restore`: the faces of photos, from files to files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panini.errors import ConfigError, ImageError, NoFaceError, PaniniError
from panini.images import OUTPUT_SUFFIXES, check_output, find_images, write_rgb, write_whole

if TYPE_CHECKING:
    from panini.restorer import Restoration, Restorer


class Upscale(StrEnum):
    """Factors for the rest of the photo; text, because options are chosen by text."""

    ONE = "1"
    TWO = "2"
    FOUR = "4"


class NoFace(StrEnum):
    """What becomes of a photo in which no face was found."""

    COPY = "copy"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    aligned: bool
    upscale: int
    prior_bias: float
    min_face: float
    save_faces: bool
    no_face: NoFace
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """One photo."""

    source: Path
    target: Path


def restore(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A folder; or, for a single photo, a file to write."),
    ],
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The images are square face crops, FFHQ-aligned.")
    ] = False,
    upscale: Annotated[
        Upscale, typer.Option(help="Enlarge the rest of the photo (Lanczos).")
    ] = Upscale.ONE,
    prior_bias: Annotated[
        float, typer.Option(help="Above 0 trusts the face generator more, below 0 the photo.")
    ] = 0.0,
    min_face: Annotated[
        float, typer.Option(min=12, help="Least largest side of a face, px.")
    ] = 24.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A shipped model or a .safetensors file.")
    ] = "mobile-mfr",
    save_faces: Annotated[
        bool, typer.Option("--save-faces", help="Also write each face, before and after.")
    ] = False,
    no_face: Annotated[
        NoFace, typer.Option(help="What becomes of a photo in which no face was found.")
    ] = NoFace.COPY,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs.")] = False,
) -> None:
    """Restore every face of photos: find, align, draw anew, paste back.

    Each photo gets a line with its faces and their θ, the share that comes from the face
    generator: the higher, the more was invented.
    """
    options = Options(
        aligned=aligned,
        upscale=int(upscale),
        prior_bias=prior_bias,
        min_face=min_face,
        save_faces=save_faces,
        no_face=no_face,
        overwrite=overwrite,
    )
    if aligned and options.upscale != 1:
        raise ConfigError("--upscale enlarges the rest of a photo: an aligned face has none")
    jobs, failed = _plan(photos, out)
    if not jobs:
        raise typer.Exit(1)

    from panini.restorer import Restorer

    restorer = Restorer.from_pretrained(model, device)
    with _bar(len(jobs)) as advance:
        for job in jobs:
            try:
                typer.echo(_restore_photo(restorer, job, options))
            except PaniniError as error:
                _complain(str(error))
                failed += 1
            advance()
    if failed:
        raise typer.Exit(1)


def _plan(photos: list[Path], out: Path) -> tuple[list[Job], int]:
    """What to write where, and how many of the arguments are no good (each is reported)."""
    sources: list[Path] = []
    failed = 0
    for photo in photos:
        try:
            sources += find_images([photo])
        except ImageError as error:
            _complain(str(error))
            failed += 1
    if _is_file_name(out) and not out.is_dir():
        if len(photos) > 1 or len(sources) > 1:
            raise ImageError(f"{out}: is one file for {len(sources)} photos; give a folder")
        _make_folder(out.parent)
        return [Job(source=source, target=out) for source in sources], failed
    if out.exists() and not out.is_dir():
        raise ImageError(f"{out}: is a file, expected a folder")
    _make_folder(out)
    jobs: list[Job] = []
    taken: set[Path] = set()
    for source in dict.fromkeys(sources):
        # A format that cannot be written goes out as PNG; a.jpg and b/a.jpg must not meet.
        kept = source.suffix.lower() in OUTPUT_SUFFIXES
        target = out / (source.name if kept else f"{source.name}.png")
        number = 2
        while target in taken:
            target = out / f"{source.stem}-{number}{source.suffix if kept else '.png'}"
            number += 1
        taken.add(target)
        jobs.append(Job(source=source, target=target))
    return jobs, failed


def _is_file_name(path: Path) -> bool:
    return path.suffix.lower() in OUTPUT_SUFFIXES


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be made ({error.strerror})") from error


def _restore_photo(restorer: Restorer, job: Job, options: Options) -> str:
    """Restore one photo, write it, and tell about it in a line."""
    # Said before the work, not after it.
    check_output(job.target, overwrite=options.overwrite)
    if job.target.exists() and job.source.exists() and job.target.samefile(job.source):
        raise ImageError(f"{job.target}: is the photo itself; choose another output")
    if options.aligned:
        result = restorer.restore_aligned(job.source, prior_bias=options.prior_bias)
    else:
        result = restorer.restore(
            job.source,
            upscale=options.upscale,
            prior_bias=options.prior_bias,
            min_face=options.min_face,
        )
    if not result.faces:
        return _without_face(result, job, options)
    result.save(job.target, overwrite=options.overwrite)
    if options.save_faces:
        _save_faces(result, job.target, overwrite=options.overwrite)
    thetas = " ".join(f"{face.theta:.2f}" for face in result.faces)
    count = len(result.faces)
    return f"{job.source} -> {job.target}: {count} face{'s' * (count > 1)}, θ {thetas}"


def _without_face(result: Restoration, job: Job, options: Options) -> str:
    """Skip, or copy and report, a photo without faces.

    Raises:
        NoFaceError: Always, except when the user chose to skip such photos.
    """
    found = f"no face of at least {options.min_face:g} px found"
    if options.no_face is NoFace.SKIP:
        return f"{job.source}: {found}, skipped"
    if options.no_face is NoFace.FAIL:
        raise NoFaceError(f"{job.source}: {found}")
    if options.upscale == 1 and job.source.suffix.lower() == job.target.suffix.lower():
        # The same bytes: depth, alpha and all metadata stay.
        write_whole(job.target, job.source.read_bytes())
        raise NoFaceError(f"{job.source}: {found}; copied unchanged to {job.target}")
    result.save(job.target, overwrite=options.overwrite)
    done = "converted" if options.upscale == 1 else "only enlarged"
    raise NoFaceError(f"{job.source}: {found}; {done} to {job.target}")


def _save_faces(result: Restoration, target: Path, *, overwrite: bool) -> None:
    """`faces/NAME_1_lq.png`, `faces/NAME_1_restored.png`, … beside the photo."""
    import numpy as np

    folder = target.parent / "faces"
    _make_folder(folder)
    for number, face in enumerate(result.faces, start=1):
        for kind, image in (("lq", face.lq), ("restored", face.restored)):
            path = folder / f"{target.stem}_{number}_{kind}.png"
            write_rgb(path, np.asarray(image), overwrite=overwrite)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr where that is a terminal; gives what moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Lines go above the bar where both share a terminal; a piped stdout stays what it is.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task("restoring", total=total)
        yield lambda: progress.advance(task)


def _complain(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
