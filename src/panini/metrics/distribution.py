"""How far apart are two sets of faces? Distances between the distributions of their features.

FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018) are defined by the official Inception. On
other features the same formulas give other numbers, so a result carries the network's name:
`fid_inception` is FID, `fid_vgg16_caffe` is not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from panini.features.inception import build_inception
from panini.features.vgg16 import VGG16, load_vgg16
from panini.metrics.psnr import stored
from panini.metrics.weights import FILES, digest, find_weights, read_tensors

Features = NDArray[np.float64]

VGG_SIDE = 224
"""Side at which VGG-16 sees an image, px: that of its training."""
_HALVES = (20, 100)
"""Fewest and most halves of a set, see `spread`."""
_HALVED = 20_000
"""Faces in all of them together, about: bounds the time of large sets."""


class FeatureNetwork:
    """A frozen network that describes images.

    Args:
        name: Part of the results' names: "inception" or "vgg16_caffe".
        network: (N, 3, H, W) in [-1, 1] → (N, D).
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name = name
        self.network = network.eval()
        self.device = torch.device("cpu")

    @cached_property
    def digest(self) -> str:
        """Tells the network from another of the same name."""
        return digest(self.network)

    def to(self, device: torch.device | str) -> FeatureNetwork:
        """Move the network."""
        self.network.to(device)
        self.device = torch.device(device)
        return self

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        """Describe images as they would be stored: rounded to 8 bits.

        Args:
            images: RGB in [-1, 1], or uint8, (N, 3, H, W) of any size.

        Returns:
            (N, D): D is 2048 of Inception, 512 of VGG-16.
        """
        return self.network(stored(images.to(self.device))).cpu().double().numpy()


class KernelDistance(NamedTuple):
    """KID: mean and deviation over subsets."""

    mean: float
    deviation: float
    """Standard deviation of one subset's estimate, not of the mean."""


def load_feature_network(
    folder: str | Path | None, device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """The official Inception where its file is in a folder, else Caffe's VGG-16.

    Args:
        folder: Of the metrics' networks; None or "" where none was named, which is an error.
        device: Where the network goes.

    Raises:
        CheckpointError: Neither is there, or the file is damaged or another network's.
    """
    folder = Path(folder) if folder else None
    if path := FILES["inception"].find(folder):
        network = FeatureNetwork("inception", build_inception(read_tensors(path), path))
    else:
        metric = "a distance of sets (fid or kid)"
        path = find_weights(folder, "vgg16_caffe", metric, instead="inception")
        network = FeatureNetwork("vgg16_caffe", _PooledVgg(load_vgg16(path)))
    # A sixth faster on a CPU.
    network.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.to(device)


def frechet_distance(a: Features, b: Features) -> float:
    """Squared Fréchet distance between the normal distributions that fit two sets.

    |μa - μb|² + tr(Ca + Cb - 2 (Ca Cb)^½). The trace of the root is the sum of the singular values
    of A Bᵀ, where A and B are the centred sets over the root of their size less one: no root of a
    matrix is taken, and fewer images than features are no special case. A small set still biases
    the distance upwards: compare only sets of one size.

    Args:
        a: Features of one set, (N, D).
        b: Of the other, (M, D).

    Raises:
        ValueError: Fewer than two images, or different widths.
    """
    _check(a, b)
    gap = a.mean(axis=0) - b.mean(axis=0)
    left, right = _scatter(a), _scatter(b)
    shared = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    distance = gap @ gap + np.sum(left**2) + np.sum(right**2) - 2 * shared
    return max(float(distance), 0.0)


def kernel_distance(
    a: Features, b: Features, *, seed: int = 0, subsets: int = 100, size: int | None = None
) -> KernelDistance:
    """KID: squared maximum mean discrepancy under the kernel (x·y / D + 1)³, unbiased.

    Args:
        a: Features of one set, (N, D).
        b: Of the other, (M, D).
        seed: Of the subsets.
        subsets: How many are drawn from each set; the mean over them is the distance.
        size: Images in a subset; None takes 1000, but at most half of the smaller set.

    Raises:
        ValueError: Too few images, or different widths.
    """
    _check(a, b)
    fewest = min(len(a), len(b))
    size = max(2, min(1000, fewest // 2)) if size is None else size
    if not 2 <= size <= fewest:
        raise ValueError(f"expected subsets of 2 to {fewest} images, got {size}")
    generator = np.random.default_rng(seed)
    found = [
        _discrepancy(
            a[generator.choice(len(a), size, replace=False)],
            b[generator.choice(len(b), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(found)), float(np.std(found)))


def spread(
    distance: Callable[[Features, Features], float], own: Features, true: Features, *, seed: int = 0
) -> float:
    """How far a distance of sets may be off for other faces of the same kind: its deviation.

    The distance is taken of random halves of the faces, the same faces of both sets, and scaled to
    all of them (delete-d jackknife, Shao and Wu 1989). Not the bootstrap: a face that is drawn
    twice tells nothing new, so the Fréchet distance of such a draw is biased upwards, and the
    middle of the draws may lie beside the distance itself. That of a half is biased as well, all
    halves alike, and only their deviation is used; of far fewer faces than features it is too large
    rather than too small. The bias of a small set is not in it.

    Args:
        distance: Of (N, D) and (N, D).
        own: Features of the restored faces, (N, D).
        true: Of their truths in the same order, (N, D).
        seed: Of the halves.

    Returns:
        Standard error of the distance; NaN of fewer than 4 faces.

    Raises:
        ValueError: The sets are not of the same faces.
    """
    if own.shape != true.shape:
        raise ValueError(f"expected the same faces in both sets, got {own.shape} and {true.shape}")
    count = len(own)
    half = count // 2
    if half < 2:
        return float("nan")
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(int(np.clip(_HALVED // count, *_HALVES))):
        drawn = generator.choice(count, half, replace=False)
        found.append(distance(own[drawn], true[drawn]))
    return float(np.std(found, ddof=1) * np.sqrt(half / (count - half)))


class _PooledVgg(nn.Module):
    """Mean of relu5_3 over an image brought to 224 px, (N, 512)."""

    def __init__(self, vgg: VGG16) -> None:
        super().__init__()
        self.vgg = vgg

    def forward(self, images: Tensor) -> Tensor:
        side = (VGG_SIDE, VGG_SIDE)
        x = F.interpolate(images, side, mode="bilinear", align_corners=False, antialias=True)
        return self.vgg(x, ["relu5_3"])["relu5_3"].mean(dim=(2, 3))


def _scatter(features: Features) -> Features:
    """A matrix whose AᵀA is the covariance, with no more rows than columns."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _discrepancy(a: Features, b: Features) -> float:
    """Unbiased estimate from two subsets of one size: no image is compared with itself."""
    count, width = a.shape
    within = 0.0
    for x in (a, b):
        kernel = (x @ x.T / width + 1) ** 3
        within += (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
    return float(within - 2 * ((a @ b.T / width + 1) ** 3).mean())


def _check(a: Features, b: Features) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "expected features (N, D) and (M, D) of at least two images each, "
            f"got {a.shape} and {b.shape}"
        )
