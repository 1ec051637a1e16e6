"""`panini info`: what a checkpoint is, ours or foreign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from panini.checkpoints import Recognition


def info(
    file: Annotated[
        str, typer.Argument(help="A checkpoint, a shipped model's name, or hf://owner/repo.")
    ],
) -> None:
    """Tell what a checkpoint holds, without writing or executing anything."""
    from panini.checkpoints import recognise

    for line in describe(file, recognise(file)):
        typer.echo(line)


def describe(file: str | PathLike[str], found: Recognition) -> Iterator[str]:
    """A recognition in lines."""
    from panini.checkpoints.kinds import printable

    yield f"{file}"
    yield from map(printable, _facts(found))


def _facts(found: Recognition) -> Iterator[str]:
    from panini.checkpoints.kinds import KINDS, to_json

    yield f"  format      {found.title} ({found.format})"
    yield f"  holds       {KINDS[found.kind].title}{_measures(found)}"
    yield f"  parameters  {found.parameters:,} in {found.tensors} tensors"
    if found.format != "ours":
        yield f"  weights     {'moving average (EMA)' if found.ema else 'as trained'}"
    if found.left_aside:
        yield "  left aside  " + ", ".join(f"{k}* {n}" for k, n in found.left_aside.items())
    for note in found.notes:
        yield f"  note        {note}"
    yield f"  config      {json.dumps(to_json(found.config))}"
    if found.provenance:
        yield f"  provenance  {json.dumps(dict(found.provenance), ensure_ascii=False)}"


def _measures(found: Recognition) -> str:
    from panini.models.panini_net import PaniniConfig

    parts = []
    if isinstance(found.config, PaniniConfig):
        parts.append(f"task {found.task}, {found.config.in_size} px -> {found.size} px")
    elif found.size is not None:
        parts.append(f"{found.size} px")
    if found.channel_multiplier is not None:
        parts.append(f"channel multiplier {found.channel_multiplier:g}")
    return "".join(f", {part}" for part in parts)
