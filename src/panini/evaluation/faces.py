"""Where faces come from: tar shards, folders of images or of shards, single images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from panini.errors import DataError, ImageError
from panini.images import RgbImage, find_images, read_rgb
from panini.shards import decode, iter_members


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face that is not decoded yet."""

    key: str
    """Its name in the data set: of the file or of the shard's member, without suffix."""
    where: str
    """What errors call it."""
    size: int
    """Bytes of the encoded image."""
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
        DataError: The shard or folder is missing, empty or damaged.
    """
    source = Path(source)
    if source.suffix == ".tar":
        yield from _of_shard(source)
        return
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; expected a tar shard or images")
    shards = sorted(source.glob("*.tar")) if source.is_dir() else []
    for shard in shards:
        yield from _of_shard(shard)
    if shards:
        return
    try:
        paths = find_images([source])
    except ImageError as error:
        raise DataError(
            f"{source}: the folder holds no image and no tar shard; expected aligned faces"
        ) from error
    for path in paths:
        yield _of_file(path)


def _of_shard(shard: Path) -> Iterator[Face]:
    for name, content in iter_members(shard):
        yield _of_member(shard, name, content)


def _of_member(shard: Path, name: str, content: bytes) -> Face:
    where = f"{shard}:{name}"
    return Face(
        key=str(PurePosixPath(name).with_suffix("")),
        where=where,
        size=len(content),
        read=lambda: decode(BytesIO(content), where),
    )


def _of_file(path: Path) -> Face:
    return Face(
        key=path.stem, where=str(path), size=path.stat().st_size, read=lambda: read_rgb(path)
    )
