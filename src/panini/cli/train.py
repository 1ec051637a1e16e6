"""`panini train STAGE --config FILE`: the stages."""

from __future__ import annotations

import json
import math
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from panini.cli.logs import show_log


class StageName(StrEnum):
    """The stages, in their order."""

    DEGRADATION = "degradation"
    PRIOR = "prior"
    WARMUP = "warmup"
    RESTORATION = "restoration"


def train(
    stage: Annotated[StageName, typer.Argument(help="Which stage.")],
    config: Annotated[Path, typer.Option(help="The recipe, a YAML file of configs/.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(help="Print the resolved recipe and what it will need, and stop."),
    ] = False,
) -> None:
    """Train one stage. To resume a run, give the same command again.

    degradation: the degradation encoder, by momentum contrast. prior: the face generator, where
    none is at hand. warmup: latents, features and masks on faces of the prior. restoration: the
    whole, with L1, perceptual and adversarial loss.

    On several GPUs: accelerate launch -m panini.cli.main train STAGE --config FILE
    """
    from panini.config import load_config
    from panini.runtime import keep_memory

    schema, run = _stage(stage)
    resolved = load_config(config, schema, set_)
    if dry_run:
        from panini.training.estimate import estimate

        told = {
            "recipe": _without_infinity(resolved.model_dump(mode="json")),
            "estimate": estimate(resolved, config),
        }
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
        return
    show_log()
    keep_memory()
    done = run(resolved)
    if int(os.environ.get("RANK", "0")) == 0:
        state = "weights and log" if done else "not at its end, go on with the same command: run"
        typer.echo(f"{state} in {resolved.out}")
    _end_among_others()


def _without_infinity(value: Any) -> Any:
    """A recipe's value; what JSON has no number for is a string that a recipe takes, "inf"."""
    if isinstance(value, dict):
        return {key: _without_infinity(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_infinity(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _end_among_others() -> None:
    """End here, where this is one of several processes and all it had to write is written.

    The threads of a process group are sometimes torn down in an order that aborts the process (one
    run in twenty), which its launcher takes for a failure of the whole run.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _stage(name: StageName) -> tuple[Any, Any]:
    """A stage's recipe and what runs it."""
    from panini.training import degradation, prior, restoration, warmup

    stages = {
        StageName.DEGRADATION: (degradation.DegradationRunConfig, degradation.train),
        StageName.PRIOR: (prior.PriorRunConfig, prior.train),
        StageName.WARMUP: (warmup.WarmupRunConfig, warmup.train),
        StageName.RESTORATION: (restoration.RestorationRunConfig, restoration.train),
    }
    return stages[name]
