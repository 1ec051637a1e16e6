"""What a degraded face can be evidence of: its own resolution, and agreement with it.

A blurred face of 512 px does not hold 512 px of detail. Its *own resolution* is the side in px
to which it can be shrunk and grown again before anything but noise is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.images import RgbImage
from panini.restored import RestoredFace

Levels = NDArray[np.float32]
"""float32 (H, W, 3) RGB in levels of 0..255, or (H, W)."""

VISIBLE = 1.5
"""Levels, RMS: detail of a band that is weaker than this is not seen, and no evidence."""

LEAST_SIDE = 8
"""Side in px of the coarsest band: light and colour of the whole face."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NORMAL_MEDIAN = 0.6745  # Median of the absolute value of a standard normal number.


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the input of one face holds."""

    side: int
    """Its own resolution, px."""
    noise: float
    """Standard deviation of the noise that is left in `face`, levels."""
    face: Levels
    """The input, shrunk to its own resolution, (side, side, 3)."""

    def error(self, image: Levels) -> Levels:
        """What an image of the face, at the input's own resolution, has and the input has not.

        Args:
            image: (H, W, 3) levels, square, at least `side` px.

        Returns:
            (side, side, 3) levels.
        """
        return shrink(image, self.side) - self.face

    def agreement(self, image: Levels) -> float:
        """PSNR between an image of the face and the input, at the input's own resolution, dB.

        At most 100, so that equal images have a number.
        """
        return min(100.0, 20 * math.log10(255 / max(rms(self.error(image)), 1e-9)))


def evidence_of(face: RestoredFace) -> Evidence:
    """Find out what the input of a face holds.

    The photo's own pixels are an upper bound: a crop of 60 px that was enlarged to 512 px holds
    60 px at most, whatever the enlargement's edges pretend.
    """
    lq = np.asarray(face.lq.convert("RGB"))
    side, noise = own_resolution(lq)
    enlarged = math.sqrt(abs(float(np.linalg.det(face.matrix[:, :2]))))
    in_photo = face.restored.width / enlarged
    side = max(LEAST_SIDE, min(side, round(in_photo)))
    return Evidence(side=side, noise=noise, face=shrink(lq.astype(np.float32), side))


def own_resolution(lq: RgbImage) -> tuple[int, float]:
    """Own resolution of a square image, by bands of half an octave, from coarse to fine.

    Detail of a picture is sparse, noise is everywhere. So in each band the median tells the
    noise, and what the energy has beyond it is detail. The first band whose detail is below
    `VISIBLE` ends the search: no evidence lies above it.

    Args:
        lq: uint8 (S, S, 3) RGB.

    Returns:
        The side in px, right to a factor of about √2, but up to twice too high where enlarged
        pixels left their edges; and the standard deviation of the noise that an image shrunk to
        it still has, levels.
    """
    luma = lq.astype(np.float32) @ _LUMA
    full = luma.shape[0]
    steps = int(2 * math.log2(full / LEAST_SIDE)) + 1 if full >= LEAST_SIDE else 1
    sides = [round(full / 2 ** (step / 2)) for step in range(steps)]
    margin = full // 32
    own, coarse = sides[-1], enlarge(shrink(luma, sides[-1]), full)
    for side in reversed(sides[:-1]):
        fine = enlarge(shrink(luma, side), full)
        band = (fine - coarse)[margin : full - margin, margin : full - margin]
        noise = float(np.median(np.abs(band))) / _NORMAL_MEDIAN
        detail = max(0.0, rms(band) ** 2 - noise**2)
        if math.sqrt(detail) < VISIBLE:
            # White noise has the energy of this band in all bands below it together.
            return own, min(noise, rms(band))
        own, coarse = side, fine
    return own, 0.0


def shrink(image: Levels, side: int) -> Levels:
    """A square image by its area means, (side, side, …)."""
    if image.shape[0] == side:
        return image
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def enlarge(image: Levels, side: int) -> Levels:
    """A square image, smoothly, (side, side, …)."""
    if image.shape[0] == side:
        return image
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def low_band(image: Levels, side: int) -> Levels:
    """The part of an image (H, H, …) that `side` px can hold, (H, H, …)."""
    return enlarge(shrink(image, side), image.shape[0])


def rms(values: NDArray[np.floating]) -> float:
    """Root of the mean square."""
    return math.sqrt(float(np.mean(np.square(values, dtype=np.float32), dtype=np.float64)))
