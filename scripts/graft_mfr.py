"""A start for mobile-mfr out of mobile-sr16: its backbone, and masks that follow the rate.

    python scripts/graft_mfr.py runs/start-mobile-mfr.safetensors FACES.tar [FACES.tar ...]

Restoration is super-resolution of what a degradation has left. So the network starts as the one
for 16x super-resolution, on the photo's means over 8 x 8 px; its stem sees all 64 pixels of a mean
and can learn what is in them. The degradation encoder is that of `--mfr`. Masks and bands are put
linear in the octaves of the downsampling rate that v_DR tells (a ridge probe on degraded faces):
the photo keeps the bands below its low side, the network draws those above.

`--bands-only` leaves `--mfr` its own backbone and masks, and brings its bands half-way there: the
cure for shares that ran to 1 in training, where the photo has nothing left to share. Train on with
`train_bands: false`.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from panini.checkpoints import load_model, save_model
from panini.data import resize
from panini.degradations import DegradationRange, degrade
from panini.images import to_tensor
from panini.models.panini_net import PaniniNet
from panini.shards import decode, index_members

RANGE = DegradationRange(
    low_side=(4, 128), low_side_law="log", sigma=(0.5, 4.5), noise=(0, 15), jpeg=(50, 95), size=512
)
CELL = 8
"""Side of the squares whose means the backbone reads, px: 512 px make 64."""
SMALL_RATE = math.log2(CELL)
SLOPES = {64: 1.2, 32: 0.5, 16: 0.2, 8: 0.0, 4: 0.0}
"""Level → logits of the prior's share an octave of the rate."""
BAND_SLOPE, MOST = 2.0, 4.0
"""Logits of the photo's share of a band an octave of the rate, and the most at the rate `CELL`."""
RIDGE = 30.0
RULE_UNITS = 2
"""Hidden units that `make_linear` puts a rule into, the first ones."""
LEAKY = 0.1
"""Slope of the masks' activation below 0."""


class Affine(NamedTuple):
    """x ↦ x weight + bias, in double precision."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) → (N,), or (N, E) where the weight has E columns."""
        return x.double() @ self.weight + self.bias


@torch.no_grad()
def describe(net: PaniniNet, shards: Sequence[Path], count: int) -> tuple[Tensor, Tensor]:
    """v_DR (N, D) of degraded faces, and the octaves of their rates above `CELL`, (N,)."""
    generator = np.random.default_rng(5)
    members = [member for shard in shards for member in index_members(shard)]
    vectors, octaves = [], []
    for index in generator.choice(len(members), min(count, len(members)), replace=False):
        member = members[index]
        face = resize(decode(BytesIO(member.read()), member.name), 512)
        params = RANGE.sample(generator)
        vectors.append(net.degradation(to_tensor(degrade(face, params, generator)))[0])
        octaves.append(math.log2(params.rate) - SMALL_RATE)
    return torch.stack(vectors), torch.tensor(octaves, dtype=torch.float64)


def ridge(x: Tensor, y: Tensor, strength: float) -> Affine:
    """Ridge regression of y, (N,) or (N, E), on standardised axes of x, (N, D)."""
    x, y = x.double(), y.double()
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    scaled = (x - mean) / deviation
    gram = scaled.T @ scaled + strength * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, scaled.T @ (y - y.mean(0)))
    weight = weight / (deviation if y.ndim == 1 else deviation[:, None])
    return Affine(weight, y.mean(0) - mean @ weight)


def probe(vectors: Tensor, octaves: Tensor) -> Affine:
    """Octaves of the rate above `CELL`, linear in v_DR."""
    return ridge(vectors, octaves, RIDGE)


def graft(sr16: PaniniNet, mfr: PaniniNet) -> PaniniNet:
    """The network of `sr16` behind the degradation encoder of `mfr`, and with bands like its."""
    encoder = replace(sr16.config.encoder, in_size=512, unshuffle=CELL)
    net = PaniniNet(replace(mfr.config, encoder=encoder, prior=sr16.config.prior))
    state = {name: value.clone() for name, value in sr16.state_dict().items()}
    state.pop("degradation_constant")
    # A mean over the cell's pixels, which `pixel_unshuffle` has put into channels.
    stem = state["encoder.stem.weight"]
    state["encoder.stem.weight"] = stem.repeat_interleave(CELL**2, dim=1) / CELL**2
    own = ("degradation_encoder.", "bands.")
    state = {name: value for name, value in state.items() if not name.startswith(own)}
    state |= {n: value for n, value in mfr.state_dict().items() if n.startswith(own)}
    net.load_state_dict(state)
    return net.eval()


@torch.no_grad()
def make_linear(mlp: nn.Module, octaves: Affine, base: Tensor, slope: Tensor) -> None:
    """Logits base + slope · octaves, by two hidden units; the others wait for training."""
    assert isinstance(mlp, nn.Sequential)
    first, last = mlp[0], mlp[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    nn.init.kaiming_uniform_(first.weight, a=math.sqrt(5))
    first.bias.zero_()
    last.weight.zero_()
    last.bias.copy_(base)
    for unit, sign in enumerate((1, -1)):
        first.weight[unit] = sign * octaves.weight.float()
        first.bias[unit] = sign * octaves.bias.float()
        # leaky(x) - leaky(-x) = (1 + leak) x
        last.weight[:, unit] = sign * slope / (1 + LEAKY)


@torch.no_grad()
def masks_follow(net: PaniniNet, sr16: PaniniNet, octaves: Affine) -> None:
    """Masks: sr16's at its rate, with a slope."""
    size = sr16.config.encoder.in_size
    logits = sr16.fusion.mask_logits(sr16.degradation(torch.zeros(1, 3, size, size)))
    for level, found in logits.items():
        prior, image = found[0]
        half = (prior - image) / 2
        slope = torch.full_like(half, SLOPES[level] / 2)
        mlp = net.fusion.mask_mlps[str(level)]
        make_linear(mlp, octaves, torch.cat([half, -half]), torch.cat([slope, -slope]))


@torch.no_grad()
def bands_follow(net: PaniniNet, octaves: Affine) -> None:
    """Bands: half the photo's where its low side lies."""
    assert net.bands is not None
    low_side = net.config.in_size / CELL
    below = [math.log2(low_side / level) for level in net.bands.config.levels]
    base = (BAND_SLOPE * torch.tensor(below)).clamp(max=MOST)
    make_linear(net.bands.mask_mlp, octaves, base, torch.full_like(base, -BAND_SLOPE))


@torch.no_grad()
def bands_half_way(net: PaniniNet, octaves: Affine) -> PaniniNet:
    """The same network with logits of the shares half-way from what it has learned to the rule."""
    assert net.bands is not None
    ruled = copy.deepcopy(net)
    bands_follow(ruled, octaves)
    config = replace(net.bands.config, hidden=net.bands.config.hidden + RULE_UNITS)
    mixed = PaniniNet(replace(net.config, bands=config))
    learned, rule = net.state_dict(), ruled.state_dict()
    first, last = "bands.mask_mlp.0.", "bands.mask_mlp.2."
    state = dict(learned)
    for name in (f"{first}weight", f"{first}bias"):
        state[name] = torch.cat([learned[name], rule[name][:RULE_UNITS]])
    name = f"{last}weight"
    state[name] = torch.cat([learned[name], rule[name][:, :RULE_UNITS]], dim=1) / 2
    state[f"{last}bias"] = (learned[f"{last}bias"] + rule[f"{last}bias"]) / 2
    mixed.load_state_dict(state)
    return mixed.eval()


def main() -> None:
    """Probe, graft, write, and tell θ over the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("faces", type=Path, nargs="+", help="tar shards")
    parser.add_argument("--sr16", default="mobile-sr16", help="the backbone")
    parser.add_argument("--mfr", default="mobile-mfr", help="the degradation encoder")
    parser.add_argument("--bands-only", action="store_true", help="the backbone is that of --mfr")
    parser.add_argument("--count", type=int, default=700, help="degraded faces for the probe")
    options = parser.parse_args()
    torch.manual_seed(0)
    sr16, mfr = load_model(options.sr16).eval(), load_model(options.mfr).eval()
    vectors, rates = describe(mfr, options.faces, options.count)
    octaves = probe(vectors, rates)
    error = (octaves(vectors) - rates).square().mean() / rates.var()
    if options.bands_only:
        net = bands_half_way(mfr, octaves)
    else:
        net = graft(sr16, mfr)
        masks_follow(net, sr16, octaves)
        bands_follow(net, octaves)
    backbone = options.mfr if options.bands_only else options.sr16
    start = {"backbone": str(backbone), "degradation_encoder": str(options.mfr)}
    save_model(net, options.out, provenance=start)
    print(f"{options.out}: the rate is told with R² {1 - error:.2f} on the faces of the fit")
    with torch.no_grad():
        thetas = net.fusion.masks(vectors)[max(SLOPES)].mean(dim=(1, 2, 3))
    for octave in range(-1, 5):
        near = (octaves(vectors) - octave).abs() < 0.5
        if near.any():
            print(f"  rate {CELL * 2.0**octave:g}: θ {thetas[near].mean():.3f}")


if __name__ == "__main__":
    main()
