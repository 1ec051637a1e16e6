"""Faces of tar shards, of folders, and of a prior."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from panini.checkpoints import SPECS, load_network_prior, load_prior
from panini.data.config import SourceConfig
from panini.errors import CheckpointError, DataError
from panini.images import IMAGE_SUFFIXES, RgbImage, to_uint8
from panini.models.prior import GanPrior
from panini.shards import Member, decode, index_members


class Sample(NamedTuple):
    """One face of a source."""

    image: RgbImage
    """uint8 RGB (S, S, 3)."""
    w: np.ndarray | None
    """The w that made it, (w_dim,) float32, where the source is a prior."""


class ShardSource:
    """Images of tar shards, found once; read and decoded when asked for, or all at once and kept.

    Args:
        paths: The shards.
        decoded_mb: See `SourceConfig`.
        workers: Processes that decode all at once.
    """

    def __init__(self, paths: Sequence[Path], decoded_mb: int = 0, workers: int = 0) -> None:
        self.members = [member for path in paths for member in index_members(path)]
        self.decoded: list[RgbImage | None] | None = None
        if decoded_mb and self._size_mb() <= decoded_mb:
            self.decoded = _decode_all(self.members, workers)

    def __len__(self) -> int:
        return len(self.members)

    def sample(self, index: int) -> Sample:
        """Decode one image.

        Raises:
            DataError: It is damaged or not square.
        """
        kept = self.decoded[index] if self.decoded else None
        if kept is not None:
            return Sample(kept, None)
        return Sample(_face_of(self.members[index]), None)

    def _size_mb(self) -> float:
        """Of all faces decoded, as far as the first tells."""
        try:
            first = self.sample(0).image.nbytes
        except DataError:
            return float("inf")
        return first * len(self) / 1e6


class FolderSource:
    """Square image files of folders and of the folders in them, as FFHQ has them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files: list[Path] = []
        for path in paths:
            found = _images_below(path) if path.is_dir() else [path]
            if not found:
                raise DataError(f"{path}: the folder holds no image")
            self.files += found

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> Sample:
        """Decode one image.

        Raises:
            DataError: It is damaged or not square.
        """
        file = self.files[index]
        return Sample(_square(file, str(file)), None)


class PriorSource:
    """Faces that a prior made, with their w: `images.npy` (N, S, S, 3) and `w.npy` (N, w_dim)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        (folder,) = paths
        try:
            self.w = np.load(folder / "w.npy")
            self.images = np.load(folder / "images.npy", mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise DataError(
                f"{folder}: expected images.npy and w.npy of `panini sample` ({error})"
            ) from error

    def __len__(self) -> int:
        return len(self.w)

    def sample(self, index: int) -> Sample:
        """Read one face."""
        return Sample(np.asarray(self.images[index]), self.w[index])


Source = ShardSource | FolderSource | PriorSource


def open_source(config: SourceConfig, workers: int = 0) -> Source:
    """The source that a configuration names; a live prior is none, see `data.device`.

    Raises:
        DataError: A path is missing or holds nothing usable.
    """
    for path in config.paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if config.kind == "shards":
        return ShardSource(config.paths, config.decoded_mb, workers)
    if config.kind == "folder":
        return FolderSource(config.paths)
    if len(config.paths) != 1:
        raise DataError(f"a prior source has one folder, got {len(config.paths)}")
    return PriorSource(config.paths)


def load_live_prior(path: Path) -> GanPrior:
    """The prior of a file of its own, of a network's file, or of a shipped model by name: there, as
    it was before restoration changed it.

    Raises:
        CheckpointError: It is none of them.
    """
    if os.fspath(path) in SPECS:
        return load_network_prior(path)
    try:
        return load_prior(path)
    except CheckpointError as no_prior:
        try:
            return load_network_prior(path)
        except CheckpointError:
            raise no_prior from None


@torch.no_grad()
def draw_prior_faces(
    prior: GanPrior, folder: Path, count: int, truncation: float, seed: int
) -> Iterator[int]:
    """Fill a folder for `PriorSource`; w.npy comes last, so a folder that has it is whole.

    Args:
        prior: Draws the faces.
        folder: Where to; it is made.
        count: Number of faces.
        truncation: Each face's ψ is uniform in [truncation, 1].
        seed: Of the latents.

    Yields:
        The number of each face as it is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.npy").unlink(missing_ok=True)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, prior.z_dim, generator=generator)
    psi = torch.empty(count, 1).uniform_(truncation, 1, generator=generator)
    w = prior.w_avg + psi * (prior.mapping(z) - prior.w_avg)
    shape = (count, prior.size, prior.size, 3)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    for index in range(count):
        face = prior.synthesis(prior.broadcast(w[index : index + 1]))
        (images[index],) = to_uint8(face)
        yield index
    images.flush()
    np.save(folder / "w.npy", w.numpy())


def _images_below(folder: Path) -> list[Path]:
    """Image files of a folder and of those in it, sorted by path; hidden ones are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                found.append(Path(place, name))
    return sorted(found)


def _face_of(member: Member) -> RgbImage:
    return _square(BytesIO(member.read()), member.where)


def _square(file: Path | BytesIO, name: str) -> RgbImage:
    """A square face of a file, uint8 RGB (S, S, 3)."""
    face = decode(file, name)
    height, width = face.shape[:2]
    if height != width:
        raise DataError(f"{name}: expected a square, aligned face, found {width}x{height} px")
    return face


def _decode_or_none(member: Member) -> RgbImage | None:
    try:
        return _face_of(member)
    except DataError:
        return None  # `sample` decodes it again and says what is wrong


def _decode_all(members: list[Member], workers: int) -> list[RgbImage | None]:
    """Decode all members, by several processes where there are some."""
    if workers < 2:
        return [_decode_or_none(member) for member in members]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return list(pool.map(_decode_or_none, members, chunksize=64))
