"""Contact sheets and pictures of a study."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from panini.images import write_whole
from panini.reproduce.study import Study


def keep_sheet(study: Study, folder: str, name: str) -> list[Path]:
    """Copy an evaluation's sheet beside the table that it belongs to; returns the copy, if any."""
    sheet = study.out / "evaluation" / folder / "sheet.png"
    if not sheet.is_file():
        return []
    path = study.out / f"{name}.png"
    write_whole(path, sheet.read_bytes())
    return [path]


def write_picture(path: Path, picture: Image.Image) -> Path:
    """Write a PNG, whole or not at all."""
    content = BytesIO()
    picture.save(content, "PNG")
    write_whole(path, content.getvalue())
    return path
