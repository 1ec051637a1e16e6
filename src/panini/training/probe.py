"""What a degradation encoder knows: how well v_DR tells the degradation, and how little the face.

The paper claims both and gives no number. Here: R² of a linear probe for each number of Eq. 10 on
faces that the probe did not see, and how often the nearest vector under another degradation
belongs to the same face. Both are told of v_DR, which Panini-Net reads, and of the space in which
the contrastive loss compares: `calibrate` brings all axes of v_DR to one size, those too that
hardly counted there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from panini.data import resize, to_float
from panini.degradations import DegradationParams, degrade, sample_floor
from panini.errors import DataError
from panini.images import RgbImage
from panini.metrics.bootstrap import Interval, mean_interval, ratio_interval
from panini.models.degradation_encoder import DegradationEncoder

TARGETS = ("log2_low_side", "sigma", "noise", "jpeg")
RIDGES = tuple(10.0**power for power in range(-3, 5))
LEAST_FACES = 20

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (faces done, faces in all)."""


@dataclass(frozen=True, kw_only=True)
class SpaceReport:
    """What the vectors of one space tell."""

    r2: dict[str, float]
    """R² of a linear probe for each of `TARGETS`, on the half of the faces that it did not see."""
    same_face: float
    """Share of faces whose nearest vector under another degradation is their own."""
    intervals: dict[str, Interval]
    """The same with 95 % intervals from the bootstrap over faces: `TARGETS` and "same_face"."""


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What `probe` found."""

    faces: int
    views: int
    """Degradations under which each was seen."""
    v_dr: SpaceReport
    contrast: SpaceReport
    """After the projection head."""
    chance: float
    """What `same_face` would be if the vectors knew nothing of the face."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def probe(
    encoder: DegradationEncoder,
    faces: Sequence[RgbImage],
    *,
    sampler: Callable[[np.random.Generator], DegradationParams] = sample_floor,
    size: int = 512,
    views: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeReport:
    """Probe v_DR on faces under several random degradations each.

    Args:
        encoder: In eval mode.
        faces: Square uint8 RGB faces of different people, at least `LEAST_FACES`.
        sampler: Draws what is done to a face.
        size: Side at which faces are degraded, px.
        views: Degradations of each face, at least 2. The probe needs several times as many
            vectors as v_DR has numbers, or it tells less than there is.
        seed: Of the degradations.
        progress: Told of every face.

    Raises:
        DataError: Too few faces.
    """
    if len(faces) < LEAST_FACES:
        raise DataError(f"a probe needs at least {LEAST_FACES} faces, got {len(faces)}")
    values, projected, numbers = [], [], []
    for index, face in enumerate(faces):
        whole = resize(face, size)
        images, params = [], []
        for draw in range(views):
            generator = np.random.default_rng([seed, index, draw])
            params.append(sampler(generator))
            images.append(degrade(whole, params[-1], generator))
        vectors, after = _encode(encoder, images)
        values.append(vectors)
        projected.append(after)
        numbers.append([_numbers(entry, size) for entry in params])
        if progress is not None:
            progress(index + 1, len(faces))
    targets = np.array(numbers)  # (faces, views, 4)
    return ProbeReport(
        faces=len(faces),
        views=views,
        v_dr=_report(np.stack(values), targets),
        contrast=_report(np.stack(projected), targets),
        chance=1 / len(faces),
    )


def _report(vectors: Floats, targets: Floats) -> SpaceReport:
    """Both measures for vectors (faces, views, dim) and numbers (faces, views, 4)."""
    found = {name: _probe_r2(vectors, targets[..., i]) for i, name in enumerate(TARGETS)}
    r2 = {name: interval.mean for name, interval in found.items()}
    found["same_face"] = mean_interval(_same_face(vectors))
    return SpaceReport(r2=r2, same_face=found["same_face"].mean, intervals=found)


@torch.inference_mode()
def _encode(encoder: DegradationEncoder, images: list[RgbImage]) -> tuple[Floats, Floats]:
    """v_DR, and where the loss compares: normalised after the head; (N, dim) both."""
    device = next(encoder.parameters()).device
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    vectors = encoder(to_float(batch))
    projected = torch.nn.functional.normalize(encoder.project(vectors), dim=1)
    return vectors.double().cpu().numpy(), projected.double().cpu().numpy()


def _numbers(params: DegradationParams, size: int) -> tuple[float, float, float, float]:
    return math.log2(params.low_side(size)), params.sigma, params.noise, float(params.jpeg)


def _probe_r2(vectors: Floats, target: Floats) -> Interval:
    """R² on the second half of the faces; the ridge is chosen within the first.

    0 where there is nothing to tell, because all targets are equal.
    """
    half, part = len(vectors) // 2, 2 * len(vectors) // 5
    errors = [
        _errors(vectors[:part], target[:part], vectors[part:half], target[part:half], ridge).mean()
        for ridge in RIDGES
    ]
    best = RIDGES[int(np.argmin(errors))]
    error = _errors(vectors[:half], target[:half], vectors[half:], target[half:], best)
    spread = ((target[half:] - target[half:].mean()) ** 2).mean(axis=1)
    if not spread.any():
        return Interval(0.0, 0.0, 0.0, len(spread))
    left = ratio_interval(error, spread)
    return Interval(1 - left.mean, 1 - left.high, 1 - left.low, left.count)


def _errors(x: Floats, y: Floats, new_x: Floats, new_y: Floats, ridge: float) -> Floats:
    """Squared error a new face, (faces,), of a ridge regression on standardised vectors."""
    x, flat = x.reshape(-1, x.shape[-1]), new_x.reshape(-1, x.shape[-1])
    mean, deviation = x.mean(0), x.std(0) + 1e-12
    x, flat = (x - mean) / deviation, (flat - mean) / deviation
    y = y.reshape(-1)
    gram = x.T @ x + ridge * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - y.mean()))
    told = (flat @ weights + y.mean()).reshape(new_y.shape)
    return ((told - new_y) ** 2).mean(axis=1)


def _same_face(vectors: Floats) -> Floats:
    """Whether a face's first view has its own second view nearest, 0 or 1, (faces,)."""
    first, second = vectors[:, 0], vectors[:, 1]
    # Squared distances but for a constant a row, (faces, faces).
    distance = (second**2).sum(1)[None] - 2 * first @ second.T
    return (distance.argmin(axis=1) == np.arange(len(vectors))).astype(np.float64)
