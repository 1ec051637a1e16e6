"""`panini restore`: the faces of photos, from files to files."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from panini.cli.logs import INTERRUPTED
from panini.cli.options import (
    Aligned,
    ColourMatch,
    Consistent,
    Device,
    Enlarge,
    Faces,
    Format,
    Grain,
    KeepColour,
    MarkIt,
    MetricsDir,
    MinFace,
    Model,
    NoFace,
    Out,
    Overwrite,
    Photos,
    PriorBias,
    Quality,
    Recursive,
    SaveFaces,
    Seed,
    Upscale,
    Variations,
    WithoutFace,
)

if TYPE_CHECKING:
    from panini.batch import BatchOptions, FaceRecord, Job, Outcome, Report


def restore(
    photos: Photos,
    out: Out,
    recursive: Recursive = False,
    format_: Format = None,
    quality: Quality = None,
    mark: MarkIt = True,
    overwrite: Overwrite = False,
    aligned: Aligned = False,
    faces: Faces = "all",
    min_face: MinFace = 24.0,
    no_face: WithoutFace = NoFace.COPY,
    save_faces: SaveFaces = False,
    prior_bias: PriorBias = "0",
    consistent: Consistent = False,
    variations: Variations = 0,
    seed: Seed = 0,
    metrics_dir: MetricsDir = None,
    upscale: Enlarge = Upscale.ONE,
    colour_match: ColourMatch = True,
    grain: Grain = False,
    keep_colour: KeepColour = False,
    model: Model = "mobile-mfr",
    device: Device = "auto",
) -> None:
    """Restore the faces of photos: find, align, draw anew, paste back.

    Each photo gets a line with its faces and their θ, the share that comes from the face
    generator: the higher, the more was invented. A network for super-resolution has one θ for all
    faces, and the line says so; with --model auto it also says which network drew them.
    """
    from panini.batch import BatchOptions, make_plan
    from panini.editing import parse_bias
    from panini.faces.select import parse_choice

    options = BatchOptions(
        aligned=aligned,
        upscale=int(upscale),
        prior_bias=parse_bias(prior_bias),
        min_face=min_face,
        faces=parse_choice(faces),
        consistent=consistent,
        keep_colour=keep_colour,
        match_colour=colour_match,
        grain=grain,
        quality=quality,
        mark=mark,
        no_face=no_face.value,
        save_faces=save_faces,
        variations=variations,
        seed=seed,
        metrics_dir=metrics_dir,
        overwrite=overwrite,
    )
    options.check()
    suffix = f".{format_.lower().removeprefix('.')}" if format_ else None
    plan = make_plan(photos, out, recursive=recursive, suffix=suffix, variations=variations)
    for problem in plan.problems:
        complain(problem)
    for line in plan.left_out:
        typer.echo(shown(line), err=True)
    if not plan.jobs:
        raise typer.Exit(1)
    with _report(out, model, options) if recursive else nullcontext() as report:
        failed = _restore_all(plan.jobs, report, (model, device), options)
    if failed or plan.problems:
        raise typer.Exit(1)


def _report(out: Path, model: str, options: BatchOptions) -> Report:
    from panini.batch import Report

    return Report(out, {"model": _identity(model), **options.settings()})


def _identity(model: str) -> str:
    """The weights' name and the start of their sha256, so that new weights mean new results."""
    from panini.checkpoints.hub import PREFIX
    from panini.checkpoints.io import resolve, sha256_of
    from panini.checkpoints.specs import SPECS
    from panini.drawing import AUTO, AUTO_LARGE, AUTO_SMALL

    if model == AUTO:
        return f"{AUTO}: {_identity(AUTO_LARGE)}, {_identity(AUTO_SMALL)}"
    if model in SPECS:
        return f"{model} {SPECS[model].sha256[:12]}"
    if model.startswith(PREFIX):
        # The name stays when its owner pushes other weights.
        return f"{model} {sha256_of(resolve(model))[:12]}"
    path = Path(model)
    return f"{path.name} {sha256_of(path)[:12]}" if path.is_file() else model


def _restore_all(
    jobs: list[Job], report: Report | None, loading: tuple[str, str], options: BatchOptions
) -> int:
    """Restore what is not done yet; the number of photos that went wrong.

    Raises:
        typer.Exit: Ctrl-C was pressed.
    """
    from panini.batch import run

    todo = jobs
    if report:
        todo = [job for job in jobs if options.overwrite or not report.is_done(job)]
        report.sweep(jobs)
    outcomes: list[str] = []
    if todo:
        from panini.drawing import AUTO
        from panini.restorer import Restorer

        with _interruptible() as stop, _bar(len(todo)) as advance:
            restorer = Restorer.from_pretrained(*loading)
            for outcome in run(todo, restorer, options, report=report, stop=stop.is_set):
                _tell(outcome, named=loading[0] == AUTO)
                outcomes.append(outcome.state)
                advance()
        if len(outcomes) < len(todo):
            again = ""
            if report:
                begins = "begins again" if options.overwrite else "goes on from there"
                again = f"; the same command {begins}"
            complain(f"stopped: {len(outcomes)} of {len(todo)} photos done{again}")
            raise typer.Exit(INTERRUPTED)
    if report:
        typer.echo(_summary(outcomes, len(jobs) - len(todo)))
    return outcomes.count("failed") + outcomes.count("copied")


def _tell(outcome: Outcome, *, named: bool) -> None:
    """A photo's line: on stdout, or as an error."""
    if outcome.state == "done":
        count = f"{len(outcome.faces)} face{'s' * (len(outcome.faces) > 1)}"
        thetas = told_thetas(outcome.faces, named=named)
        line = f"{outcome.job.source} -> {outcome.job.target}: {count}, {thetas}"
        if (varied := outcome.variations) and len(varied["photos"]) > 1:
            line += (
                f"; variations differ by {varied['least_distance']:.3g} {varied['measure']} or more"
            )
        typer.echo(shown(line))
    elif outcome.state == "skipped":
        typer.echo(shown(f"{outcome.error}"))
    else:
        complain(f"{outcome.error}")


def told_thetas(faces: Iterable[FaceRecord], *, named: bool = False) -> str:
    """θ of each face, "θ 0.36 0.31"; what it is worth, and with `named` whose it is, in brackets.

    A network without masks has none: a dash stands for it.
    """
    parts: list[str] = []
    for (model, fixed), group in groupby(faces, key=lambda face: (face.model, face.theta_fixed)):
        thetas = [face.theta for face in group]
        parts += ["–" if math.isnan(theta) else f"{theta:.2f}" for theta in thetas]
        notes = [model] * named + ["the same for every face"] * (fixed and "–" not in parts[-1])
        if notes:
            parts.append(f"({', '.join(notes)})")
    return " ".join(["θ", *parts])


def _summary(states: list[str], before: int) -> str:
    words = {"done": "restored", "copied": "copied", "skipped": "skipped", "failed": "failed"}
    parts = [f"{states.count(state)} {word}" for state, word in words.items() if state in states]
    if before:
        parts.append(f"{before} done before")
    return ", ".join(parts)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event that is given; a second one interrupts."""
    stop = threading.Event()

    def ask(_number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after the photo at hand; Ctrl-C again stops at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may change what a signal does
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    except KeyboardInterrupt:
        complain("stopped at once")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr where that is a terminal; gives what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("restoring", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Lines go above the bar where both share a terminal; a piped stdout stays what it is.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task("restoring", total=total)
        yield lambda: progress.advance(task)


def complain(message: str) -> None:
    """An error's line, for one of several photos."""
    typer.echo(shown(f"error: {message}"), err=True)


def shown(text: str) -> str:
    """Text that any terminal takes: names that are not UTF-8 get a mark for each odd byte."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
