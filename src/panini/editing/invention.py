"""The invention map: how much of each pixel the photo does not support.

Two components, both in levels of 0..255:

    spread        V: standard deviation over equally plausible faces (result and variations)
    unsupported   U = √(A² + C²)
                  A: detail of the result that is finer than the input's own resolution
                  C: what the result has at that resolution beyond the input, less its noise

and the map  I = 1 - exp(-√(V² + U²) / 16),  0 where the photo tells all, towards 1 where nothing
of it is left: 6 levels give 0.31, 16 give 0.63, 40 give 0.92.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.editing.evidence import LEAST_SIDE, Evidence, Levels, low_band, shrink
from panini.faces.mask import face_mask
from panini.images import RgbImage

SCALE = 16.0
"""Levels at which the map reaches 1 - 1/e."""

FORMULA = "1 - exp(-sqrt(spread^2 + added^2 + contradiction^2) / 16), all in levels of 255"

_WINDOW = 1 / 96  # Standard deviation of the local mean, in shares of the face's side.
_NEAR = 0.75  # The same for the comparison with the input, in pixels of a band's coarse side.

Map = NDArray[np.float32]
"""float32 (H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Invention:
    """Where a face was invented; every map is (size, size), as large as the result."""

    map: Map
    """[0, 1): 0 is held by the photo."""
    spread: Map
    """V, levels."""
    added: Map
    """A, levels."""
    contradiction: Map
    """C, levels."""

    @property
    def unsupported(self) -> Map:
        """U = √(A² + C²), levels."""
        return np.hypot(self.added, self.contradiction)

    @property
    def mean(self) -> float:
        """Mean of the map over the part of the crop that goes back into the photo."""
        return self.mean_of(self.map)

    def mean_of(self, values: Map) -> float:
        """Mean of any map of the face over the part that goes back into the photo."""
        weight = face_mask(values.shape[0])
        return float((values * weight).sum(dtype=np.float64) / weight.sum(dtype=np.float64))


def invention_map(
    evidence: Evidence, restored: RgbImage, variations: Sequence[RgbImage]
) -> Invention:
    """Compare a restored face with its variations and with what its input holds.

    Args:
        evidence: Of the input.
        restored: uint8 (size, size, 3) RGB.
        variations: At least one, like `restored`.

    Returns:
        The map and its components.
    """
    result = restored.astype(np.float32)
    spread = spread_of(restored, variations)
    added = np.sqrt(_local_mean(_power(result - low_band(result, evidence.side))))
    contradiction = _contradiction(evidence, result)
    total = np.sqrt(spread**2 + added**2 + contradiction**2)
    return Invention(
        map=1 - np.exp(-total / np.float32(SCALE)),
        spread=spread,
        added=added,
        contradiction=contradiction,
    )


def spread_of(restored: RgbImage, variations: Sequence[RgbImage]) -> Map:
    """V: local standard deviation over a face and its variations, (size, size) levels.

    Args:
        restored: uint8 (size, size, 3) RGB.
        variations: At least one, like `restored`.
    """
    result = restored.astype(np.float32)
    # Differences from the result keep float32 exact enough for sums.
    total = np.zeros_like(result)
    squares = np.zeros_like(result)
    for picture in variations:
        change = picture.astype(np.float32) - result
        total += change
        squares += change**2
    count = len(variations) + 1
    variance = (squares - total**2 / count) / (count - 1)
    return np.sqrt(_local_mean(variance.clip(min=0).mean(axis=2)))


def _contradiction(evidence: Evidence, result: Levels) -> Map:
    """What the result has at the input's resolution beyond the input, but for light and noise.

    The result may have less of the input's detail: softness loses, it does not invent. So in each
    octave the result is compared with the nearest faded input, g times it with g in [0, 1]. What
    is coarser than `LEAST_SIDE` is light and colour of the whole face, and is left out.
    """
    side = evidence.side
    drawn, given = _octaves(shrink(result, side)), _octaves(evidence.face)
    total = np.zeros((side, side), np.float32)
    for (coarse, fine, x), (_, _, y) in zip(drawn, given, strict=True):
        reach = _NEAR * side / coarse
        both, own, input_power = (
            cv2.GaussianBlur((p * q).mean(axis=2), (0, 0), reach)
            for p, q in ((x, y), (x, x), (y, y))
        )
        noise = evidence.noise**2 * (fine**2 - coarse**2) / side**2
        fade = (both / np.maximum(input_power, 1e-6)).clip(0, 1)
        distance = own - 2 * fade * both + fade**2 * (input_power - noise)
        total += distance.clip(min=0)
    size = result.shape[0]
    smooth = cv2.resize(total, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.sqrt(smooth).astype(np.float32)


def _octaves(image: Levels) -> Iterator[tuple[int, int, Levels]]:
    """Bands of an image (S, S, 3) from `LEAST_SIDE` to S: coarse side, fine side, band."""
    side, coarse = image.shape[0], LEAST_SIDE
    low = low_band(image, coarse)
    while coarse < side:
        fine = min(2 * coarse, side)
        next_low = low_band(image, fine)
        yield coarse, fine, next_low - low
        coarse, low = fine, next_low


def _power(values: Levels) -> Map:
    return np.square(values).mean(axis=2)


def _local_mean(values: Map) -> Map:
    blurred = cv2.GaussianBlur(values, (0, 0), max(0.5, values.shape[0] * _WINDOW))
    return np.asarray(blurred, np.float32)
