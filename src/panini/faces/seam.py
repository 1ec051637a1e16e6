"""How visible the border of a pasted face is, as a number."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.faces.align import Matrix, apply, invert, rescale
from panini.faces.mask import SOLID, rays
from panini.images import RgbImage

_ARCS = 24  # The rim is looked at in so many pieces,
_RAYS_AN_ARC = 15  # each the mean of so many lines across it: one hair is no seam.
_STEPS = 24  # Points on a line.


@dataclass(frozen=True)
class Seam:
    """What crosses the rim of a mask, levels of 0..255 a px, mean over the rim."""

    step: float
    """Steepest rise that pasting added."""
    own: float
    """Steepest rise that the photo had there before."""

    @property
    def ratio(self) -> float:
        """Below 1 the photo itself hides the seam."""
        return self.step / max(self.own, 1e-6)


def seam_step(before: RgbImage, after: RgbImage, matrix: Matrix, side: int) -> Seam:
    """Measure the step across the border of a pasted face against the photo's own gradient.

    Lines run across the falling part of the mask. What pasting changed is averaged over an arc of
    the rim, so that restored detail cancels and a cast along the rim stays; its steepest rise on
    the way across is the arc's step. The photo's own gradient is the same of the photo itself.

    Args:
        before: uint8 (H, W, 3) RGB, the photo.
        after: uint8 (H, W, 3) RGB, with the face.
        matrix: From photo to crop.
        side: Side of that crop, px.

    Returns:
        Means over the part of the rim that lies in the photo, of the worst of the three channels;
        zeros when none does.
    """
    angles = np.linspace(0, 2 * np.pi, _ARCS * _RAYS_AN_ARC, endpoint=False)
    shares = np.linspace(SOLID - 0.05, 1.05, _STEPS)
    lines = rays(angles, shares)  # (A, T, 2)
    points = apply(invert(rescale(matrix, target=1 / side)), lines.reshape(-1, 2))
    points = points.reshape(lines.shape)
    limit = np.array(before.shape[1::-1])
    inside = np.all((points >= 0.5) & (points <= limit - 0.5), axis=(1, 2))
    shown = inside.reshape(_ARCS, -1).all(axis=1)
    if not shown.any():
        return Seam(0.0, 0.0)
    length = np.linalg.norm(points[:, -1] - points[:, 0], axis=1) / (_STEPS - 1)
    old, new = _sample(before, points), _sample(after, points)

    def steepest(values: NDArray[np.float32]) -> float:
        rise = np.diff(values, axis=1) / length[:, None, None]
        arcs = rise.reshape(_ARCS, _RAYS_AN_ARC, _STEPS - 1, 3).mean(axis=1)
        return float(np.abs(arcs[shown]).max(axis=1).mean(axis=0).max())

    return Seam(steepest(new - old), steepest(old))


def _sample(image: RgbImage, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values (A, T, 3) at continuous points (A, T, 2)."""
    low = np.maximum(np.floor(points.min(axis=(0, 1))).astype(int) - 2, 0)
    high = np.ceil(points.max(axis=(0, 1))).astype(int) + 2
    part = image[low[1] : max(high[1], 1), low[0] : max(high[0], 1)].astype(np.float32)
    x, y = np.moveaxis((points - low - 0.5).astype(np.float32), 2, 0)
    drawn = cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(drawn, np.float32)
