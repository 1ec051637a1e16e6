"""Pick the sharp colour photos of a shard: truth for training out of a mix of old and new pictures.

    python scripts/select_sharp.py congress-train-256-000.tar runs/congress-sharp.tar

A face is taken if its colours differ (no grey or toned print), if it has fine detail, and if that
detail does not grow towards the finest frequencies, as grain, paper and halftone dots do.
"""

from __future__ import annotations

import argparse
import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from panini.images import RgbImage
from panini.shards import decode, iter_members

COLOUR = 22.0
"""Least deviation of red less blue over the picture, levels of 255."""
SATURATION = 18.0
"""Least mean of the largest channel less the smallest in the middle of the face, levels."""
DETAIL = (0.0018, 0.06)
"""Share of spectral energy above half of Nyquist."""
FINEST = 0.40
"""Most of that share that may lie above three quarters of Nyquist."""


def is_sharp(face: RgbImage) -> bool:
    """Whether a face, uint8 RGB (S, S, 3), is a sharp colour photo."""
    levels = face.astype(np.float32)
    side = len(face)
    middle = levels[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4]
    saturation = (middle.max(axis=2) - middle.min(axis=2)).mean()
    colour = (levels[..., 0] - levels[..., 2]).std()
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    window = np.outer(np.hanning(side), np.hanning(side))
    energy = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side)] * 2))  # 0.5 is Nyquist
    fine = energy[frequency > 0.25].sum()
    finest = energy[frequency > 0.375].sum()
    return bool(
        colour > COLOUR
        and saturation > SATURATION
        and DETAIL[0] < fine / energy.sum() < DETAIL[1]
        and finest < FINEST * fine
    )


def main() -> None:
    """Copy the members that are taken, as they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shard", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out}: exists already")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    taken = seen = 0
    with tarfile.open(options.out, "w", format=tarfile.USTAR_FORMAT) as out:
        for name, content in iter_members(options.shard):
            seen += 1
            if is_sharp(decode(BytesIO(content), name)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                out.addfile(member, BytesIO(content))
                taken += 1
    print(f"{taken} of {seen} faces in {options.out}")


if __name__ == "__main__":
    main()
