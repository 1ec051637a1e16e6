"""Put a trained network among the shipped weights, and print the line for `checkpoints/specs.py`.

    python scripts/ship_weights.py mobile-mfr runs/restoration-mobile-mfr/panini.safetensors

`--note udrl_images=12000` adds to the provenance in the file. `--bits 7` rounds what was trained to
so many bits a weight, still stored as float16: the file stays as large, but packs better where it
is kept in many versions. How near its drawing comes to that without is told for an example face.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path

import torch

from panini.checkpoints import load_model, load_prior, load_tensors, save_model
from panini.checkpoints.io import sha256_of
from panini.checkpoints.specs import WEIGHTS
from panini.images import read_rgb, to_tensor
from panini.models.panini_net import PaniniNet

LARGEST = 60_000_000
ROUNDED = ("encoder.", "fusion.", "degradation_encoder.blocks.", "degradation_encoder.pointwise.")
"""Parts whose weights `--bits` rounds: the prior stays as it is known, and the contrast's head."""
FEW = 4096
"""Smaller weights are not worth it."""
EXAMPLES = {"mfr": "face_lq.png", "sr16": "face_small.png"}


@torch.no_grad()
def round_weights(net: PaniniNet, bits: int) -> None:
    """Round weights to multiples of a power of two, one a channel of the output."""
    most = 2 ** (bits - 1) - 1
    for name, weight in net.named_parameters():
        if name.startswith(ROUNDED) and weight.ndim > 1 and weight.numel() > FEW:
            largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
            step = torch.exp2((largest.clamp_min(1e-8) / most).log2().ceil())
            weight.copy_((weight / step).round() * step)


def agreement(first: PaniniNet, second: PaniniNet) -> float:
    """PSNR between what two networks draw of an example face, dB."""
    path = Path(__file__).parents[1] / "examples" / EXAMPLES[first.config.task]
    face = to_tensor(read_rgb(path))
    with torch.inference_mode():
        difference = first(face).image - second(face).image
    return -10 * math.log10(difference.double().square().mean().item() / 4)


def main() -> None:
    """Write float16 weights with their provenance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name to ship it under")
    parser.add_argument("weights", type=Path, help="float32 weights of the last stage")
    parser.add_argument("--note", action="append", default=[], metavar="KEY=JSON")
    parser.add_argument("--bits", type=int, choices=range(4, 12), help="of each trained weight")
    parser.add_argument("--prior", type=Path, help="as it was before restoration changed it")
    args = parser.parse_args()

    _, meta = load_tensors(args.weights, kind="panini-net")
    notes = dict(note.split("=", 1) for note in args.note)
    provenance = meta["provenance"] | {key: json.loads(value) for key, value in notes.items()}
    path = WEIGHTS / f"{args.name}.safetensors"
    # As float16 has it, so that what restoration left alone is equal.
    prior = None if args.prior is None else load_prior(args.prior).half().float()
    net = load_model(args.weights).half().float()
    if args.bits is not None:
        whole = copy.deepcopy(net)
        round_weights(net, args.bits)
        print(f"{args.bits} bits a weight: {agreement(whole, net):.1f} dB to what float16 draws")
    save_model(net, path, provenance=provenance, dtype=torch.float16, prior=prior)
    size = path.stat().st_size
    if size > LARGEST:
        parser.error(f"{path}: {size:,} bytes, more than {LARGEST:,}")
    print(f"{path}: {size:,} bytes, provenance {provenance}")
    print(f'    sha256="{sha256_of(path)}",')


if __name__ == "__main__":
    main()
