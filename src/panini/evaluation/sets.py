"""Distances between sets: all faces of a system against all truths."""

from __future__ import annotations

import logging
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from panini.data import resize_batch
from panini.errors import DataError
from panini.evaluation.cases import READERS, Cases, ahead
from panini.evaluation.plan import SETS, Plan
from panini.evaluation.report import SetDistance
from panini.evaluation.results import Results
from panini.images import RgbImage, to_tensor, write_whole
from panini.metrics.bootstrap import Interval
from panini.metrics.distribution import (
    FeatureNetwork,
    Features,
    frechet_distance,
    kernel_distance,
    load_feature_network,
    spread,
)

logger = logging.getLogger(__name__)

_NORMAL_95 = 1.96  # Deviations to each side that hold 95 % of a normal distribution.


@dataclass(frozen=True)
class _Described:
    """A whole set of faces."""

    features: Features
    """(N, D), in the order of the data."""
    sides: list[int]
    """At which each was described, px."""


def feature_network(plan: Plan, cases: Cases) -> FeatureNetwork | None:
    """What describes the faces; None where no distance of sets is wanted.

    Of one face there is none: it is left out if all metrics were asked for.

    Raises:
        CheckpointError: The network's weights are missing.
        DataError: A distance of sets was asked for by name, of one face.
    """
    wanted = [name for name in SETS if name in plan.wanted]
    if not wanted or (len(cases.keys) < 2 and plan.metrics is None):
        return None
    if len(cases.keys) < 2:
        raise DataError(
            f"{plan.data}: {wanted[0]} needs at least two faces, found one; name more faces, or "
            "leave it out"
        )
    return load_feature_network(plan.metrics_dir, plan.device)


def set_distances(
    network: FeatureNetwork, plan: Plan, cases: Cases, results: Results
) -> dict[str, dict[str, SetDistance]]:
    """FID and KID of every system, as far as the plan wants them, named with their network.

    A picture is brought to the side of its truth first. Feature networks have a side of their own,
    and the official Inception reduces to it without averaging: a larger picture of the same face
    would alias more, and stand farther from the truth.

    Features are kept in files of `plan.out`, so that a second call computes none.

    Args:
        network: See `feature_network`.
        plan: What is asked.
        cases: The faces.
        results: All of them restored.

    Returns:
        System → ``fid_NAME`` and ``kid_NAME``.
    """

    def described(
        of: str, images: Iterable[Callable[[], RgbImage]], sides: list[int] | None = None
    ) -> _Described:
        path = results.features(f"{of} {network.name}")
        kept = _read(path, faces, sides, network.digest)
        if kept is None:
            kept = _describe(network, images, plan.device, sides)
            _write(path, faces, kept, network.digest)
        return kept

    faces = [f"{key} {cases.marks[key]}" for key in cases.keys]
    logger.info("distances of sets: the truth")
    true = described("truth", cases.truths())
    found = {}
    for system in results.rows:
        logger.info("distances of sets: %s", system)
        pictures = [partial(results.read, system, key) for key in cases.keys]
        own = described(f"of {system}", pictures, true.sides)
        found[system] = _distances(plan, network.name, own.features, true.features)
    return found


def _describe(
    network: FeatureNetwork,
    images: Iterable[Callable[[], RgbImage]],
    device: str,
    sides: Sequence[int] | None,
) -> _Described:
    """Faces at these sides; None = each at its own."""
    features: list[Features] = []
    seen: list[int] = []
    with ThreadPoolExecutor(READERS, "panini-read") as readers:
        for image in ahead(readers, images, 2 * READERS):
            seen.append(image.shape[0] if sides is None else sides[len(seen)])
            features.append(network(resize_batch(to_tensor(image).to(device), seen[-1])))
    return _Described(np.concatenate(features), seen)


def _distances(plan: Plan, name: str, own: Features, true: Features) -> dict[str, SetDistance]:
    found: dict[str, SetDistance] = {}
    if "fid" in plan.wanted:
        deviation = spread(frechet_distance, own, true, seed=plan.seed)
        interval = _interval(frechet_distance(own, true), deviation, len(own), least=0.0)
        found[f"fid_{name}"] = SetDistance(interval=interval)
    if "kid" in plan.wanted:
        mean, subsets = kernel_distance(own, true, seed=plan.seed)
        deviation = spread(_kernel_of_all, own, true, seed=plan.seed)
        interval = _interval(mean, deviation, len(own), least=-math.inf)
        found[f"kid_{name}"] = SetDistance(interval=interval, subsets=subsets)
    return found


def _kernel_of_all(own: Features, true: Features) -> float:
    """The kernel distance's estimate from all faces at once: unbiased as well, and quick."""
    return kernel_distance(own, true, subsets=1, size=len(own)).mean


def _interval(value: float, deviation: float, count: int, *, least: float) -> Interval:
    reach = _NORMAL_95 * deviation
    return Interval(value, max(value - reach, least), value + reach, count)


def _read(
    path: Path, faces: Sequence[str], sides: Sequence[int] | None, digest: str
) -> _Described | None:
    """Features in the order of `faces`, at these sides (None = at any), of the network of a digest.

    None where the file has others, is damaged or is not there: they are computed anew. So they are
    where it tells no sides or no network, as files of earlier versions.
    """
    if not path.exists():
        return None
    try:
        # Not by its name: of a damaged file NumPy leaves the handle open.
        with np.load(BytesIO(path.read_bytes())) as kept:
            known, features = kept["keys"].tolist(), kept["features"]
            found = kept["sides"].tolist() if "sides" in kept else []
            network = str(kept["network"]) if "network" in kept else ""
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s: is damaged (%s); computed anew", path, error)
        return None
    whole = known == list(faces) and len(features) == len(found) == len(known)
    fits = whole and network == digest and (sides is None or found == list(sides))
    return _Described(features, found) if fits else None


def _write(path: Path, faces: Sequence[str], kept: _Described, digest: str) -> None:
    buffer = BytesIO()
    np.savez(
        buffer,
        keys=np.array(faces),
        features=kept.features,
        sides=np.array(kept.sides),
        network=np.array(digest),
    )
    write_whole(path, buffer.getvalue())
