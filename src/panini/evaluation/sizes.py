"""At which sizes faces are degraded, given to systems and compared."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

DEGRADED_SIZE = 512
"""Side at which faces are degraded, and that a system for mfr is given, px."""
COMPARED_SIZE = 256
"""Side at which faces are compared with their truth if no other is asked for, px."""
LQ_SIZE = 64
"""Side that a system for sr16 is given, px."""
GT_SIZE = 1024
"""Largest side of a truth, px."""


def resize(images: Tensor, size: int) -> Tensor:
    """Bring square images to a side; reduction averages areas, so nothing aliases."""
    side = images.shape[-1]
    if side == size:
        return images
    if side > size:
        return F.interpolate(images, size=(size, size), mode="area")
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False)
