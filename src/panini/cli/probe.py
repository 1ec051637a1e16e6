"""`panini probe`: what a degradation encoder knows of the degradation, and of the face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def probe(
    weights: Annotated[
        str, typer.Argument(help="A network, a degradation encoder, or a shipped model's name.")
    ],
    data: Annotated[Path, typer.Option(help="Faces it was not trained on: a shard or a folder.")],
    count: Annotated[int, typer.Option(min=20, help="Faces.")] = 500,
    size: Annotated[int, typer.Option(min=64, help="Side at which faces are degraded.")] = 512,
    views: Annotated[int, typer.Option(min=2, help="Degradations of each face.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the degradations.")] = 0,
) -> None:
    """Measure how well v_DR tells the degradation, and how little it tells the face.

    For each face several random degradations within the ranges of `panini evaluate`. R² is that of
    a linear probe on faces that it did not see; the same face is found when the nearest vector
    under another degradation belongs to it. Both for v_DR and for the space where the contrastive
    loss compares.
    """
    import itertools
    import json

    from rich.progress import Progress

    from panini.checkpoints import load_degradation_encoder
    from panini.evaluation import read_faces
    from panini.training.probe import probe as run

    encoder = load_degradation_encoder(weights)
    faces = [image for _, image in itertools.islice(read_faces(data), count)]
    with Progress(transient=True) as bar:
        task = bar.add_task("Probing", total=len(faces))
        report = run(
            encoder,
            faces,
            size=size,
            views=views,
            seed=seed,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    typer.echo(json.dumps(report.to_dict(), indent=2))
