"""Faces to train on: tar shards, folders, samples of a prior; degraded on the way out.

Every batch is a pure function of (seed, step), so a resumed run sees what an uninterrupted
one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from panini.config import Config
from panini.degradations import DegradationRange, degrade
from panini.errors import DataError, ImageError
from panini.images import RgbImage, find_images, to_uint8
from panini.models.prior import GanPrior
from panini.shards import decode, iter_members


class Sample(NamedTuple):
    """One face of a source."""

    image: RgbImage
    """uint8 RGB (S, S, 3)."""
    w: np.ndarray | None
    """The w that made it, (w_dim,) float32, where the source is a prior."""


class SourceConfig(Config):
    """Where faces come from."""

    kind: Literal["shards", "folder", "prior"]
    """Tar shards of images, a folder of images, or a folder made by `panini sample`."""
    paths: tuple[Path, ...] = Field(min_length=1)
    """The tar files or folders."""


class DegradationConfig(Config):
    """Ranges of Eq. 10, in pixels of faces of `lq_size`, 512 px unless the recipe says other."""

    low_side: tuple[int, int] = (16, 100)
    """Side after downsampling, px."""
    low_side_law: Literal["uniform", "log"] = "uniform"
    """`log` draws every octave equally often."""
    sigma: tuple[float, float] = (0.5, 4.5)
    """Gaussian blur, px."""
    noise: tuple[float, float] = (0.0, 15.0)
    """Gaussian noise, levels of 0..255."""
    jpeg: tuple[int, int] = (50, 95)
    """JPEG quality."""

    def build(self, size: int) -> DegradationRange:
        """The sampler for faces of `size` px."""
        return DegradationRange(**self.model_dump(), size=size)


class GroupConfig(Config):
    """A share of every batch that comes from one source."""

    source: SourceConfig
    count: int = Field(gt=0)
    """Faces of this group in a batch."""
    gt_size: int = Field(gt=0, multiple_of=64)
    """Side at which the truth is kept, px: a multiple of 64, where windows are cut."""
    scales: tuple[int, ...] = (256,)
    """Sides (of the whole face) at which the losses may compare; one is drawn a step."""
    flip: bool = True
    """Mirror half of the faces; never for faces whose w is used."""


class DataConfig(Config):
    """What a batch is made of."""

    groups: tuple[GroupConfig, ...] = Field(min_length=1)
    degradations: tuple[DegradationConfig, ...] = Field(min_length=1)
    """Each face is degraded by one of these, drawn with `degradation_weights`."""
    degradation_weights: tuple[float, ...] = (1.0,)
    lq_size: int = Field(default=512, gt=0)
    """Side of the degraded faces, px: what the network takes."""
    num_workers: int = 1
    """Processes that prepare batches; 0 = in the training process."""


class ShardSource:
    """Images of tar shards, kept encoded in memory, decoded when asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.encoded = [
            (f"{path}:{name}", content) for path in paths for name, content in iter_members(path)
        ]

    def __len__(self) -> int:
        return len(self.encoded)

    def sample(self, index: int) -> Sample:
        """Decode one image."""
        name, data = self.encoded[index]
        return Sample(_square(BytesIO(data), name), None)


class FolderSource:
    """Square image files of folders."""

    def __init__(self, paths: Sequence[Path]) -> None:
        try:
            self.files = find_images(paths)
        except ImageError as error:
            raise DataError(str(error)) from error

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> Sample:
        """Decode one image."""
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


def open_source(config: SourceConfig) -> Source:
    """The source that a configuration names.

    Raises:
        DataError: A path is missing or holds nothing usable.
    """
    for path in config.paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if config.kind == "prior" and len(config.paths) != 1:
        raise DataError(f"a prior source has one folder, got {len(config.paths)}")
    kinds = {"shards": ShardSource, "folder": FolderSource, "prior": PriorSource}
    return kinds[config.kind](config.paths)


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


class GroupBatch(NamedTuple):
    """One group's part of a batch."""

    lq: Tensor
    """Degraded faces, uint8 (count, 3, lq_size, lq_size)."""
    gt: Tensor
    """Truth, uint8 (count, 3, gt_size, gt_size)."""
    w: Tensor
    """(count, w_dim) float32; (count, 0) where the source is no prior."""


class FaceBatches(Dataset[list[GroupBatch]]):
    """Batches by step: `self[step]` is the list of groups' parts, always the same."""

    def __init__(self, config: DataConfig, seed: int, *, paired: bool = False) -> None:
        """Open the sources.

        Args:
            config: What a batch is made of.
            seed: Of everything random here.
            paired: Degrade face 2k+1 exactly as face 2k: the positive pairs of UDRL.
        """
        self.config = config
        self.seed = seed
        self.paired = paired
        self.sources = [open_source(group.source) for group in config.groups]
        self.ranges = [entry.build(config.lq_size) for entry in config.degradations]
        weights = np.asarray(config.degradation_weights, np.float64)
        if len(weights) != len(self.ranges):
            raise DataError(
                f"{len(self.ranges)} degradations need as many degradation_weights, "
                f"got {len(weights)}"
            )
        self.weights = weights / weights.sum()

    def __getitem__(self, step: int) -> list[GroupBatch]:
        generator = np.random.default_rng([self.seed, step])
        return [
            self._group(group, source, generator)
            for group, source in zip(self.config.groups, self.sources, strict=True)
        ]

    def _group(
        self, config: GroupConfig, source: Source, generator: np.random.Generator
    ) -> GroupBatch:
        lqs, gts, ws = [], [], []
        params = None
        for item in range(config.count):
            sample = source.sample(int(generator.integers(len(source))))
            image = sample.image
            if config.flip and generator.random() < 0.5:
                image = image[:, ::-1]
            if params is None or not (self.paired and item % 2):
                params = self.ranges[generator.choice(len(self.ranges), p=self.weights)].sample(
                    generator
                )
            lqs.append(degrade(resize(image, self.config.lq_size), params, generator))
            gts.append(resize(image, config.gt_size))
            ws.append(np.zeros(0, np.float32) if sample.w is None else sample.w)
        return GroupBatch(_stack(lqs), _stack(gts), torch.from_numpy(np.stack(ws)))


def batches(dataset: FaceBatches, start: int, stop: int) -> Iterator[list[GroupBatch]]:
    """Batches of steps start … stop-1, in order, prepared ahead by the configured workers."""
    workers = dataset.config.num_workers
    if workers:
        # Before the fork: in a forked worker OpenCV's pool of threads can neither be used nor
        # be taken down.
        cv2.setNumThreads(1)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )
    return iter(loader)


def resize(image: RgbImage, size: int) -> RgbImage:
    """Resize a square face: area means when it shrinks, cubic when it grows."""
    if image.shape[0] == size:
        return np.ascontiguousarray(image)
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    resized = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=method)
    return np.asarray(resized, np.uint8)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 → float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _square(file: Path | BytesIO, name: str) -> RgbImage:
    """A square face of a file, uint8 RGB (S, S, 3)."""
    face = decode(file, name)
    height, width = face.shape[:2]
    if height != width:
        raise DataError(f"{name}: expected a square, aligned face, found {width}x{height} px")
    return face


def _stack(images: list[RgbImage]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _one_thread(_worker: int) -> None:
    # The training process wants the cores.
    torch.set_num_threads(1)
