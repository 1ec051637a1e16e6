"""Windows of a face, and how they look at the sizes at which losses compare."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from panini.data import to_float
from panini.models.prior import Window


def draw_window(side: int, generator: np.random.Generator) -> Window:
    """A random window of the 64 px feature; a face fills the frame, so all places count."""
    top, left = generator.integers(0, 64 - side, size=2, endpoint=True)
    return Window(top=int(top), left=int(left), side=side)


def truth_view(gt: Tensor, window: Window, scale: int) -> Tensor:
    """What `view` is compared with: whole uint8 faces (N, 3, S, S), S a multiple of 64."""
    return view(to_float(window.crop(gt)), window, scale, trimmed=True)


def view(image: Tensor, window: Window, scale: int, *, trimmed: bool) -> Tensor:
    """A window's image as it looks when the whole face is `scale` px, antialiased.

    Args:
        image: The window's part of a face at any size, (N, 3, S, S).
        window: The window.
        scale: Side of the whole face, px.
        trimmed: Cut off two cells at each side: there the convolutions saw the window's edge.
    """
    if trimmed and window.side < window.level:
        edge = image.shape[-1] // window.side * 2
        image = image[..., edge:-edge, edge:-edge]
    side = view_side(window.side, scale, trimmed=trimmed)
    if image.shape[-1] == side:
        return image
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)


def view_side(window: int, scale: int, *, trimmed: bool, level: int = 64) -> int:
    """Side of `view`'s result, px, for a window of so many cells."""
    cells = window - 4 if trimmed and window < level else window
    return round(scale * cells / level)


def crop_pair(
    first: Tensor, second: Tensor, side: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same random square of both, of `side` px or all there is."""
    last = first.shape[-1] - side
    if last <= 0:
        return first, second
    top, left = generator.integers(0, last, size=2, endpoint=True)
    area = (..., slice(top, top + side), slice(left, left + side))
    return first[area], second[area]
