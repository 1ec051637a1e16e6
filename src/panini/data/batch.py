"""Batches of faces: every one is a pure function of (seed, step, process).

So a resumed run sees what an uninterrupted one would have seen, and two processes see together
what one with twice the counts would see. Only a curriculum's mix follows the images seen before,
which the run gives at its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from panini.data.config import DataConfig, GroupConfig
from panini.data.sources import Sample, Source, open_source
from panini.degradations import DegradationParams, bilinear_antialias, degrade
from panini.errors import DataError
from panini.images import RgbImage

ATTEMPTS = 50
"""Damaged faces in a row after which a source is given up."""


class RawGroup(NamedTuple):
    """One group's part of a batch as the workers leave it; `data.device` finishes it."""

    lq: Tensor
    """Degraded faces, uint8 (count, 3, lq_size, lq_size); (0,) where the device degrades,
    and for the task none."""
    gt: Tensor
    """Truth, uint8 (count, 3, gt_size, gt_size); (0,) where a live prior draws it."""
    w: Tensor
    """(count, w_dim) float32; (count, 0) where the source is no prior."""
    params: Tensor
    """What is done to each face, float64 (count, 4): the fields of `DegradationParams`; (0, 4)
    for the other tasks."""
    skipped: list[str]
    """What was wrong with the faces drawn that could not be read."""


class Share(NamedTuple):
    """Which part of a step's faces a process takes."""

    rank: int = 0
    """Of the process."""
    world: int = 1
    """Processes."""
    accumulate: int = 1
    """Batches of a process in a step."""


class Start(NamedTuple):
    """Where a run takes up its batches."""

    step: int = 0
    """Steps made before."""
    nimg: int = 0
    """Images seen before."""


class _Told(Dataset[list[RawGroup] | DataError]):
    """Batches, or what ends them: raised in a worker it would arrive as a traceback in words."""

    def __init__(self, inner: FaceBatches) -> None:
        self.inner = inner

    def __getitem__(self, number: int) -> list[RawGroup] | DataError:
        try:
            return self.inner[number]
        except DataError as error:
            return error


class FaceBatches(Dataset[list[RawGroup]]):
    """Batches by number: `self[step * accumulate + micro]`, always the same."""

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        *,
        paired: bool = False,
        share: Share | None = None,
        start: Start | None = None,
        in_order: bool = False,
    ) -> None:
        """Open the sources.

        Args:
            config: What a batch is made of.
            seed: Of everything random here.
            paired: Degrade face 2k+1 exactly as face 2k: the positive pairs of UDRL.
            share: This process's part; None is all.
            start: Where the run stands, from which the curriculum counts on; None is its begin.
            in_order: Take the faces one after another instead of drawing them: validation.

        Raises:
            DataError: A source is missing or empty, or weights do not match the degradations.
        """
        self.config = config
        self.seed = seed
        self.paired = paired
        self.share = share or Share()
        self.start = start or Start()
        self.in_order = in_order
        self.sources = [
            None
            if group.source.kind == "prior_live"
            else open_source(group.source, config.num_workers)
            for group in config.groups
        ]
        self.ranges = [entry.build(config.lq_size) for entry in config.degradations]
        for phase in config.curriculum:
            self._normal(phase.weights, "curriculum weights")
        self.weights = self._normal(config.degradation_weights, "degradation_weights")

    @property
    def faces(self) -> int:
        """Faces in all sources of files."""
        return sum(len(source) for source in self.sources if source is not None)

    def __getitem__(self, number: int) -> list[RawGroup]:
        step, micro = divmod(number, self.share.accumulate)
        block = micro * self.share.world + self.share.rank
        weights = self._weights_at(step)
        return [
            self._group(index, step, block * group.count, weights)
            for index, group in enumerate(self.config.groups)
        ]

    def _group(self, index: int, step: int, first: int, weights: np.ndarray) -> RawGroup:
        """Faces first … first + count - 1 of a group in a step."""
        config, source = self.config.groups[index], self.sources[index]
        lqs, gts, ws, numbers = [], [], [], []
        skipped: list[str] = []
        for item in range(first, first + config.count):
            params = self._params((step, index, item), weights)
            if params is not None:
                numbers.append(astuple(params))
            if source is None:
                continue
            generator = np.random.default_rng([self.seed, step, index, item, 0])
            order = step * self.share.world * config.count + item if self.in_order else None
            sample = _draw(source, generator, skipped, order)
            image = _vary(sample.image, config, generator)
            if self.config.degrade_on == "worker" and self.config.task != "none":
                lqs.append(self._degrade(image, params, generator))
            gts.append(resize(image, config.gt_size))
            ws.append(np.zeros(0, np.float32) if sample.w is None else sample.w)
        return RawGroup(
            _stack(lqs),
            _stack(gts),
            torch.from_numpy(np.stack(ws)) if ws else torch.zeros(config.count, 0),
            torch.tensor(numbers, dtype=torch.float64).view(-1, 4),
            skipped,
        )

    def _params(self, key: tuple[int, int, int], weights: np.ndarray) -> DegradationParams | None:
        """What is done to a face, by its (step, group, item)."""
        if self.config.task != "mfr":
            return None
        step, index, item = key
        alike = item // 2 if self.paired else item
        generator = np.random.default_rng([self.seed, step, index, alike, 1])
        return self.ranges[generator.choice(len(self.ranges), p=weights)].sample(generator)

    def _degrade(
        self, image: RgbImage, params: DegradationParams | None, generator: np.random.Generator
    ) -> RgbImage:
        if params is None:
            return bilinear_antialias(image, self.config.lq_size)
        return degrade(resize(image, self.config.lq_size), params, generator)

    def _weights_at(self, step: int) -> np.ndarray:
        """How the degradations are mixed in a step."""
        size = self.config.batch * self.share.world * self.share.accumulate
        # Not step · size: the steps before the start may have been of another size.
        nimg = self.start.nimg + (step - self.start.step) * size
        for phase in self.config.curriculum:
            if nimg < phase.until:
                return self._normal(phase.weights, "curriculum weights")
        return self.weights

    def _normal(self, weights: tuple[float, ...], name: str) -> np.ndarray:
        if self.ranges and len(weights) != len(self.ranges):
            raise DataError(
                f"{len(self.ranges)} degradations need as many {name}, got {len(weights)}"
            )
        return np.asarray(weights, np.float64) / sum(weights)


def batches(
    dataset: FaceBatches, start: int, stop: int, *, pin: bool = False
) -> Iterator[list[RawGroup]]:
    """Batches start … stop-1, in order, prepared ahead by the configured workers.

    Args:
        dataset: The batches.
        start: Number of the first.
        stop: Number after the last.
        pin: Leave them in pinned memory, from which a GPU copies while it computes.

    Raises:
        DataError: A source has too many damaged faces in a row, said when its batch is due.
    """
    workers = dataset.config.num_workers
    if workers:
        # Before the fork: in a forked worker OpenCV's pool of threads can neither be used nor
        # be taken down.
        cv2.setNumThreads(1)
    loader = DataLoader(
        _Told(dataset),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread if workers else None,
        pin_memory=pin,
    )
    return map(_raise_told, iter(loader))


def _raise_told(batch: list[RawGroup] | DataError) -> list[RawGroup]:
    if isinstance(batch, DataError):
        raise batch
    return batch


def resize(image: RgbImage, size: int) -> RgbImage:
    """Resize a square face: area means when it shrinks, cubic when it grows."""
    if image.shape[0] == size:
        return np.ascontiguousarray(image)
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    resized = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=method)
    return np.asarray(resized, np.uint8)


def resize_batch(images: Tensor, size: int) -> Tensor:
    """`resize` of square images (N, 3, S, S)."""
    side = images.shape[-1]
    if side == size:
        return images
    if side > size:
        return F.interpolate(images, (size, size), mode="area")
    return F.interpolate(images, (size, size), mode="bicubic", align_corners=False)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 → float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _draw(
    source: Source, generator: np.random.Generator, skipped: list[str], order: int | None
) -> Sample:
    """A face of a source; damaged ones are noted and passed over."""
    for attempt in range(ATTEMPTS):
        index = int(generator.integers(len(source))) if order is None else order + attempt
        try:
            return source.sample(index % len(source))
        except DataError as error:
            skipped.append(str(error))
    raise DataError(f"{ATTEMPTS} faces in a row cannot be read, the last: {skipped[-1]}")


def _vary(image: RgbImage, config: GroupConfig, generator: np.random.Generator) -> RgbImage:
    """Mirror and recolour a face as its group wants it."""
    if config.flip and generator.random() < 0.5:
        image = image[:, ::-1]
    if not config.colour_jitter:
        return image
    brightness, contrast, saturation = jitter(config.colour_jitter, generator)
    levels = image.astype(np.float32) * brightness
    levels = levels.mean() + contrast * (levels - levels.mean())
    grey = levels.mean(axis=2, keepdims=True)
    levels = grey + saturation * (levels - grey)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def jitter(by: float, generator: np.random.Generator, *count: int) -> np.ndarray:
    """Factors 1 ± `by` on brightness, contrast and saturation, (*count, 3)."""
    return 1 + by * generator.uniform(-1, 1, (*count, 3))


def recolour(images: Tensor, factors: Tensor) -> Tensor:
    """Recolour faces on the device as `_vary` does in the workers.

    Args:
        images: uint8 RGB, (N, 3, S, S).
        factors: On brightness, contrast and saturation, (N, 3).

    Returns:
        uint8, (N, 3, S, S).
    """
    brightness, contrast, saturation = factors[..., None, None, None].unbind(1)
    levels = images.float() * brightness
    mean = levels.mean(dim=(1, 2, 3), keepdim=True)
    levels = mean + contrast * (levels - mean)
    grey = levels.mean(dim=1, keepdim=True)
    return (grey + saturation * (levels - grey)).clamp(0, 255).round().to(torch.uint8)


def _stack(images: list[RgbImage]) -> Tensor:
    if not images:
        return torch.zeros(0, dtype=torch.uint8)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _one_thread(_worker: int) -> None:
    # The training process wants the cores.
    torch.set_num_threads(1)
