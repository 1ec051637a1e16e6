"""Tar shards of faces: one image a member, `KEY.webp`, as WebDataset writes them."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panini.errors import DataError

SUFFIXES = frozenset({".webp", ".png", ".jpg", ".jpeg"})


def iter_members(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Read the encoded images of a shard in their order, one at a time.

    Args:
        path: A tar file. Members that are not images (`SUFFIXES`) are passed over.

    Yields:
        (name, content) of each member.

    Raises:
        DataError: The shard is missing, not a tar file, cut short, or without images.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a tar shard of images")
    found = False
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                suffix = PurePosixPath(member.name).suffix.lower()
                if not member.isfile() or suffix not in SUFFIXES:
                    continue
                file = archive.extractfile(member)
                assert file is not None  # it is a regular file
                yield member.name, file.read()
                found = True
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: not a whole tar file ({error}); copy it again") from error
    if not found:
        raise DataError(f"{path}: no images in it; expected members such as KEY.webp")


def iter_shard(path: str | Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Read the images of a shard in their order, one at a time.

    Args:
        path: See `iter_members`.

    Yields:
        (key, image): the member's name without its suffix, and uint8 RGB (H, W, 3).

    Raises:
        DataError: As `iter_members`, or a member cannot be decoded.
    """
    for name, content in iter_members(path):
        yield str(PurePosixPath(name).with_suffix("")), decode(BytesIO(content), f"{path}:{name}")


def decode(file: BytesIO | Path, where: str) -> NDArray[np.uint8]:
    """Decode an image to uint8 RGB (H, W, 3).

    Args:
        file: The encoded image.
        where: What the error calls it.

    Raises:
        DataError: It is no readable image.
    """
    try:
        with Image.open(file) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: not a readable image ({error})") from error
