"""Tar shards of faces: one image a member, `KEY.webp`, as WebDataset writes them."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from panini.decoding import DAMAGED, flatten, planes
from panini.errors import DataError

SUFFIXES = frozenset({".webp", ".png", ".jpg", ".jpeg"})
REPLACE = "replace it, or leave it out"
"""What errors advise about one face of many that cannot be read."""


class Member(NamedTuple):
    """Where an encoded image lies in a shard."""

    shard: Path
    name: str
    offset: int
    """Of its first byte."""
    size: int
    """Bytes."""

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"{self.shard}:{self.name}"

    def read(self) -> bytes:
        """Its content. The shard is opened each time, so that processes share nothing.

        Raises:
            DataError: The shard cannot be read any more.
        """
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise DataError(f"{self.where}: cannot be read ({error.strerror or error})") from error


def index_members(path: str | Path) -> list[Member]:
    """Find the encoded images of a shard, in their order; their content is left on the disk.

    Args:
        path: A tar file that is not compressed. Members that are not images (`SUFFIXES`) are
            passed over.

    Raises:
        DataError: The shard is missing, compressed, not a tar file, cut short, or without images.
    """
    path = Path(path)
    with _open(path, compressed=False) as archive:
        found = [Member(path, m.name, m.offset_data, m.size) for m in archive if _is_image(m)]
    if not found:
        raise DataError(_NO_IMAGES.format(path))
    return found


def is_compressed(path: Path) -> bool:
    """Whether a shard has to be read from its begin: its members cannot be found at once."""
    try:
        with path.open("rb") as file:
            return file.read(6).startswith(_COMPRESSED)
    except OSError:
        return False  # opening it says why


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
    found = False
    with _open(path, compressed=True) as archive:
        for member in filter(_is_image, archive):
            file = archive.extractfile(member)
            assert file is not None  # it is a regular file
            yield member.name, file.read()
            found = True
    if not found:
        raise DataError(_NO_IMAGES.format(path))


_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")  # gzip, bzip2, xz
_NO_IMAGES = "{}: no images in it; expected members such as KEY.webp"


def _is_image(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    # macOS puts a hidden "._NAME" with the same suffix beside every file.
    return member.isfile() and name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


@contextmanager
def _open(path: Path, *, compressed: bool) -> Iterator[tarfile.TarFile]:
    """A shard, perhaps a compressed one; what goes wrong inside becomes a line about it."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a tar shard of images")
    try:
        if not compressed and is_compressed(path):
            raise DataError(f"{path}: is compressed; unpack it, so that faces can be found")
        with tarfile.open(path, "r" if compressed else "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # of each compression there is a line
        raise DataError(
            f"{path}: not a whole tar file ({reason}); copy it again, or name another"
        ) from error


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
    """Decode an image to uint8 RGB (H, W, 3), upright, on white where it is transparent.

    Args:
        file: The encoded image.
        where: What the error calls it.

    Raises:
        DataError: It is no readable image.
    """
    try:
        with Image.open(file) as image:
            image.load()
            pixels = planes(image)
            return np.array(flatten(pixels.rgb, pixels.alpha))
    except UnidentifiedImageError as error:
        # Its own words hold an address in memory: the same file would never be the same twice.
        raise DataError(f"{where}: not a readable image (of no known format); {REPLACE}") from error
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image ({error}); {REPLACE}") from error
