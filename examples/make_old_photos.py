"""A contact sheet of real old photographs: what the photo shows of a face, and what is made of it.

    python examples/make_old_photos.py out/old.png PHOTO... [SHARD.tar ...] [--count 12]

Photos are searched for faces; the faces of a shard are aligned already, and `--count` of them are
taken, evenly over the shard.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from panini import Restorer
from panini.evaluation.sheet import picture_table
from panini.images import RgbImage, write_rgb
from panini.restored import RestoredFace
from panini.shards import decode, index_members


def found(restorer: Restorer, source: Path, count: int) -> Iterator[tuple[str, RestoredFace]]:
    """Names and faces of a photo or of a shard."""
    if source.suffix != ".tar":
        for index, face in enumerate(restorer.restore(source).faces):
            yield f"{source.name} {index}", face
        return
    members = index_members(source)
    for member in members[:: max(len(members) // count, 1)][:count]:
        image = decode(BytesIO(member.read()), member.name)
        yield member.name, restorer.restore_aligned(image).faces[0]


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=12, help="faces of a shard")
    parser.add_argument("--model", default="mobile-mfr")
    args = parser.parse_args()

    restorer = Restorer.from_pretrained(args.model, "cpu")
    rows: list[tuple[str, tuple[RgbImage, ...]]] = []
    for source in args.sources:
        for name, face in found(restorer, source, args.count):
            pictures = (np.asarray(face.lq), np.asarray(face.restored))
            rows.append((f"{name}  theta {face.theta:.2f}", pictures))
    write_rgb(args.out, np.asarray(picture_table(("input", "restored"), rows)), overwrite=True)
    print(f"{len(rows)} faces in {args.out}")


if __name__ == "__main__":
    main()
