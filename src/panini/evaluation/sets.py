"""Distances between sets: all faces of a system against all truths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panini.errors import DataError
from panini.evaluation.cases import Cases
from panini.evaluation.plan import Plan
from panini.evaluation.results import Results
from panini.images import RgbImage, read_rgb, to_tensor, write_whole
from panini.metrics.distribution import (
    FeatureNetwork,
    frechet_distance,
    kernel_distance,
    load_feature_network,
)

Features = NDArray[np.float64]


def set_distances(plan: Plan, cases: Cases, results: Results) -> dict[str, dict[str, float]]:
    """FID and KID of every system, as far as the plan wants them, named with their network.

    Features are kept in files of `plan.out`, so that a second call computes none.

    Args:
        plan: What is asked.
        cases: The faces.
        results: All of them restored.

    Returns:
        System → ``fid_NAME`` and ``kid_NAME``; {} where all metrics were asked of one face.

    Raises:
        CheckpointError: The feature network's weights are missing.
        DataError: They were asked of one face by name.
    """
    if len(cases.keys) < 2 and plan.metrics is None:
        return {}
    if len(cases.keys) < 2:
        raise DataError(f"{plan.data}: fid and kid need at least two faces; leave them out")
    network = load_feature_network(plan.metrics_dir or "", plan.device)
    keys = cases.keys

    def truths() -> Iterator[RgbImage]:
        for _, make in cases.jobs(keys, rates=False):
            yield make().gt

    def restored(system: str) -> Iterator[RgbImage]:
        for key in keys:
            yield read_rgb(results.picture(system, key))

    true = _features(network, results.features(f"truth {network.name}"), keys, truths, plan)
    found = {}
    for system in results.rows:
        path = results.features(f"{system} {network.name}")
        own = _features(network, path, keys, lambda system=system: restored(system), plan)
        found[system] = _distances(plan, network.name, own, true)
    return found


def _distances(plan: Plan, name: str, own: Features, true: Features) -> dict[str, float]:
    values: dict[str, float] = {}
    if "fid" in plan.wanted:
        values[f"fid_{name}"] = frechet_distance(own, true)
    if "kid" in plan.wanted:
        values[f"kid_{name}"] = kernel_distance(own, true, seed=plan.seed).mean
    return values


def _features(
    network: FeatureNetwork,
    path: Path,
    keys: list[str],
    images: Callable[[], Iterator[RgbImage]],
    plan: Plan,
) -> Features:
    """Features (N, D) of images in the order of `keys`, from the file if it has them."""
    if path.exists():
        with np.load(path) as kept:
            if kept["keys"].tolist() == keys:
                return kept["features"]
    found = np.concatenate([network(to_tensor(image).to(plan.device)) for image in images()])
    buffer = _npz(keys, found)
    write_whole(path, buffer)
    return found


def _npz(keys: list[str], features: Features) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.savez(buffer, keys=np.array(keys), features=features)
    return buffer.getvalue()
