"""`panini evaluate`: a model against degraded faces whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from panini.errors import ConfigError, PaniniError


def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="Aligned faces: a tar shard, or a folder of images of at least 256 px."),
    ],
    metrics_dir: Annotated[
        Path,
        typer.Option(help="Folder of the frozen networks: VGG-16, LPIPS heads, face identity."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.json, report.md and sheet.png.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A shipped model or a .safetensors file.")
    ] = "mobile-mfr",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many faces; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the degradations.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Faces at a time.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if the floor of shipped weights is missed.")
    ] = False,
) -> None:
    """Degrade faces with fixed seeds, restore them, and compare both with the truth.

    Faces are degraded at 512 px and compared at 256 px: PSNR, SSIM, LPIPS, identity, sharpness;
    and θ is followed over the downsampling rates 16, 32, 64, 128.
    """
    try:
        passed = _evaluate(model, data, metrics_dir, out, (limit, seed, batch), device, overwrite)
    except PaniniError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if check and not passed:
        raise typer.Exit(1)


def _evaluate(
    model: str,
    data: Path,
    metrics_dir: Path,
    out: Path,
    numbers: tuple[int | None, int, int],
    device: str,
    overwrite: bool,
) -> bool:
    """Run, write, print; True if every demand of the floor is met."""
    if (out / "report.json").exists() and not overwrite:
        raise ConfigError(f"{out}: holds a report; choose another folder or add --overwrite")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, expected a folder for the report")

    from panini import evaluation, evaluation_report
    from panini.checkpoints import load_model
    from panini.metrics.judge import load_judge
    from panini.runtime import keep_memory, resolve_device

    keep_memory()
    limit, seed, batch = numbers
    place = resolve_device(device)
    judge = load_judge(metrics_dir, place)
    net = load_model(model).to(place)
    cases = evaluation.make_cases(evaluation.read_faces(data), seed=seed, limit=limit)
    with _bar(len(cases)) as progress:
        result = evaluation.evaluate(
            evaluation.restorer_of(net),
            evaluation.theta_of(net),
            cases,
            judge,
            batch=batch,
            progress=progress,
        )
    about = {"model": model, "data": data.name, "device": place}
    files = evaluation_report.write_report(result, cases, out, about)
    typer.echo(evaluation_report.markdown(result))
    typer.echo("\n".join(str(path) for path in files))
    return all(verdict.passed for verdict in evaluation_report.verdicts(result))


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("faces", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("faces", total=total)
        yield lambda done, _total: bar.update(task, completed=done)
