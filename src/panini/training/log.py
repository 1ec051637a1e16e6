"""What a run tells: stats.jsonl, the logger, TensorBoard, and the faces that were skipped."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from panini.errors import DataError, MissingExtraError
from panini.images import RgbImage, write_rgb
from panini.training.config import RunConfig
from panini.training.engine import Engine

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger("panini.training")


class Log:
    """Means of the figures since the last line; only the first process writes.

    Figures stay on the device until a line is due, so that a step never waits for one.

    Args:
        config: The recipe.
        engine: Of the run.
        nimg: Images seen before.
    """

    def __init__(self, config: RunConfig, engine: Engine, nimg: int) -> None:
        self.config = config
        self.engine = engine
        self.path = config.out / "stats.jsonl"
        self.values: dict[str, list[Tensor]] = {}
        self.since = time.monotonic()
        self.nimg = nimg
        self.steps = 0
        self.seen = nimg
        self.skipped = 0
        if engine.main:
            _drop_lines_after(self.path, nimg)
        self.board = _board(config, nimg) if config.tensorboard and engine.main else None

    def add(self, figures: Mapping[str, Tensor], nimg: int, *, skipped: int = 0) -> None:
        """Take a step's figures; write a line if it is time.

        Args:
            figures: Scalars, by name.
            nimg: Images seen.
            skipped: Faces that could not be read so far.

        Raises:
            TrainingError: A loss was not finite.
        """
        if not self.engine.main:
            self.engine.timer.seconds.clear()
            self.engine.timer.events.clear()
            return
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value.detach())
        self.steps += 1
        self.skipped = skipped
        self.seen = nimg
        if time.monotonic() - self.since >= self.config.log_every_s:
            self.flush()

    def flush(self) -> None:
        """Write a line of what was added since the last.

        Raises:
            TrainingError: A loss was not finite.
        """
        if not self.steps:
            return
        elapsed, nimg = time.monotonic() - self.since, self.seen
        self.engine.check()
        means = {
            name: float(torch.stack(values).float().mean()) for name, values in self.values.items()
        }
        line = {"nimg": nimg, **self._pace(nimg, elapsed), "skipped_faces": self.skipped, **means}
        self.write(line, nimg)
        self.values, self.since, self.nimg, self.steps = {}, time.monotonic(), nimg, 0

    def write(self, line: Mapping[str, Any], nimg: int) -> None:
        """One line, everywhere."""
        if not self.engine.main:
            return
        # JSON has no NaN.
        told = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in line.items()
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told, allow_nan=False) + "\n")
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        logger.info(
            "%d/%d images, %s",
            nimg,
            self.config.images,
            ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if name != "nimg"),
        )
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, nimg)

    def sheet(self, columns: list[Tensor], nimg: int) -> None:
        """A sample sheet: faces below each other, columns of (N, 3, S, S) in [-1, 1] beside."""
        sheet = _grid(columns)
        path = self.config.out / "samples" / f"{nimg:010d}.png"
        path.parent.mkdir(exist_ok=True)
        write_rgb(path, sheet, overwrite=True)
        if self.board is not None:
            self.board.add_image("samples", sheet, nimg, dataformats="HWC")

    def close(self) -> None:
        """End the curves' file."""
        if self.board is not None:
            self.board.close()

    def _pace(self, nimg: int, elapsed: float) -> dict[str, Any]:
        """Images a second, share of waiting for data, peak memory, seconds a step by section."""
        seconds = self.engine.timer.collect()
        return {
            "images_per_s": (nimg - self.nimg) / elapsed,
            "data_wait": seconds.get("data", 0.0) / elapsed,
            "peak_memory_mb": _peak_memory_mb(self.engine.device),
            "seconds_a_step": {
                name: round(value / self.steps, 5) for name, value in sorted(seconds.items())
            },
        }


class SkippedFaces:
    """Counts and names the faces that could not be read.

    Args:
        total: Faces there are.
        most: Share of them that may be damaged.
        known: What was wrong with those skipped before; it grows, and checkpoints keep it.
    """

    def __init__(self, total: int, most: float, known: list[str] | None = None) -> None:
        self.total = total
        self.most = most
        self.known = [] if known is None else known
        self.new: list[str] = []

    def add(self, reasons: Iterable[str]) -> None:
        """Note what was skipped.

        Raises:
            DataError: Too many.
        """
        for reason in reasons:
            if reason in self.known:
                continue
            self.known.append(reason)
            self.new.append(reason)
            logger.warning("skipped a face, %d so far: %s", len(self.known), reason)
            if len(self.known) > self.most * self.total:
                raise DataError(
                    f"{len(self.known)} of {self.total} faces cannot be read, more than "
                    f"data.max_corrupt ({self.most:g}); the last: {reason}"
                )

    def take_new(self) -> list[str]:
        """What was noted since the last call: what other processes have not been told."""
        new, self.new = self.new, []
        return new


def _drop_lines_after(path: Path, nimg: int) -> None:
    """Drop the lines of steps that a resumed run makes again, and one that was cut off."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _image_of(line) <= nimg]
    if len(kept) < len(lines):
        partial = path.with_name(f".{path.name}.part")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(path)


def _image_of(line: str) -> float:
    """The image that a line stands for; infinite if it is no whole line."""
    try:
        return float(json.loads(line)["nimg"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _grid(columns: list[Tensor]) -> RgbImage:
    wide = torch.cat([column.detach().float().cpu() for column in columns], dim=-1)
    tall = torch.cat(list(wide), dim=-2)  # (3, N·S, columns·S)
    levels = ((tall + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def _board(config: RunConfig, nimg: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("train", "tensorboard: true") from error
    # From the first that is made again: the points of the checkpoint's own image stay.
    return SummaryWriter(config.out / "tensorboard", purge_step=nimg + 1)


def _peak_memory_mb(device: torch.device) -> float | None:
    """Of the GPU's tensors; on the CPU, of the process (None where the system does not tell)."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
