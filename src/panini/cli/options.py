"""The options of `panini restore`, some of which other commands take too."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

FILES, FACES, STRENGTH, PASTING, MACHINE = (
    "Files",
    "Which faces",
    "How strongly",
    "Back into the photo",
    "Model and machine",
)
"""Panels of the help, in the order in which the options are declared."""


class Upscale(StrEnum):
    """Factors for the rest of the photo; text, because options are chosen by text."""

    ONE = "1"
    TWO = "2"
    FOUR = "4"


class NoFace(StrEnum):
    """What becomes of a photo in which no face was found."""

    COPY = "copy"
    SKIP = "skip"
    FAIL = "fail"


Photos = Annotated[
    list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="A folder; or, for a single photo, a file.", rich_help_panel=FILES
    ),
]
Recursive = Annotated[
    bool,
    typer.Option(
        "--recursive",
        "-r",
        help="Take folders with all that is below them, and keep their tree in OUT. OUT gets a "
        "report.jsonl; run again, photos are left out that it says are done with the same "
        "options, if neither they nor their results have changed.",
        rich_help_panel=FILES,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="png|jpg|webp|…",
        help="Write this format; default: each photo's own, or PNG where that is only read.",
        rich_help_panel=FILES,
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(min=1, max=100, help="Of JPEG, WebP and the like.", rich_help_panel=FILES),
]
MarkIt = Annotated[
    bool,
    typer.Option(
        "--mark/--no-mark",
        help="Say in the file that an algorithm altered the photo, with model, θ and settings.",
        rich_help_panel=FILES,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Do all again and replace outputs. Without it, an output that exists stays, and is "
        "an error unless -r knows it to be done.",
        rich_help_panel=FILES,
    ),
]
Aligned = Annotated[
    bool,
    typer.Option(
        "--aligned",
        help="The images are square face crops, FFHQ-aligned.",
        rich_help_panel=FACES,
    ),
]
Faces = Annotated[
    str,
    typer.Option(
        metavar="all|largest|center|NUMBER",
        help="Which faces of a photo; number 1 is the largest.",
        rich_help_panel=FACES,
    ),
]
MinFace = Annotated[
    float, typer.Option(min=12, help="Least largest side of a face, px.", rich_help_panel=FACES)
]
WithoutFace = Annotated[
    NoFace,
    typer.Option(help="What becomes of a photo in which no face was found.", rich_help_panel=FACES),
]
SaveFaces = Annotated[
    bool,
    typer.Option(
        "--save-faces", help="Also write each face, before and after.", rich_help_panel=FACES
    ),
]
PriorBias = Annotated[
    str,
    typer.Option(
        metavar="-3…3",
        help="Above 0 trusts the face generator more, below 0 the photo; or by level (px): "
        "64=1,32=-0.5",
        rich_help_panel=STRENGTH,
    ),
]
Consistent = Annotated[
    bool,
    typer.Option(
        "--consistent",
        help="Add what a face drawn by super-resolution, reduced again, lacks of its input.",
        rich_help_panel=STRENGTH,
    ),
]
Variations = Annotated[
    int,
    typer.Option(
        min=0,
        max=64,
        metavar="N",
        help="Also write N other results that the photo supports as well, and a sheet of them.",
        rich_help_panel=STRENGTH,
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Of variations and grain.", rich_help_panel=STRENGTH)
]
MetricsDir = Annotated[
    Path | None,
    typer.Option(
        help="Frozen networks of the metrics: tell how variations differ by LPIPS, not by pixels.",
        rich_help_panel=STRENGTH,
    ),
]
Enlarge = Annotated[
    Upscale, typer.Option(help="Enlarge the rest of the photo (Lanczos).", rich_help_panel=PASTING)
]
ColourMatch = Annotated[
    bool,
    typer.Option(
        "--colour-match/--no-colour-match",
        help="Give faces the broad colours and brightness of the photo.",
        rich_help_panel=PASTING,
    ),
]
Grain = Annotated[
    bool,
    typer.Option("--grain", help="Give faces the grain of the photo.", rich_help_panel=PASTING),
]
KeepColour = Annotated[
    bool,
    typer.Option(
        "--keep-colour",
        help="Leave restored faces in colour in a grey photo.",
        rich_help_panel=PASTING,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="auto|NAME|PATH",
        help="A shipped model or a .safetensors file; auto takes mobile-sr16 for faces under "
        "96 px, and mobile-mfr for others.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=MACHINE)]
