"""Does the restored face still show the same person?"""

from __future__ import annotations

from torch import Tensor

from panini.features.identity import IdentityNet
from panini.metrics.psnr import check_pair


def identity_distance(network: IdentityNet, restored: Tensor, gt: Tensor) -> Tensor:
    """Euclidean distance of the face descriptors; below about 0.6 it is the same person.

    Args:
        network: The frozen descriptor network.
        restored: FFHQ-aligned RGB faces in [-1, 1], (N, 3, S, S).
        gt: The same for the truth.

    Returns:
        (N,), 0 for equal images.

    Raises:
        ValueError: The shapes differ.
    """
    check_pair(restored, gt)
    return (network.describe(restored) - network.describe(gt)).norm(dim=1)
