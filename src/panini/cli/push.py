"""`panini push`: a network of ours to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a .safetensors file.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/REPO", help="Made if it does not exist.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is made here.")
    ] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload a Panini-Net model",
    card: Annotated[
        Path | None,
        typer.Option(help="A page for README.md; default: model_cards/MODEL.md, if there is one."),
    ] = None,
) -> None:
    """Upload weights, config and model card to the hub, in one commit.

    Log in with `hf auth login`, or set HF_TOKEN. `hf://OWNER/REPO` names the model afterwards.
    """
    from panini.checkpoints.hub import PREFIX
    from panini.checkpoints.hub import push as upload

    card = card or _own_card(model)
    url = upload(model, repo, private=private, message=message, card=card)
    typer.echo(f"{url}")
    typer.echo(f"use it as {PREFIX}{repo}, {f'card from {card}' if card else 'without a card'}")


def _own_card(model: str) -> Path | None:
    """The card in model_cards/ of the working folder."""
    card = Path("model_cards") / f"{Path(model).stem}.md"
    return card if card.is_file() else None
