"""Put a degradation encoder that knows more behind masks and bands that learned with another.

    python scripts/fold_degradation_encoder.py --encoder DRE.safetensors OUT.safetensors FACES.tar

Masks and bands read v_DR, and have learned with the encoder that `--mfr` has. The new one's v_DR is
brought into that space by an affine map (ridge, on degraded faces), and then moved along the
direction in which the old one follows the downsampling rate, by as many octaves as the two tell
differently. So masks and bands mean what they meant, where both agree, and follow the new encoder
where it knows better. All of it folds into the encoder's last layer: the network's shape stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from graft_mfr import Affine, describe, probe, ridge
from torch import Tensor, nn

from panini.checkpoints import load_degradation_encoder, load_model, save_model
from panini.models.degradation_encoder import DegradationEncoder

INTO = 5.0
"""Ridge of the map between the spaces."""


def translate(old: Tensor, new: Tensor, octaves: Tensor, gain: float) -> Affine:
    """From the new encoder's v_DR to the space of the old one's.

    Args:
        old: v_DR of the old encoder, (N, D).
        new: v_DR of the new one, of the same faces.
        octaves: Of their downsampling rates, (N,).
        gain: Share of the difference of what the two tell that is carried over.
    """
    into = ridge(new, old, INTO)
    known, better = probe(old, octaves), probe(new, octaves)
    told = known(old)
    away = told - told.mean()
    direction = ((old - old.mean(0)) * away[:, None]).mean(0) / away.square().mean()
    # known(v) is linear, and so is the step from what it says of the translated vector.
    weight = better.weight - into.weight @ known.weight
    bias = better.bias - known.bias - into.bias @ known.weight
    moved = gain * direction
    return Affine(into.weight + torch.outer(weight, moved), into.bias + bias * moved)


@torch.no_grad()
def fold(encoder: DegradationEncoder, map_: Affine) -> None:
    """Let the encoder give `map_` of what it gave."""
    last = encoder.pointwise
    if not isinstance(last, nn.Conv2d) or last.bias is None:
        raise TypeError("fold needs an encoder that ends in a pointwise convolution")
    weight = map_.weight.T @ last.weight[:, :, 0, 0].double()
    last.bias.copy_(map_.weight.T @ last.bias.double() + map_.bias)
    last.weight.copy_(weight[:, :, None, None])


def main() -> None:
    """Describe faces by both, translate, write, and tell how well the spaces agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("faces", type=Path, nargs="+", help="tar shards")
    parser.add_argument("--encoder", type=Path, required=True, help="the one that knows more")
    parser.add_argument("--mfr", default="mobile-mfr", help="the network")
    parser.add_argument("--gain", type=float, default=1.0, help="of the difference, 0 to 1")
    parser.add_argument("--count", type=int, default=3000, help="degraded faces")
    options = parser.parse_args()
    net = load_model(options.mfr).eval()
    old, octaves = describe(net, options.faces, options.count)
    # The head stays that of the space which v_DR comes back to.
    body = load_degradation_encoder(options.encoder).state_dict()
    body = {name: value for name, value in body.items() if not name.startswith("head.")}
    net.degradation_encoder.load_state_dict(net.degradation_encoder.state_dict() | body)
    new, _ = describe(net, options.faces, options.count)
    old, new = old.double(), new.double()
    left = (ridge(new, old, INTO)(new) - old).square().sum() / (old - old.mean(0)).square().sum()
    fold(net.degradation_encoder, translate(old, new, octaves, options.gain))
    provenance = {"network": str(options.mfr), "degradation_encoder": options.encoder.name}
    save_model(net, options.out, provenance=provenance)
    for name, vectors in (("old", old), ("new", new)):
        error = (probe(vectors, octaves)(vectors) - octaves).square().mean() / octaves.var()
        print(
            f"the {name} encoder tells the octaves with R² {1 - error:.2f} on the faces of the fit"
        )
    print(f"{options.out}: R² {1 - left:.3f} between the spaces")


if __name__ == "__main__":
    main()
