"""Fit a smaller head of a restorer's prior to the images of the head above it.

    python scripts/refit_head.py WEIGHTS OUT FACES.tar [FACES.tar ...]

A prior that has learned above 64 px (`train_prior_above: 64`), at 512 and 1024 px, has other
features there than its head of 256 px knows. Least squares over restored faces brings it back.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from panini.checkpoints import load_model, load_tensors, save_model
from panini.consistency import reduce
from panini.data import resize
from panini.degradations import bilinear_antialias, degrade, sample_floor
from panini.images import to_tensor
from panini.models.mobile_stylegan import MobileStyleGAN, haar_downsample
from panini.models.panini_net import PaniniNet
from panini.shards import decode, index_members


def inputs(net: PaniniNet, shards: Sequence[Path], count: int) -> Iterator[Tensor]:
    """Degraded faces as the network takes them, evenly from the shards, (1, 3, S, S)."""
    generator = np.random.default_rng(0)
    side = net.config.encoder.in_size
    for shard in shards:
        members = index_members(shard)
        share = max(1, count // len(shards))
        for member in members[:: max(1, len(members) // share)][:share]:
            face = decode(BytesIO(member.read()), member.name)
            if net.config.task == "sr16":
                yield to_tensor(bilinear_antialias(face, side))
            else:
                params = sample_floor(generator)
                yield to_tensor(degrade(resize(face, side), params, generator))


@torch.inference_mode()
def gram_matrix(net: PaniniNet, faces: Iterator[Tensor], size: int, above: int) -> Tensor:
    """Mean of b bᵀ over faces and pixels, see `MobileStyleGAN.solve_head`."""
    found: dict[str, Tensor] = {}
    prior = net.prior
    head = prior.get_submodule(f"heads.{size}")
    head.register_forward_pre_hook(lambda _, given: found.__setitem__("feature", given[0]))
    draw = prior.synthesis

    def drawn(*args: object, **options: object) -> Tensor:
        found["image"] = draw(*args, **options)  # pyright: ignore[reportArgumentType]
        return found["image"]

    prior.synthesis = drawn  # what the prior draws, before bands and back-projection
    total, count = torch.zeros(()), 0
    for lq in faces:
        net(lq, size=above)
        target = haar_downsample(reduce(found["image"], size)).flatten(2)[0].double()
        net(lq, size=size)
        x = found["feature"].flatten(2)[0].double()
        both = torch.cat([x, torch.ones(1, x.shape[1], dtype=x.dtype), target])
        total, count = total + both @ both.T / both.shape[1], count + 1
    del prior.synthesis
    return total / count


def main() -> None:
    """Fit, write, and tell how well it fits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("faces", type=Path, nargs="+", help="tar shards")
    parser.add_argument("--size", type=int, default=256, help="of the head, px")
    parser.add_argument("--above", type=int, default=512, help="of the head that it follows, px")
    parser.add_argument("--count", type=int, default=64, help="faces")
    options = parser.parse_args()
    net = load_model(options.weights).eval()
    if not isinstance(net.prior, MobileStyleGAN):
        parser.error(f"{options.weights}: its prior has no heads of several sizes")
    _, meta = load_tensors(options.weights, kind="panini-net")
    faces = inputs(net, options.faces, options.count)
    gram = gram_matrix(net, faces, options.size, options.above)
    with torch.no_grad():
        decibels = net.prior.solve_head(options.size // 2, gram)
    save_model(net, options.out, provenance=meta["provenance"])
    print(f"{options.out}: head of {options.size} px agrees at {decibels:.1f} dB")


if __name__ == "__main__":
    main()
