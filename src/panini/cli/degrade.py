"""`panini degrade`: make low-quality images by Eq. 10, from files or folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panini.errors import ImageError, PaniniError
from panini.images import IMAGE_SUFFIXES, check_output, read_rgb, write_rgb

if TYPE_CHECKING:
    from panini.degradations import DegradationParams

PNG_KEY = "panini:degradation"
"""Keyword of the PNG text chunk that holds the four numbers and the seed, as JSON."""


class Preset(StrEnum):
    """The keys of `panini.degradations.SAMPLERS`, known here without loading it."""

    PAPER = "paper"
    MEASURED = "measured"
    FLOOR = "floor"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was asked for on the command line."""

    numbers: dict[str, Any]
    """Parameters given by hand, by their names in `DegradationParams`."""
    preset: Preset | None
    """Where the other parameters are drawn from; None leaves them at "nothing done"."""
    overwrite: bool
    """Replace outputs that are there."""

    def params(self, seed: int) -> DegradationParams:
        """The parameters of the file whose seed is `seed`."""
        import numpy as np

        from panini.degradations import SAMPLERS, DegradationParams

        if self.preset is None:
            return DegradationParams(**self.numbers)
        # Another stream than the noise's, so that the numbers given by hand with the same seed
        # give the same image.
        drawn = SAMPLERS[self.preset](np.random.default_rng([seed, 1]))
        return replace(drawn, **self.numbers)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file to degrade."""

    source: Path
    target: Path
    seed: int


def degrade(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="An image, or a folder of them (with subfolders).")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="For an image: a file, whose suffix says the format (PNG keeps the result as it "
            "is), or a folder. For a folder: a folder, filled with PNG files under the same names.",
        ),
    ],
    r: Annotated[
        float | None,
        typer.Option("--r", help="Downsampling factor, at least 1; the image grows back."),
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Gaussian blur: standard deviation, px.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Gaussian noise: standard deviation, levels of 0..255.")
    ] = None,
    jpeg: Annotated[
        int | None, typer.Option(help="JPEG quality, 1..100; 0 = no compression.")
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="Draw the numbers that are not given, for each file, from the ranges of the "
            "paper, of the authors' own images, or of the validation floor (for 512 px images)."
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of noise and preset. In a folder each file gets its own."),
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs.")] = False,
) -> None:
    """Degrade images as Eq. 10 of the paper does: blur, shrink and grow, noise, JPEG.

    Each output is reported with the options that make it again from the same input, and a PNG
    carries them in its text chunk "panini:degradation".
    """
    given = {"rate": r, "sigma": sigma, "noise": noise, "jpeg": jpeg}
    numbers = {name: value for name, value in given.items() if value is not None}
    recipe = Recipe(numbers=numbers, preset=preset, overwrite=overwrite)
    if not numbers and preset is None:
        _complain("nothing to do: give --preset, or some of --r --sigma --noise --jpeg")
        raise typer.Exit(2)
    try:
        recipe.params(seed)  # a bad number is said once, not for every file
        jobs = list(_jobs(source, target, seed))
    except PaniniError as error:
        _complain(str(error))
        raise typer.Exit(2) from error

    failed = 0
    for job in jobs:
        try:
            typer.echo(_degrade_file(job, recipe))
        except PaniniError as error:
            _complain(str(error))
            failed += 1
    if failed:
        if len(jobs) > 1:
            _complain(f"{failed} of {len(jobs)} images failed")
        raise typer.Exit(1)


def _jobs(source: Path, target: Path, seed: int) -> Iterator[Job]:
    if not source.is_dir():
        # A suffix tells a file from a folder that is still to be made.
        if target.is_dir() or not target.suffix:
            target = target / f"{source.stem}.png"
        yield Job(source=source, target=target, seed=seed)
        return
    if target.exists() and not target.is_dir():
        raise ImageError(f"{target}: is a file, expected a folder because {source} is one")
    if target.resolve() == source.resolve():
        raise ImageError(f"{target}: the input folder cannot be the output folder")
    paths = _images_below(source)
    if target.resolve().is_relative_to(source.resolve()):
        paths = [path for path in paths if not path.resolve().is_relative_to(target.resolve())]
    if not paths:
        raise ImageError(f"{source}: the folder holds no image")
    outputs = _outputs([path.relative_to(source) for path in paths])
    for path, (name, output) in zip(paths, outputs.items(), strict=True):
        yield Job(source=path, target=target / output, seed=_own_seed(seed, name))


def _outputs(names: list[Path]) -> dict[Path, Path]:
    """Name of each image → that of its output, both below their folders.

    Raises:
        ImageError: Two of them would become one file.
    """
    claims = Counter(name.with_suffix(".png") for name in names)
    outputs: dict[Path, Path] = {}
    origins: dict[Path, Path] = {}
    for name in names:
        # a.jpg beside a.png: both keep their whole name, or one would replace the other.
        clash = claims[name.with_suffix(".png")] > 1
        output = name.with_name(f"{name.name}.png") if clash else name.with_suffix(".png")
        if output in origins:
            raise ImageError(f"{origins[output]} and {name} would both be {output}; rename one")
        origins[output] = name
        outputs[name] = output
    return outputs


def _images_below(folder: Path) -> list[Path]:
    """Images of the whole tree in a fixed order, hidden files and folders left out."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    visible = (
        path
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return sorted(path for path in visible if path.is_file())


def _own_seed(seed: int, name: Path) -> int:
    """A file's seed, by its name: other files may come and go without changing it."""
    import numpy as np

    words = np.random.SeedSequence([seed, *os.fsencode(name.as_posix())]).generate_state(1)
    return int(words[0])


def _degrade_file(job: Job, recipe: Recipe) -> str:
    """Degrade one file and say what was done."""
    import numpy as np

    from panini.degradations import degrade as degrade_image

    image = read_rgb(job.source)
    if job.target.exists() and job.target.samefile(job.source):
        raise ImageError(f"{job.target}: is the input itself; choose another output")
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{job.target.parent}: cannot be made ({error.strerror})") from error
    check_output(job.target, overwrite=recipe.overwrite)
    params = recipe.params(job.seed)
    degraded = degrade_image(image, params, np.random.default_rng(job.seed))
    record = json.dumps({**params.to_dict(), "seed": job.seed})
    write_rgb(job.target, degraded, overwrite=recipe.overwrite, pnginfo={PNG_KEY: record})
    options = (
        f"--r {_exact(params.rate)} --sigma {_exact(params.sigma)} "
        f"--noise {_exact(params.noise)} --jpeg {params.jpeg} --seed {job.seed}"
    )
    return f"{job.source} -> {job.target}: {options}"


def _exact(number: float) -> str:
    """The shortest decimal that reads back as the same number."""
    return repr(number).removesuffix(".0")


def _complain(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
