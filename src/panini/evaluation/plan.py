"""What is asked of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from panini.errors import ConfigError
from panini.metrics.judge import LPIPS_KINDS, METRICS
from panini.models.panini_net import Task

SR16_ONLY = ("psnr_full", "faithfulness")
SETS = ("fid", "kid")
"""Metrics of a whole set: another network looks at every face, and they mean little for few."""
THETA = "theta"
"""The test of θ over rising rates; only of mfr."""
GRID = "grid"
"""Strength of an 8 px lattice in a face at its full size; only of mfr."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which faces, what is done to them, what is measured, and where it goes."""

    data: Path
    """The truth: a tar shard, a folder of shards or of images, or one image; aligned faces."""
    task: Task
    """"mfr": degraded at 512 px. "sr16": reduced to 64 px."""
    out: Path
    """Folder of the results; it is made."""
    lq: Path | None = None
    """Ready inputs, paired with the truth by file stem; None makes them from the truth."""
    seed: int = 0
    """Of the degradations; sr16 has nothing random."""
    limit: int | None = None
    """Only the first so many faces; None takes all."""
    batch: int = 2
    """Faces at a time."""
    metrics: tuple[str, ...] | None = None
    """Some of `known_metrics`, or of `LPIPS_KINDS` for one network of LPIPS; None takes all."""
    metrics_dir: Path | None = None
    """Folder of the metrics' frozen networks; None is for metrics that need none."""
    device: str = "cpu"
    """Of the metrics; the systems are there already."""
    overwrite: bool = False
    """Start afresh where results are."""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ConfigError(f"task: expected mfr or sr16, got {self.task!r}")
        if self.batch < 1 or (self.limit is not None and self.limit < 1):
            raise ConfigError(f"expected a batch and a limit of at least 1, got {self}")
        known = known_metrics(self.task)
        for name in self.metrics or ():
            if name not in (*known, *LPIPS_KINDS):
                told = ", ".join((*known, *LPIPS_KINDS))
                raise ConfigError(f"metric {name!r}: not known for task {self.task}; known: {told}")

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every metric that is computed, in the order of the tables."""
        known = known_metrics(self.task)
        if self.metrics is None:
            return known
        asked = {"lpips" if name in LPIPS_KINDS else name for name in self.metrics}
        return tuple(name for name in known if name in asked)

    @property
    def judged(self) -> tuple[str, ...]:
        """What `metrics.judge` is asked for."""
        kinds = [name for name in self.metrics or () if name in LPIPS_KINDS]
        plain = [
            name for name in self.wanted if name in METRICS and not (kinds and name == "lpips")
        ]
        return (*plain, *kinds)

    @property
    def per_face(self) -> tuple[str, ...]:
        """Those of `wanted` that each face has."""
        return tuple(name for name in self.wanted if name not in (*SETS, THETA))


def known_metrics(task: Task) -> tuple[str, ...]:
    """Every metric that a task can be measured by, in the order of the tables."""
    own = SR16_ONLY if task == "sr16" else (GRID, THETA)
    return (*METRICS, *own, *SETS)
