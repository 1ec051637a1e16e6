"""`panini evaluate`: restorers side by side on faces whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panini.cli.logs import errors_in_a_line, resumable, show_log
from panini.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from panini.evaluation import Plan, System
    from panini.evaluation.plan import Degradations
    from panini.models.panini_net import Task


class TaskName(StrEnum):
    """What a model is asked to do."""

    MFR = "mfr"
    SR16 = "sr16"


class DegradationsName(StrEnum):
    """What faces are degraded by."""

    FLOOR = "floor"
    PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What was asked for on the command line."""

    models: list[str]
    data: Path
    lq: Path | None
    metrics: tuple[str, ...] | None
    metrics_dir: Path | None
    out: Path
    task: TaskName | None
    limit: int | None
    seed: int
    degradations: DegradationsName
    size: int
    batch: int
    device: str
    overwrite: bool
    check: bool


def evaluate(
    ctx: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            help="True faces, aligned: a tar shard, a folder of shards, or a folder of images of "
            "at least --size px."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for report.json, faces.csv, summary.csv, report.md, sheet.png, "
            "report.html and the restored faces. The same command again goes on where it was "
            "stopped."
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            metavar="NAME|PATH",
            help="A shipped model or a .safetensors file; peer:FILE for another restorer's "
            "weights (GFP-GAN, CodeFormer, ...); pulse:NAME for latent optimisation through a "
            "model's prior. Repeat it to compare.",
        ),
    ] = ["mobile-mfr"],  # noqa: B006  typer copies it
    task: Annotated[
        TaskName | None,
        typer.Option(
            help="mfr: faces degraded at 512 px. sr16: faces reduced to 64 px, against bicubic "
            "interpolation. Default: what the models are for."
        ),
    ] = None,
    lq: Annotated[
        Path | None,
        typer.Option(
            help="Ready degraded faces, paired with --data by file stem: of 512 px or the truth's "
            "size (mfr), or 64 px (sr16). Default: --data is degraded with fixed seeds."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Names with commas, such as psnr,lpips,identity,theta. Default: all; for mfr, "
            "psnr_full only if it is named."
        ),
    ] = None,
    metrics_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the metrics' frozen networks: VGG-16, LPIPS heads, identity."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many faces; default: all.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the degradations; sr16 has nothing random.")
    ] = 0,
    degradations: Annotated[
        DegradationsName,
        typer.Option(
            help="What faces of mfr are degraded by. floor: what shipped weights are judged on. "
            "paper: the paper's ranges, far stronger; they are judged by no floor."
        ),
    ] = DegradationsName.FLOOR,
    size: Annotated[
        int,
        typer.Option(
            help="Side at which faces are compared with their truth, px: 256 to 1024. The paper's "
            "is 1024."
        ),
    ] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Faces at a time.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh where results are.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if the floor of shipped weights is missed.")
    ] = False,
) -> None:
    """Degrade faces with fixed seeds, restore them, and compare all with the truth.

    Faces are compared at --size px by PSNR, SSIM, LPIPS, identity and more, each with a 95 %
    interval from the bootstrap. For mfr, θ is followed over the downsampling rates 16, 32, 64, 128.
    For sr16 there are PSNR at full size and faithfulness: PSNR between the input and the restored
    face, reduced again; and a model that is made to agree with its input (panini upscale
    --consistent) is a system of its own.
    """
    wish = _Wish(
        models=model,
        data=data,
        lq=lq,
        metrics=None if metrics is None else tuple(m.strip() for m in metrics.split(",")),
        metrics_dir=metrics_dir,
        out=out,
        task=task,
        limit=limit,
        seed=seed,
        degradations=degradations,
        size=size,
        batch=batch,
        device=device,
        overwrite=overwrite,
        check=check,
    )
    # The bar counts faces, and what comes after the last takes time.
    show_log(stderr=True)
    with resumable(), errors_in_a_line(ctx, code=2):
        passed = _evaluate(wish)
    if check and not passed:
        raise typer.Exit(1)


def _evaluate(wish: _Wish) -> bool:
    """Run, print; True if every demand of the floor is met by every model."""
    from panini.evaluation import Plan, run, verdicts
    from panini.evaluation.output import FILES
    from panini.evaluation.tables import markdown, summarise
    from panini.runtime import keep_memory, resolve_device

    keep_memory()
    place = resolve_device(wish.device)
    contenders = _contenders(wish.models, place)
    task = _task(wish, contenders)
    plan = Plan(
        data=wish.data,
        task=task,
        lq=wish.lq,
        seed=wish.seed,
        degradations=_degradations(wish),
        limit=wish.limit,
        batch=wish.batch,
        size=wish.size,
        out=wish.out,
        metrics=wish.metrics,
        metrics_dir=wish.metrics_dir,
        device=place,
        overwrite=wish.overwrite,
    )
    if wish.check:
        _check_decidable(plan)
    systems = {one.source: one.systems(task) for one in contenders}
    about = {"device": place, "models": {one.source: one.about for one in contenders}}
    with _bar() as progress:
        every = [system for own in systems.values() for system in own]
        report = run(plan, every, about=about, progress=progress)
    typer.echo(markdown(report, summarise(report)))
    typer.echo("\n".join(str(wish.out / name) for name in FILES))
    names = [own[0].name for own in systems.values()]
    return all(verdict.passed for name in names for verdict in verdicts(report, name))


_PEERS = ("peer", "gfpgan")
_KINDS = ("pulse", *_PEERS)
"""What may stand before a colon; those of `_PEERS` are the same."""


@dataclass(frozen=True, kw_only=True)
class _Contender:
    """A model as it was named on the command line."""

    source: str
    systems: Callable[[Task], list[System]]
    """What it takes part as; the first is what is checked."""
    task: Task | None = None
    """What it is for; None is for either."""
    about: dict[str, Any]


def _contenders(models: Sequence[str], device: str) -> list[_Contender]:
    """Load what was named."""
    twice = [name for name, count in Counter(models).items() if count > 1]
    if twice:
        raise ConfigError(f"{twice[0]}: named twice; name each model once")
    names = _short_names(models)
    return [_contender(text, name, device) for text, name in zip(models, names, strict=True)]


def _contender(text: str, name: str, device: str) -> _Contender:
    kind, source = _split(text)
    if kind == "pulse":
        return _pulse(source, name, device)
    if kind:
        from panini.peers import load_peer

        if not Path(source).exists():
            raise CheckpointError(
                f"{source}: no such file; name the weights of another restorer, such as "
                "peer:GFPGANv1.4.pth"
            )
        peer = load_peer(Path(source), device, name=name)
        return _Contender(source=text, systems=lambda _: [peer], task=peer.task, about={})
    return _network(text, name, device)


def _network(text: str, name: str, device: str) -> _Contender:
    """A network of ours; with sr16, it takes part once more, made to agree with its input."""
    from panini.checkpoints import load_model
    from panini.evaluation import ConsistentSystem, network_system

    net = load_model(text).to(device)
    system = network_system(net, name)
    consistent = ConsistentSystem(system, f"{name} consistent")
    return _Contender(
        source=text,
        systems=lambda task: [system, consistent] if task == "sr16" else [system],
        task=net.config.task,
        about={
            "fusion": net.config.fusion.method,
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
        },
    )


def _pulse(source: str, name: str, device: str) -> _Contender:
    """Latent optimisation through a prior, or through the one of a network."""
    from panini.checkpoints import load_model, load_prior, recognise
    from panini.peers import pulse_system

    is_net = recognise(source).kind == "panini-net"
    drawn_by = load_model(source, own_prior=True) if is_net else load_prior(source)
    system = pulse_system(drawn_by.to(device), name=name)
    return _Contender(source=f"pulse:{source}", systems=lambda _: [system], about={})


def _split(text: str) -> tuple[str, str]:
    """Kind and source of "peer:FILE"; a name, a path and hf://… have the kind ""."""
    kind, colon, source = text.partition(":")
    return (kind, source) if colon and kind in _KINDS else ("", text)


def _short_names(models: Sequence[str]) -> list[str]:
    """Names for tables: of the files, without folder and suffix where that is enough."""
    short = [_short_name(text) for text in models]
    counts = Counter(short)
    return [name if counts[name] == 1 else text for name, text in zip(short, models, strict=True)]


def _short_name(text: str) -> str:
    kind, source = _split(text)
    if kind in _PEERS:
        return Path(source).stem
    # Not `stem`: a name such as hf://owner/net-1.5 has a dot, and no suffix.
    stem = Path(source).name.removesuffix(".safetensors")
    return f"pulse {stem}" if kind == "pulse" else stem


def _task(wish: _Wish, contenders: Sequence[_Contender]) -> Task:
    """The task that was asked for, or what the models are for.

    Raises:
        ConfigError: A model is for another task: it would be judged by what it was not made for.
    """
    tasks: dict[Task, str] = {one.task: one.source for one in contenders if one.task is not None}
    if len(tasks) > 1:
        told = ", ".join(f"{source} for {task}" for task, source in tasks.items())
        raise ConfigError(f"the models are for different tasks ({told}); evaluate them apart")
    if wish.task is None:
        return next(iter(tasks)) if tasks else "mfr"
    asked: Task = "mfr" if wish.task is TaskName.MFR else "sr16"
    for task, source in tasks.items():
        if task != asked:
            raise ConfigError(
                f"{source}: is a model for task {task}, and --task is {asked}; leave --task out, "
                f"or name a model for {asked}"
            )
    return asked


def _degradations(wish: _Wish) -> Degradations:
    return "floor" if wish.degradations is DegradationsName.FLOOR else "paper"


def _check_decidable(plan: Plan) -> None:
    """Refuse a check of what the floor says nothing about, or of what is not measured."""
    from panini.evaluation.floor import NEEDED
    from panini.evaluation.sizes import COMPARED_SIZE

    if plan.degradations != "floor":
        raise ConfigError(
            f"--check is for --degradations floor, not for {plan.degradations}; leave one of them "
            "out"
        )
    if plan.lq is not None:
        raise ConfigError(
            "--check is for faces that are degraded here, as the floor wants them, and not for "
            "ready ones; leave out --check or --lq"
        )
    if plan.size != COMPARED_SIZE:
        raise ConfigError(
            f"--check is for faces that are compared at {COMPARED_SIZE} px, not at {plan.size}; "
            "leave out --check or --size"
        )
    missing = [name for name in NEEDED[plan.task] if name not in plan.wanted]
    if missing:
        raise ConfigError(
            f"--check needs {', '.join(missing)}; add to --metrics, or leave that out"
        )


@contextmanager
def _bar(console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Shows how many faces are done, on the standard error or on another console."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("faces", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console or Console(stderr=True), transient=True)
    task = bar.add_task("faces", total=None)

    def progress(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        bar.start()  # only now: an error before the first face stands alone

    try:
        yield progress
    finally:
        if bar.live.is_started:
            bar.stop()
