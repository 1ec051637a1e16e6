"""`panini init`: an untrained network around a prior."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Size(StrEnum):
    """Sides of the restored face; text, because options are chosen by text."""

    SMALL = "256"
    MEDIUM = "512"
    LARGE = "1024"


class Task(StrEnum):
    """What the network will be trained for."""

    MFR = "mfr"
    SR16 = "sr16"


class Encoder(StrEnum):
    """Which encoders stand before the prior."""

    PAPER = "paper"
    MOBILE = "mobile"


def init(
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    prior: Annotated[
        str, typer.Option(help="A StyleGAN2 prior of any format that loads, or a mobile one.")
    ],
    size: Annotated[Size, typer.Option(help="Side of the restored face, px.")],
    task: Annotated[
        Task, typer.Option(help="Many degradations, or 16x super-resolution.")
    ] = Task.MFR,
    encoder: Annotated[Encoder, typer.Option(help="The paper's, or the light one.")] = (
        Encoder.PAPER
    ),
    degradation_encoder: Annotated[
        Path | None,
        typer.Option(help="Trained weights of the degradation encoder; default: untrained."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the new weights.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Assemble an untrained network around a prior, for `panini train restoration`.

    The fused levels, their channels and the number of style vectors are the prior's own.
    """
    from panini.checkpoints import load_degradation_encoder, load_prior, save_model
    from panini.checkpoints.assemble import Plan, assemble, install_degradation_encoder
    from panini.checkpoints.io import resolve, sha256_of
    from panini.errors import CheckpointError, ConfigError

    if out.exists() and not overwrite:
        raise CheckpointError(f"{out}: exists already; add --overwrite to replace it")
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out}: expected a name that ends in .safetensors")
    source = resolve(prior)
    generator = load_prior(source)
    plan = Plan(size=int(size), task=task.value, encoder=encoder.value, seed=seed)
    try:
        net = assemble(generator, plan)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{prior}: {error}") from error
    if degradation_encoder is not None:
        install_degradation_encoder(
            net, load_degradation_encoder(degradation_encoder), degradation_encoder
        )
    provenance = {
        "trained": "not yet: assembled by panini init",
        "prior": source.name,
        "prior_sha256": sha256_of(source) if source.is_file() else None,
        "seed": seed,
    }
    if degradation_encoder is not None:
        provenance["degradation_encoder"] = degradation_encoder.name
    save_model(net, out, provenance=provenance)
    levels = ", ".join(str(level) for level in net.fusion.levels)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    typer.echo(
        f"{out}: {task.value}, {net.config.in_size} px -> {net.config.out_size} px, fused at"
        f" {levels} px, {net.prior.num_ws} style vectors, {parameters / 1e6:.1f} M parameters,"
        " untrained"
    )
