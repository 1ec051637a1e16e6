"""Does a generator leave its own lattice in the picture?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from panini.metrics.sharpness import LUMA


def grid_amplitude(images: Tensor, period: int = 8) -> Tensor:
    """Strength of a pattern that repeats every `period` px: what is seen as grid or weave.

    The luma without its local mean (a box of one period) is averaged over all tiles of
    `period` x `period` px: a face leaves next to nothing, a lattice of that period, or of one that
    divides it, stays. A photo has less than 0.1 levels; below one level nobody sees it.

    Args:
        images: RGB in [-1, 1], (N, 3, H, W), at least 8 periods a side.
        period: Period to look for, px, even.

    Returns:
        Root mean square of the mean tile, in levels of 0..255, (N,).

    Raises:
        ValueError: The images are too small for the period.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 8 * period:
        raise ValueError(
            f"expected images (N, 3, H, W) of at least {8 * period} px, got {tuple(images.shape)}"
        )
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1) * 127.5
    luma = (images.float() * weights).sum(dim=1, keepdim=True)
    # Columns, then rows: the same box, in a quarter of the additions.
    box = F.avg_pool2d(F.avg_pool2d(luma, (period, 1), stride=1), (1, period), stride=1)
    # An even box sits half a pixel off; the mean of two, one on each side, is centred.
    mean = F.avg_pool2d(box, 2, stride=1)
    margin = period // 2
    residual = luma[:, :, margin:-margin, margin:-margin] - mean
    height, width = (side // period * period for side in residual.shape[2:])
    tiles = residual[:, 0, :height, :width].unflatten(2, (-1, period)).unflatten(1, (-1, period))
    # The median is deaf to the few tiles where the face's own edges are strong.
    tile = tiles.permute(0, 2, 4, 1, 3).flatten(3).median(dim=3).values
    tile = tile - tile.mean(dim=(1, 2), keepdim=True)
    return tile.square().mean(dim=(1, 2)).sqrt()
