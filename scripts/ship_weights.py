"""Put a trained network among the shipped weights, and print the line for `checkpoints/specs.py`.

    python scripts/ship_weights.py mobile-mfr runs/restoration-mobile-mfr/panini.safetensors

`--note udrl_images=12000` adds to the provenance in the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from panini.checkpoints import load_model, load_prior, load_tensors, save_model
from panini.checkpoints.io import sha256_of
from panini.checkpoints.specs import WEIGHTS

LARGEST = 60_000_000


def main() -> None:
    """Write float16 weights with their provenance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name to ship it under")
    parser.add_argument("weights", type=Path, help="float32 weights of the last stage")
    parser.add_argument("--note", action="append", default=[], metavar="KEY=JSON")
    parser.add_argument("--prior", type=Path, help="as it was before restoration changed it")
    args = parser.parse_args()

    _, meta = load_tensors(args.weights, kind="panini-net")
    notes = dict(note.split("=", 1) for note in args.note)
    provenance = meta["provenance"] | {key: json.loads(value) for key, value in notes.items()}
    path = WEIGHTS / f"{args.name}.safetensors"
    # As float16 has it, so that what restoration left alone is equal.
    prior = None if args.prior is None else load_prior(args.prior).half().float()
    net = load_model(args.weights).half().float()
    save_model(net, path, provenance=provenance, dtype=torch.float16, prior=prior)
    size = path.stat().st_size
    if size > LARGEST:
        parser.error(f"{path}: {size:,} bytes, more than {LARGEST:,}")
    print(f"{path}: {size:,} bytes, provenance {provenance}")
    print(f'    sha256="{sha256_of(path)}",')


if __name__ == "__main__":
    main()
