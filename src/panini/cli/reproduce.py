"""`panini reproduce`: the paper's tables and figures, on any data, at any budget."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from panini.cli.logs import errors_in_a_line, resumable, show_log


def reproduce(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(help="table1, table2, table3, table4, figure7, beyond, or all."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study: runs, evaluations, tables.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="smoke|laptop|paper|FILE",
            help="smoke: tiny networks that learn nothing, in seconds, to try the command. laptop: "
            "the shipped size on two CPU cores. paper: the paper's recipes. Or a YAML file.",
        ),
    ] = "laptop",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Faces to compare on: a tar shard or a folder. Only smoke does without: its prior "
            "draws them."
        ),
    ] = None,
    metrics_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the frozen networks that supervise and measure. Without it, smoke "
            "leaves out the metrics that need them."
        ),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(help="Faces to train on, in place of the recipes': shards or folders."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Folder of other restorers' official weights, as GFPGANv1.4.pth."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Network in place of the budget's, yours or the authors': one for mfr is a row of "
            "table 1, and what table 4, figure 7 and the levels are measured on; one for sr16 is a "
            "row of table 2. Repeat it for both.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Make only these rows: dafi, concat, modulation, noise, latent, shipped, "
            "official, pulse; of beyond: levels, pairs, masks, dre, additions. A table tells of "
            "all that is ready, given the same --model and --models.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images of each run, in place of the recipes'.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Make the paper's tables and figures anew. To go on, give the same command again.

    Each run is a folder of OUT/runs that resumes, with its recipe; a finished one is not run again.
    OUT/NAME.json and OUT/NAME.md have the numbers, intervals, seeds and the command.
    """
    from panini.reproduce import Options, load_budget
    from panini.reproduce import reproduce as run
    from panini.runtime import keep_memory

    show_log()
    keep_memory()
    with resumable(), errors_in_a_line(ctx, code=2):
        options = Options(
            budget=load_budget(budget),
            out=out,
            data=data,
            metrics_dir=metrics_dir,
            train=tuple(train or ()),
            models=models,
            model=tuple(model or ()),
            only=tuple(only or ()),
            images=images,
            device=device,
            command=shlex.join(["panini", *sys.argv[1:]]),
        )
        files = run(what, options)
    for path in files:
        typer.echo(str(path))
