"""The part of an aligned crop that goes back into the photo: an egg around the face.

It is 1 over the face itself, falls smoothly over hair, neck and what is behind them, and is 0
before the crop's edges, so that no corner of the crop can show.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from panini.faces.align import TEMPLATE

CENTRE = np.array([0.5, (TEMPLATE[:2, 1].mean() + TEMPLATE[3:, 1].mean()) / 2])
"""(2,): between the eyes and the mouth, in shares of the crop's side."""

SOLID = 0.72
"""Share of the way from the centre to the rim up to which the mask is 1."""

# Shares of the crop's side. Solid, they reach from the hairline to the chin and to the ears.
_ASIDE, _UP, _DOWN = 0.44, 0.56, 0.37
_POWER = 2.5  # Between an ellipse (2) and a box: cheeks and jaw are wider than an ellipse.


@lru_cache(maxsize=4)
def face_mask(size: int) -> NDArray[np.float32]:
    """Weight of an aligned crop, (size, size) in [0, 1]."""
    axis = (np.arange(size) + 0.5) / size
    distance = _distance(axis[None, :] - CENTRE[0], axis[:, None] - CENTRE[1])
    ramp = np.clip((1 - distance) / (1 - SOLID), 0.0, 1.0)
    mask = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    mask.setflags(write=False)
    return mask


def rays(angles: NDArray[np.floating], shares: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points on lines from the mask's centre outwards.

    Args:
        angles: (A,) directions, radians.
        shares: (T,) of the way to the rim: 0 is the centre, at `SOLID` the mask begins to fall,
            at 1 it ends.

    Returns:
        (A, T, 2) in shares of the crop's side.
    """
    x, y = np.cos(angles), np.sin(angles)
    rim = np.stack([x, y], axis=1) / _distance(x, y)[:, None]
    return CENTRE + shares[None, :, None] * rim[:, None, :]


def _distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far from the centre to the rim a point lies that is (x, y) away from the centre."""
    height = np.where(y < 0, _UP, _DOWN)
    return ((np.abs(x) / _ASIDE) ** _POWER + (np.abs(y) / height) ** _POWER) ** (1 / _POWER)
