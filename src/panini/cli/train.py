"""`panini train STAGE --config FILE`: the three stages."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler


class StageName(StrEnum):
    """The stages, in their order."""

    DEGRADATION = "degradation"
    WARMUP = "warmup"
    RESTORATION = "restoration"


def train(
    stage: Annotated[StageName, typer.Argument(help="Which stage.")],
    config: Annotated[Path, typer.Option(help="The recipe, a YAML file of configs/.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Train one stage. To resume a run, give the same command again.

    degradation: the degradation encoder, by momentum contrast. warmup: latents, features and
    masks on faces of the prior. restoration: the whole, with L1, perceptual and adversarial loss.
    """
    from panini.config import load_config
    from panini.runtime import keep_memory
    from panini.training import degradation, restoration, warmup

    schemas = {
        StageName.DEGRADATION: degradation.DegradationRunConfig,
        StageName.WARMUP: warmup.WarmupRunConfig,
        StageName.RESTORATION: restoration.RestorationRunConfig,
    }
    resolved = load_config(config, schemas[stage], set_)
    if dry_run:
        typer.echo(resolved.model_dump_json(indent=2))
        return
    handler = RichHandler(show_path=False, markup=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    keep_memory()
    if isinstance(resolved, degradation.DegradationRunConfig):
        degradation.train(resolved)
    elif isinstance(resolved, warmup.WarmupRunConfig):
        warmup.train(resolved)
    else:
        restoration.train(resolved)
    typer.echo(f"weights and log in {resolved.out}")
