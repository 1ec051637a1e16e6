"""What an evaluation found: rows of faces, means with intervals, changes against the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panini.evaluation.plan import THETA, Plan
from panini.evaluation.results import FaceRow
from panini.metrics import DESCRIPTIONS, Description
from panini.metrics.bootstrap import Interval, mean_interval, paired_interval, ratio_interval

MILD_FROM = 50
"""Low side of the resize, px, from which a degradation counts as mild."""

GROUPS: Mapping[str, Callable[[FaceRow], bool]] = {
    "all": lambda _: True,
    "mild": lambda row: row.low_side is not None and row.low_side >= MILD_FROM,
    "severe": lambda row: row.low_side is not None and row.low_side < MILD_FROM,
}
"""Group of faces → whether a face is in it."""


@dataclass(frozen=True, kw_only=True)
class ThetaResult:
    """θ of every face over rising downsampling rates, all else equal."""

    rates: tuple[int, ...]
    thetas: dict[str, list[float]]
    """Key → θ, one for each of `rates`."""

    @property
    def means(self) -> list[float]:
        """Mean θ a rate."""
        return np.mean(list(self.thetas.values()), axis=0).tolist()

    @property
    def deviations(self) -> list[float]:
        """Standard deviation of θ over the faces, a rate."""
        return np.std(list(self.thetas.values()), axis=0).tolist()

    @property
    def intervals(self) -> list[Interval]:
        """Mean θ a rate with its 95 % interval."""
        columns = zip(*self.thetas.values(), strict=True)
        return [mean_interval(column) for column in columns]

    @property
    def rising(self) -> float:
        """Share of the faces whose θ rises at every step."""
        return self.rising_interval.mean

    @property
    def rising_interval(self) -> Interval:
        """That share with its 95 % interval."""
        return mean_interval(rises(list(self.thetas.values())))


def rises(over_rates: ArrayLike) -> NDArray[np.bool_]:
    """Whether θ, (faces, rates), rises at every step, (faces,)."""
    return np.all(np.diff(over_rates, axis=1) > 0, axis=1)


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """How far a system's faces, as a set, are from the truths, and how sure that is."""

    interval: Interval
    """The distance, and 1.96 deviations to each side: see `metrics.distribution.spread`."""
    subsets: float | None = None
    """Of kernel distances: deviation of one subset's estimate, see `KernelDistance`."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Several systems over the same faces."""

    plan: Plan
    """What was asked."""
    systems: list[str]
    """In the order of the tables; the first is the input."""
    rows: dict[str, list[FaceRow]]
    """System → its faces, in the order of the data."""
    set_distances: dict[str, dict[str, SetDistance]] = field(default_factory=dict)
    """System → distances of its faces, as a set, from the truth; named with their network."""
    theta: dict[str, ThetaResult] = field(default_factory=dict)
    """System → θ over the rates; only those that tell θ."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Metric → what it is called with the weights at hand: "lpips" → "lpips_vgg_caffe"."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Step → seconds of this call."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What each face has, in the order of the tables."""
        return self.plan.per_face

    @property
    def sets(self) -> dict[str, dict[str, float]]:
        """`set_distances` without their intervals."""
        return {
            name: {of: found.interval.mean for of, found in own.items()}
            for name, own in self.set_distances.items()
        }

    @property
    def totals(self) -> tuple[str, ...]:
        """What has a mean: `metrics`, and θ where a system tells it."""
        told = any(np.isfinite(row.theta) for rows in self.rows.values() for row in rows)
        return (*self.metrics, THETA) if told else self.metrics

    @property
    def gt_sharpness(self) -> Interval:
        """Mean sharpness of the truths."""
        return mean_interval([row.gt_sharpness for row in self.rows[self.input]])

    @property
    def input(self) -> str:
        """The system that all others are compared with."""
        return self.systems[0]

    @property
    def groups(self) -> list[str]:
        """Groups that hold faces: "all"; "mild" and "severe" where the degradation is known."""
        rows = self.rows[self.input]
        return [name for name, inside in GROUPS.items() if any(map(inside, rows))]

    def describe(self, metric: str) -> Description:
        """Label, unit and direction of a metric, with the weights at hand."""
        return DESCRIPTIONS[self.names.get(metric, metric)]

    def values(self, system: str, metric: str, group: str = "all") -> list[float]:
        """One of `totals` of every face of a group, in the order of the data."""
        rows = [row for row in self.rows[system] if GROUPS[group](row)]
        return [row.theta if metric == THETA else row.scores[metric] for row in rows]

    def mean(self, system: str, metric: str, group: str = "all") -> Interval:
        """Mean over a group's faces."""
        return mean_interval(self.values(system, metric, group))

    def change(self, system: str, metric: str, group: str = "all") -> Interval:
        """Mean difference from the input, over the same faces."""
        return paired_interval(
            self.values(system, metric, group), self.values(self.input, metric, group)
        )

    def ratio(self, system: str, metric: str, group: str = "all") -> Interval:
        """Mean over the input's mean: 0.75 says 25 % below it."""
        return ratio_interval(
            self.values(system, metric, group), self.values(self.input, metric, group)
        )
