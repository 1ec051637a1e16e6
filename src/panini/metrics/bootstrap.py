"""How sure is a mean over so many faces? Percentile intervals of 95 % from the bootstrap.

The faces are drawn anew, with replacement, as many as there are, and the middle 95 % of the means
of such draws are the interval (Efron 1979). Draws hang on the seed and the number of faces alone:
a report can be made again, and metrics of the same faces are drawn alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[np.floating] | NDArray[np.bool_]

_PERCENTILES = (2.5, 97.5)
_LEAST = 1e-12
"""A mean below is 0, of which nothing is a share."""
_FEW = 1 << 22
"""Numbers that are drawn at a time: bounds the memory whatever the set."""


@dataclass(frozen=True)
class Interval:
    """A mean, and where it may lie for other faces of the same kind."""

    mean: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    count: int
    """Faces with a value; without any, the other numbers are NaN."""


def mean_interval(values: Values, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Mean of a metric over faces.

    Args:
        values: One a face; NaNs are left out.
        seed: Of the draws.
        draws: How often the faces are drawn anew.
    """
    (column,) = _known(values)
    if not column.size:
        return _nothing()
    return _interval(float(column.mean()), _drawn_means((column,), seed, draws)[0], column.size)


def paired_interval(a: Values, b: Values, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Mean of a - b over the same faces: the change from b to a.

    Args:
        a: One a face; a face that is NaN here or in `b` is left out of both.
        b: The same faces in the same order.
        seed: Of the draws.
        draws: How often the faces are drawn anew.

    Raises:
        ValueError: The numbers of faces differ.
    """
    left, right = _known(a, b)
    return mean_interval(left - right, seed=seed, draws=draws)


def ratio_interval(a: Values, b: Values, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Mean of a over mean of b, over the same faces: 0.75 says that a is 25 % below b.

    Args:
        a: One a face, not negative; a face that is NaN here or in `b` is left out of both.
        b: The same faces in the same order.
        seed: Of the draws.
        draws: How often the faces are drawn anew.

    Returns:
        None of it (no faces) where the mean of b is 0.

    Raises:
        ValueError: The numbers of faces differ.
    """
    left, right = _known(a, b)
    if not left.size or right.mean() < _LEAST:
        return _nothing()
    above, below = _drawn_means((left, right), seed, draws)
    ratio = float(_ratio(left.mean(), right.mean()))
    return _interval(ratio, _ratio(above, below), left.size)


def _known(*columns: Values) -> list[NDArray[np.float64]]:
    """The columns without the faces that are NaN in one of them."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"expected one value a face, the same faces, got shapes {sorted(shapes)}")
    known = ~np.any([np.isnan(array) for array in arrays], axis=0)
    return [array[known] for array in arrays]


def _drawn_means(
    columns: Sequence[NDArray[np.float64]], seed: int, draws: int
) -> list[NDArray[np.float64]]:
    """Means (draws,) of each column (N,) over the same draws of the faces."""
    generator = np.random.default_rng(seed)
    count = columns[0].size
    step = max(1, _FEW // count)
    parts: list[list[NDArray[np.float64]]] = [[] for _ in columns]
    for start in range(0, draws, step):
        drawn = generator.integers(0, count, (min(step, draws - start), count))
        for part, column in zip(parts, columns, strict=True):
            part.append(column[drawn].mean(axis=1))
    return [np.concatenate(part) for part in parts]


def _ratio(a: NDArray[np.float64] | np.float64, b: NDArray[np.float64] | np.float64) -> NDArray:
    return np.asarray(a / np.maximum(b, _LEAST))


def _interval(mean: float, drawn: NDArray[np.float64], count: int) -> Interval:
    low, high = np.percentile(drawn, _PERCENTILES)
    return Interval(mean, float(low), float(high), count)


def _nothing() -> Interval:
    return Interval(math.nan, math.nan, math.nan, 0)
