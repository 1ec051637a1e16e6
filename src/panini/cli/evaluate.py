"""`panini evaluate`: a model against degraded faces whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panini.errors import ConfigError, PaniniError

if TYPE_CHECKING:
    from panini.metrics.judge import Judge
    from panini.models.panini_net import PaniniNet


class TaskName(StrEnum):
    """What a model is asked to do."""

    MFR = "mfr"
    SR16 = "sr16"


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What was asked for on the command line."""

    model: str
    data: Path
    metrics_dir: Path
    out: Path
    task: TaskName | None
    limit: int | None
    seed: int
    batch: int
    device: str


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
    task: Annotated[
        TaskName | None,
        typer.Option(
            help="mfr: faces degraded at 512 px. sr16: faces reduced to 64 px, against bicubic "
            "interpolation. Default: what the model is for."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many faces; default: all.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the degradations; sr16 has nothing random.")
    ] = 0,
    batch: Annotated[
        int, typer.Option(min=1, help="Faces at a time; sr16 takes them one by one.")
    ] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if the floor of shipped weights is missed.")
    ] = False,
) -> None:
    """Degrade faces with fixed seeds, restore them, and compare both with the truth.

    Faces are compared at 256 px: PSNR, SSIM, LPIPS, identity, sharpness. For mfr, θ is followed
    over the downsampling rates 16, 32, 64, 128. For sr16 there are PSNR at 1024 px and
    faithfulness: PSNR between the input and the restored face, reduced again.
    """
    wish = _Wish(
        model=model,
        data=data,
        metrics_dir=metrics_dir,
        out=out,
        task=task,
        limit=limit,
        seed=seed,
        batch=batch,
        device=device,
    )
    try:
        _check_folder(out, overwrite)
        passed = _evaluate(wish)
    except PaniniError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if check and not passed:
        raise typer.Exit(1)


def _check_folder(out: Path, overwrite: bool) -> None:
    if (out / "report.json").exists() and not overwrite:
        raise ConfigError(f"{out}: holds a report; choose another folder or add --overwrite")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, expected a folder for the report")


def _evaluate(wish: _Wish) -> bool:
    """Run, write, print; True if every demand of the floor is met."""
    from panini.checkpoints import load_model
    from panini.metrics.judge import load_judge
    from panini.runtime import keep_memory, resolve_device

    keep_memory()
    place = resolve_device(wish.device)
    judge = load_judge(wish.metrics_dir, place)
    net = load_model(wish.model).to(place)
    task = wish.task or TaskName(net.config.task)
    about = {
        "model": wish.model,
        "data": wish.data.name,
        "device": place,
        "task": task.value,
        "fusion": net.config.fusion.method,
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    run = _sr16 if task is TaskName.SR16 else _mfr
    files, table, passed = run(wish, net, judge, about)
    typer.echo(table)
    typer.echo("\n".join(str(path) for path in files))
    return passed


_Result = tuple[list[Path], str, bool]
"""Files written, tables, and whether the floor is met."""


def _mfr(wish: _Wish, net: PaniniNet, judge: Judge, about: dict[str, Any]) -> _Result:
    from panini import evaluation, evaluation_report

    faces = evaluation.read_faces(wish.data)
    cases = evaluation.make_cases(faces, seed=wish.seed, limit=wish.limit)
    with _bar(len(cases)) as progress:
        result = evaluation.evaluate(
            evaluation.restorer_of(net),
            evaluation.theta_of(net),
            cases,
            judge,
            batch=wish.batch,
            progress=progress,
        )
    files = evaluation_report.write_report(result, cases, wish.out, about)
    passed = all(verdict.passed for verdict in evaluation_report.verdicts(result))
    return files, evaluation_report.markdown(result), passed


def _sr16(wish: _Wish, net: PaniniNet, judge: Judge, about: dict[str, Any]) -> _Result:
    from panini import evaluation_sr16
    from panini.evaluation import read_faces, restorer_of

    cases = evaluation_sr16.make_cases(read_faces(wish.data), limit=wish.limit)
    with _bar(len(cases)) as progress:
        result = evaluation_sr16.evaluate(restorer_of(net), cases, judge, progress=progress)
    files = evaluation_sr16.write_report(result, wish.out, about)
    passed = all(verdict.passed for verdict in evaluation_sr16.verdicts(result))
    return files, evaluation_sr16.markdown(result), passed


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("faces", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("faces", total=total)
        yield lambda done, _total: bar.update(task, completed=done)
