"""The four numbers that say what is done to an image, and ways to draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np

from panini.errors import ConfigError

_NUMBER = (int, float, np.integer, np.floating)
_BOUNDS = {"sigma": (0, 1000), "rate": (1, 1_000_000), "noise": (0, 1000), "jpeg": (0, 100)}
"""What `DegradationParams` accepts; the upper ends only keep out slips of the pen."""


@dataclass(frozen=True, kw_only=True)
class DegradationParams:
    """The four numbers of Eq. 10. The defaults leave an image as it is."""

    sigma: float = 0.0
    """Standard deviation of the isotropic Gaussian blur, px of the degraded image. 0 = no blur."""
    rate: float = 1.0
    """Downsampling factor r, at least 1: a side shrinks to `low_side(side)` and grows back."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise, levels of 0..255. 0 = no noise."""
    jpeg: int = 0
    """JPEG quality, 1..100. 0 = no compression."""

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            whole = name == "jpeg"
            # NaN fails the comparison.
            if not isinstance(value, _NUMBER) or not low <= value <= high or (whole and value % 1):
                kind = "whole number" if whole else "number"
                raise ConfigError(
                    f"degradation: expected {name} to be a {kind} in {low}..{high}, got {value!r}"
                )
            # Plain Python numbers, so that NumPy scalars print and serialise as numbers.
            object.__setattr__(self, name, int(value) if whole else float(value))

    @classmethod
    def from_low_side(
        cls,
        low_side: int,
        *,
        size: int = 512,
        sigma: float = 0.0,
        noise: float = 0.0,
        jpeg: int = 0,
    ) -> DegradationParams:
        """Parameters that take an image of side `size` down to exactly `low_side` px."""
        if not 1 <= low_side <= size:
            raise ConfigError(f"degradation: expected a low side in 1..{size}, got {low_side}")
        return cls(sigma=sigma, rate=size / low_side, noise=noise, jpeg=jpeg)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> DegradationParams:
        """The inverse of `to_dict`; exactly the four keys are accepted."""
        names = [field.name for field in fields(cls)]
        if set(numbers) != set(names):
            raise ConfigError(f"degradation: expected keys {names}, got {sorted(numbers)}")
        return cls(
            sigma=numbers["sigma"],
            rate=numbers["rate"],
            noise=numbers["noise"],
            jpeg=numbers["jpeg"],  # pyright: ignore[reportArgumentType]  checked in __post_init__
        )

    def to_dict(self) -> dict[str, float]:
        """The four numbers by name, ready for JSON."""
        return asdict(self)

    def low_side(self, side: int) -> int:
        """Length that a side of `side` px shrinks to, at least 1."""
        return max(1, round(side / self.rate))

    def __str__(self) -> str:
        return (
            f"r={self.rate:g} sigma={self.sigma:g} noise={self.noise:g} jpeg={self.jpeg or 'none'}"
        )


def blur_radius(sigma: float) -> int:
    """Half-width of the blur kernel, px: about four sigma, OpenCV's own choice for float images."""
    return round(8 * sigma + 1) // 2


@dataclass(frozen=True, kw_only=True)
class DegradationRange:
    """Intervals, ends included, from which `DegradationParams` are drawn independently.

    The defaults are those of the validation floor, see `sample_floor`.
    """

    low_side: tuple[int, int] = (16, 100)
    """Side that an image of side `size` is shrunk to, px; whole numbers are drawn."""
    low_side_law: Literal["uniform", "log"] = "uniform"
    """`log` draws every octave equally often, hence more strong degradations than `uniform`."""
    rate: tuple[float, float] | None = None
    """Downsampling factor, drawn uniformly in place of the low side, as the paper prints it."""
    sigma: tuple[float, float] = (0.5, 4.5)
    """Blur, px of the image of side `size`."""
    noise: tuple[float, float] = (0.0, 15.0)
    """Noise, levels of 0..255."""
    jpeg: tuple[int, int] = (50, 95)
    """JPEG quality; (0, 0) = no compression."""
    size: int = 512
    """Side of the images that are degraded, px."""

    def __post_init__(self) -> None:
        for name in ("low_side", "rate", "sigma", "noise", "jpeg"):
            low, high = getattr(self, name) or (1, 1)
            if low > high:
                raise ConfigError(f"degradation range: {name} runs from {low} down to {high}")
        if self.low_side_law not in ("uniform", "log"):
            raise ConfigError(
                f"degradation range: expected low_side_law uniform or log, got {self.low_side_law}"
            )
        if self.jpeg[0] < 1 and self.jpeg != (0, 0):
            raise ConfigError(f"degradation range: expected jpeg in 1..100, got {self.jpeg}")
        for end in (0, 1):  # the parameters know their own bounds
            DegradationParams(
                rate=self._rate_at(end),
                sigma=self.sigma[end],
                noise=self.noise[end],
                jpeg=self.jpeg[end],
            )

    def _rate_at(self, end: int) -> float:
        """Downsampling factor at an end; a low side that `rate` stands for need not fit."""
        if self.rate is not None:
            return self.rate[end]
        return DegradationParams.from_low_side(self.low_side[end], size=self.size).rate

    def sample(self, generator: np.random.Generator) -> DegradationParams:
        """Draw one set of parameters."""
        rate = (
            self.size / self._sample_low_side(generator)
            if self.rate is None
            else generator.uniform(*self.rate)
        )
        return DegradationParams(
            rate=rate,
            sigma=generator.uniform(*self.sigma),
            noise=generator.uniform(*self.noise),
            jpeg=int(generator.integers(*self.jpeg, endpoint=True)),
        )

    def _sample_low_side(self, generator: np.random.Generator) -> int:
        low, high = self.low_side
        if self.low_side_law == "uniform":
            return int(generator.integers(low, high, endpoint=True))
        # Half a pixel beyond both ends, so that the ends are as likely as their neighbours.
        drawn = math.exp(generator.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(max(round(drawn), low), high)


FLOOR_RANGE = DegradationRange()
"""The validation floor: what the shipped model is judged on."""

MEASURED_RANGE = DegradationRange(
    low_side=(10, 200), sigma=(0.5, 4.5), noise=(0.0, 25.0), jpeg=(50, 95)
)
"""What the authors' published example images were made with, as far as it can be measured."""


def sample_floor(generator: np.random.Generator) -> DegradationParams:
    """Draw from `FLOOR_RANGE`, for images of 512 px."""
    return FLOOR_RANGE.sample(generator)


def sample_measured(generator: np.random.Generator) -> DegradationParams:
    """Draw from `MEASURED_RANGE`, for images of 512 px."""
    return MEASURED_RANGE.sample(generator)


def sample_paper(generator: np.random.Generator) -> DegradationParams:
    """Draw from the ranges that the paper prints below Eq. 10, r read as a factor.

    r in [10, 200], noise in [0, 25], JPEG quality in [5, 50]. At 512 px this leaves a low side of
    51 down to 3 px: `DegradationParams.low_side` never goes below 1. The paper gives no range for
    the blur; [0.2, 10] is that of GFP-GAN, whose practice it says it follows.
    """
    return DegradationParams(
        rate=generator.uniform(10, 200),
        sigma=generator.uniform(0.2, 10),
        noise=generator.uniform(0, 25),
        jpeg=int(generator.integers(5, 50, endpoint=True)),
    )


SAMPLERS: dict[str, Callable[[np.random.Generator], DegradationParams]] = {
    "paper": sample_paper,
    "measured": sample_measured,
    "floor": sample_floor,
}
"""The named ways to draw parameters, as `panini degrade --preset` offers them."""
