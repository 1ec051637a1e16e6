"""`panini explain`: how one face of a photo was made, and where it was invented."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panini.cli.restore import told_thetas
from panini.errors import ConfigError, ImageError, NoFaceError

if TYPE_CHECKING:
    from panini.models.fusion import PerLevel
    from panini.restored import RestoredFace
    from panini.restorer import Restorer


def explain(
    photo: Annotated[Path, typer.Argument(help="A photo, or with --aligned a face crop.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for explain.html, explain.json and PNGs.")
    ],
    face: Annotated[
        str, typer.Option(metavar="INDEX|largest|center", help="Which face; 1 is the largest.")
    ] = "largest",
    variations: Annotated[
        int, typer.Option(min=1, max=64, help="Equally plausible faces behind the map.")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the variations.")] = 0,
    prior_bias: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|LEVEL=NUMBER,...",
            help="-3 to 3: above 0 trusts the face generator more, below 0 the photo; one number, "
            "or by level (4, 8, 16, 32, 64): 64=1,32=-0.5.",
        ),
    ] = "0",
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A shipped model or a .safetensors file.")
    ] = "mobile-mfr",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The image is a square face crop, FFHQ-aligned.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an explanation.")] = False,
) -> None:
    """Show how a face was restored: masks, the two sources alone, and the invention map.

    The map tells for each pixel how much of it the photo does not support: how far equally
    plausible faces differ there, and how far the result is from what the input holds.
    """
    if not photo.exists():
        raise ImageError(f"{photo}: does not exist")
    if not photo.is_file():
        raise ImageError(f"{photo}: is no image file; give one photo")

    from panini.batch import FaceRecord
    from panini.editing import explain as explain_face
    from panini.editing import parse_bias, write_explanation
    from panini.editing.explanation_report import PAGE, check_folder
    from panini.faces.select import ALL, parse_choice
    from panini.restorer import Restorer

    # Said before the work, not after it.
    bias, choice = parse_bias(prior_bias), parse_choice(face)
    if choice == ALL:
        raise ConfigError("--face all: one face is explained at a time; give a number or largest")
    check_folder(out, overwrite=overwrite)
    restorer = Restorer.from_pretrained(model, device)
    restored = _restore(restorer, photo, aligned=aligned, choice=choice, bias=bias)
    told = explain_face(restorer, restored, variations=variations, seed=seed, prior_bias=bias)
    about = {"photo": photo.name, "face": "aligned" if aligned else face, "model": restored.model}
    write_explanation(told, out, about=about, overwrite=overwrite)
    typer.echo(
        f"{photo} -> {out / PAGE}: {told_thetas([FaceRecord.of(restored)])}, "
        f"mean invention {told.invention.mean:.2f}, own resolution {told.variations.own_side} px"
    )


def _restore(
    restorer: Restorer, photo: Path, *, aligned: bool, choice: str | int, bias: PerLevel
) -> RestoredFace:
    """The one face that is asked for."""
    if aligned:
        return restorer.restore_aligned(photo, prior_bias=bias).faces[0]
    faces = restorer.restore(photo, prior_bias=bias, faces=choice).faces
    if not faces:
        raise NoFaceError(f"{photo}: no face was found; a face crop is explained with --aligned")
    return faces[0]
