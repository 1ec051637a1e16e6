"""Table 4: θ over the downsampling rate, and what θ follows beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from panini.data import resize, resize_batch
from panini.evaluation.cases import THETA_RATES, at_rate, degraded, random_params
from panini.evaluation.plan import Degradations
from panini.evaluation.plots import Axes, Point, scatter
from panini.evaluation.report import rises
from panini.evaluation.sizes import DEGRADED_SIZE
from panini.evaluation.tables import table as grid
from panini.images import RgbImage, to_tensor, write_whole
from panini.metrics.bootstrap import Interval, mean_interval
from panini.models.panini_net import PaniniNet
from panini.reproduce.inputs import Needs
from panini.reproduce.plot import plot_sheet
from panini.reproduce.result import Table
from panini.reproduce.study import Study

PUBLISHED = [("rate r", "16", "32", "64", "128"), ("θ", "0.43", "0.54", "0.65", "0.73")]
PARAMETERS = ("low side, px", "σ, px", "noise, levels", "JPEG quality")
DRAWS = 2000
"""Of the bootstrap over faces."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Thetas:
    """θ of every face."""

    over_rates: Floats
    """(faces, rates): all else equal."""
    drawn: Floats
    """(faces,): under a random degradation each."""
    numbers: Floats
    """(faces, 4): that degradation, `PARAMETERS`."""


def theta_needs(study: Study) -> Needs:
    """What table 4 reads."""
    heads = study.config.theta_faces
    return Needs(networks=frozenset({"mfr"}), masks=True, faces=1, heads=heads)


def theta_table(study: Study) -> list[Path]:
    """Measure θ over a whole set, write table 4 and its plot; returns the files."""
    net, name = study.masked_network()
    faces = study.faces(study.config.theta_faces)
    config = study.config.evaluation
    found = measure(net, faces, seed=config.seed, degradations=config.degradations)
    correlations = {
        label: rank_interval(found.numbers[:, column], found.drawn)
        for column, label in enumerate(PARAMETERS)
    }
    plot = study.out / "table4.svg"
    write_whole(plot, plot_sheet(_plots(found, correlations)).encode())
    table = Table(
        name="table4",
        title="Table 4: θ over the downsampling rate",
        about=study.about() | {"network": name, "faces": len(found.drawn)},
        published=PUBLISHED,
        notes=_NOTES,
        more=_numbers(found, correlations),
        sections=[_rates(found), _correlations(correlations), f"![θ]({plot.name})"],
    )
    return [*study.write(table), plot]


_NOTES = [
    "θ (Eq. 11) is the prior's mean share at the finest fused level. Over the rates, a face of "
    "512 px has σ 1.5 px, noise 5 and JPEG quality 80; the rate is a factor of its side.",
    "Intervals are 95 %, from the bootstrap over faces.",
    "The plot and the rank correlations (Spearman's) are of random degradations, drawn "
    "independently of each other within the ranges that the head of this page names: floor is "
    "that of `panini evaluate`, paper the paper's.",
]


@torch.inference_mode()
def measure(
    net: PaniniNet,
    faces: Iterable[tuple[str, RgbImage]],
    *,
    seed: int,
    degradations: Degradations = "floor",
) -> Thetas:
    """θ of faces over `THETA_RATES`, and under one random degradation each.

    Args:
        net: Of task mfr, with masks.
        faces: (key, square uint8 RGB face).
        seed: Of the degradations, together with a face's key: they are those of `panini evaluate`.
        degradations: Ranges of the random ones.
    """
    rates, drawn, numbers = [], [], []
    for key, image in faces:
        gt = resize(image, DEGRADED_SIZE)
        params = random_params(key, seed, degradations)
        inputs = [at_rate(key, gt, seed, rate) for rate in THETA_RATES]
        inputs.append(degraded(key, gt, seed, params))
        *over, last = _theta(net, inputs)
        rates.append(over)
        drawn.append(last)
        low = params.low_side(DEGRADED_SIZE)
        numbers.append((low, params.sigma, params.noise, params.jpeg))
    return Thetas(
        over_rates=np.array(rates), drawn=np.array(drawn), numbers=np.array(numbers, np.float64)
    )


def _theta(net: PaniniNet, images: Sequence[RgbImage]) -> list[float]:
    device = next(net.parameters()).device
    lq = torch.cat([to_tensor(image) for image in images]).to(device)
    return net.theta(resize_batch(lq, net.config.in_size)).tolist()


# ----------------------------------------------------------------------------------------------
# Rank correlation


def ranks(values: Floats) -> Floats:
    """Ranks from 0; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[places]


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's: of the ranks; 0 where one of them is the same everywhere."""
    x, y = (ranks(values) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    length = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / length) if length else 0.0


def rank_interval(a: Floats, b: Floats, *, seed: int = 0) -> Interval:
    """Rank correlation with its 95 % interval from the bootstrap over faces."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(a), (DRAWS, len(a)))
    low, high = np.percentile([rank_correlation(a[row], b[row]) for row in drawn], (2.5, 97.5))
    return Interval(rank_correlation(a, b), float(low), float(high), len(a))


# ----------------------------------------------------------------------------------------------
# What is written


def _rates(found: Thetas) -> str:
    columns = found.over_rates.T
    means = [mean_interval(column) for column in columns]
    rows = [
        ["θ", *(f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]" for mean in means)],
        ["deviation over faces", *(f"{column.std():.3f}" for column in columns)],
    ]
    text = f"θ rises at every step for {_percent(rises(found.over_rates))} of the faces; "
    ends = _percent(found.over_rates[:, -1] > found.over_rates[:, 0])
    table = grid(["rate r", *(str(rate) for rate in THETA_RATES)], rows)
    return f"{table}\n\n{text}from the first to the last for {ends}."


def _percent(faces: NDArray[np.bool_]) -> str:
    """How many of the faces, with its interval."""
    found = mean_interval(faces)
    return f"{100 * found.mean:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _correlations(correlations: dict[str, Interval]) -> str:
    rows = [
        [label, f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"]
        for label, found in correlations.items()
    ]
    return grid(["parameter", "rank correlation with θ"], rows)


def _plots(found: Thetas, correlations: dict[str, Interval]) -> list[str]:
    """θ over each parameter."""
    plots = []
    for label, column in zip(PARAMETERS, found.numbers.T.tolist(), strict=True):
        title = f"{label}: rank correlation {correlations[label].mean:+.2f}"
        points = [Point(*place) for place in zip(column, found.drawn.tolist(), strict=True)]
        axes = Axes(title=title, x=label, y="θ")
        plots.append(scatter(axes, {"": points}, {"": 1}))
    return plots


def _numbers(found: Thetas, correlations: dict[str, Interval]) -> dict[str, object]:
    """For the JSON."""
    columns = found.over_rates.T
    share = mean_interval(rises(found.over_rates))
    return {
        "rates": list(THETA_RATES),
        "theta": [mean_interval(column).__dict__ for column in columns],
        "deviation": [float(column.std()) for column in columns],
        "rising": share.mean,
        "rising_interval": share.__dict__,
        "rank_correlations": {label: value.__dict__ for label, value in correlations.items()},
        "faces": [
            {"theta": value, **dict(zip(PARAMETERS, row, strict=True)), "over_rates": rates}
            for value, row, rates in zip(
                found.drawn.tolist(),
                found.numbers.tolist(),
                found.over_rates.tolist(),
                strict=True,
            )
        ],
    }
