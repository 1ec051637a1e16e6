"""Where faces come from: tar shards, folders of images or of shards, single images."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from panini.decoding import DAMAGED, open_image, quiet
from panini.errors import DataError, ImageError
from panini.images import RgbImage, find_images, read_rgb
from panini.shards import REPLACE, decode, index_members, is_compressed, iter_members

_PLACES, _PLACE = 5, 1024
"""Of a file that the checksum of earlier versions sees, and bytes of each."""

_UNREADABLE = (*DAMAGED, Image.DecompressionBombError)


class Mark(NamedTuple):
    """What tells an encoded image from another."""

    whole: tuple[int, int]
    """Bytes, and a checksum of all of them."""
    places: tuple[int, int]
    """Bytes, and a checksum of some of them: what earlier versions knew an image by."""


class Head(NamedTuple):
    """A look at an encoded image."""

    width: int
    height: int
    """px, before any turn by EXIF."""
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face that is not decoded yet."""

    key: str
    """Its name in the data set: of the file or of the shard's member, without suffix."""
    where: str
    """What errors call it."""
    head: Callable[[], Head]
    """What can be told without decoding it."""
    read: Callable[[], RgbImage]
    """Decodes it: uint8 RGB (H, W, 3)."""


def read_faces(source: str | Path) -> Iterator[tuple[str, RgbImage]]:
    """Keys and images (uint8 RGB) of a tar shard, a folder of images or of shards, or one image.

    Raises:
        DataError: The shard or folder is missing, empty or damaged.
        ImageError: An image of the folder cannot be read.
    """
    for face in iter_faces(source):
        yield face.key, face.read()


def iter_faces(source: str | Path) -> Iterator[Face]:
    """As `read_faces`, but each face is decoded only when it is asked to, in any thread.

    Raises:
        DataError: The shard or folder is missing, empty or damaged, or holds shards and images.
    """
    source = Path(source)
    if source.suffix == ".tar":
        yield from _of_shard(source)
        return
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; expected a tar shard or images")
    if source.is_file() and is_compressed(source):
        raise DataError(
            f"{source}: is compressed, expected a tar shard or images; unpack it to a .tar"
        )
    shards = sorted(source.glob("*.tar")) if source.is_dir() else []
    images = _images(source)
    if shards and images:
        raise DataError(
            f"{source}: holds tar shards ({shards[0].name}) and images ({images[0].name}), and "
            "only one of the two can be the faces; name the shard, or move the others elsewhere"
        )
    if not shards and not images:
        raise DataError(
            f"{source}: the folder holds no image and no tar shard; expected aligned faces"
        )
    for shard in shards:
        yield from _of_shard(shard)
    for path in images:
        yield _of_file(path)


def _images(source: Path) -> list[Path]:
    try:
        return find_images([source])
    except ImageError:  # a folder without any
        return []


def _of_shard(shard: Path) -> Iterator[Face]:
    """Faces that hold their content only where the shard is compressed: it is read once then."""
    if is_compressed(shard):
        for name, content in iter_members(shard):
            yield _of_member(f"{shard}:{name}", name, partial(_same, content))
    else:
        for member in index_members(shard):
            yield _of_member(member.where, member.name, member.read)


def _same(content: bytes) -> bytes:
    return content


def _of_member(where: str, name: str, content: Callable[[], bytes]) -> Face:
    return Face(
        key=str(PurePosixPath(name).with_suffix("")),
        where=where,
        head=lambda: _head(content(), where),
        read=lambda: decode(BytesIO(content()), where),
    )


def _of_file(path: Path) -> Face:
    return Face(
        key=path.stem,
        where=str(path),
        head=lambda: _head_of_file(path),
        read=lambda: _read_file(path),
    )


@contextlib.contextmanager
def _remedied() -> Iterator[None]:
    """Says what to do about a file that is no face, where its error tells what is wrong alone."""
    try:
        yield
    except ImageError as error:
        if "; " in str(error):
            raise
        raise ImageError(f"{error}; {REPLACE}") from error


def _read_file(path: Path) -> RgbImage:
    with _remedied():
        return read_rgb(path)


def _mark(content: bytes) -> Mark:
    size = len(content)
    places = 0
    for place in range(_PLACES):
        start = max(size - _PLACE, 0) * place // (_PLACES - 1)
        places = zlib.crc32(content[start : start + _PLACE], places)
    return Mark((size, zlib.crc32(content)), (size, places))


def _head(content: bytes, where: str) -> Head:
    return Head(*_pixels(content, where), _mark(content))


def _head_of_file(path: Path) -> Head:
    with _remedied(), open_image(path) as image:
        return Head(*image.size, _mark(path.read_bytes()))


def _pixels(content: bytes, where: str) -> tuple[int, int]:
    with contextlib.suppress(*_UNREADABLE), quiet(), Image.open(BytesIO(content)) as image:
        return image.size
    # Decoding says what is wrong, in the words that it would have used later.
    height, width = decode(BytesIO(content), where).shape[:2]
    return width, height
