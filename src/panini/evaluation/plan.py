"""What is asked of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from panini.errors import ConfigError
from panini.evaluation.sizes import COMPARED_SIZE, GT_SIZE
from panini.metrics.judge import LPIPS_KINDS, METRICS
from panini.models.panini_net import Task

FULL_SIZE = "psnr_full"
"""PSNR at the truth's own size; of mfr it is measured only if it is asked for by name."""
SR16_ONLY = (FULL_SIZE, "faithfulness")
SETS = ("fid", "kid")
"""Metrics of a whole set: another network looks at every face, and they mean little for few."""
THETA = "theta"
"""The test of θ over rising rates; only of mfr."""
GRID = "grid"
"""Strength of an 8 px lattice in a face at its full size; only of mfr."""

Degradations = Literal["floor", "paper"]
"""Ranges that a face's degradation is drawn from, see `degradations.SAMPLERS`."""


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
    degradations: Degradations = "floor"
    """What mfr's faces are degraded by: "floor" is what shipped weights are judged on, "paper" what
    the paper prints, which is far stronger. Only "floor" for sr16 and ready inputs."""
    limit: int | None = None
    """Only the first so many faces; None takes all."""
    batch: int = 2
    """Faces at a time."""
    size: int = COMPARED_SIZE
    """Side at which faces are compared with their truth, px; the paper's is 1024. Truths must be at
    least as large, and `GT_SIZE` is the most."""
    metrics: tuple[str, ...] | None = None
    """Some of `known_metrics`, or of `LPIPS_KINDS` for one network of LPIPS; None takes all. Of mfr
    `FULL_SIZE` may be named as well."""
    metrics_dir: Path | None = None
    """Folder of the metrics' frozen networks; None is for metrics that need none."""
    device: str = "cpu"
    """Of the metrics; the systems are there already."""
    overwrite: bool = False
    """Start afresh where results are."""
    remedy: str | None = None
    """What errors advise where `out` holds something else or is damaged; None names `overwrite`."""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ConfigError(f"task: expected mfr or sr16, got {self.task!r}")
        if self.batch < 1 or (self.limit is not None and self.limit < 1):
            raise ConfigError(f"expected a batch and a limit of at least 1, got {self}")
        if not COMPARED_SIZE <= self.size <= GT_SIZE:
            raise ConfigError(
                f"size: expected a side from {COMPARED_SIZE} to {GT_SIZE} px, got {self.size}"
            )
        self._check_degradations()
        known = (*askable_metrics(self.task), *LPIPS_KINDS)
        for name in self.metrics or ():
            if name not in known:
                told = ", ".join(known)
                raise ConfigError(f"metric {name!r}: not known for task {self.task}; known: {told}")

    def _check_degradations(self) -> None:
        if self.degradations not in get_args(Degradations):
            raise ConfigError(f"degradations: expected floor or paper, got {self.degradations!r}")
        if self.degradations != "floor" and (self.task != "mfr" or self.lq is not None):
            where = "task sr16" if self.task != "mfr" else f"the ready inputs {self.lq}"
            raise ConfigError(
                f"degradations: {self.degradations} is for faces of task mfr that are degraded "
                f"here, not for {where}; leave it out"
            )

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every metric that is computed, in the order of the tables."""
        if self.metrics is None:
            return known_metrics(self.task)
        asked = {"lpips" if name in LPIPS_KINDS else name for name in self.metrics}
        return tuple(name for name in askable_metrics(self.task) if name in asked)

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
    """Every metric that a task is measured by if none is named, in the order of the tables."""
    own = SR16_ONLY if task == "sr16" else (GRID, THETA)
    return (*METRICS, *own, *SETS)


def askable_metrics(task: Task) -> tuple[str, ...]:
    """Every metric of a task that may be named, in the order of the tables."""
    known = known_metrics(task)
    return known if FULL_SIZE in known else (*METRICS, FULL_SIZE, *known[len(METRICS) :])
