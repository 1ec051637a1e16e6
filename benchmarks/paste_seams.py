"""How visible the borders of pasted faces are: steps across the mask's rim, face by face.

    python benchmarks/paste_seams.py photos/*.jpg --model mobile-mfr

Prints a Markdown table, in levels of 0..255 a px: the photo's own gradient along the rim, and the
step that pasting adds, without and with the photo's colours matched. Where a step is below the
photo's own gradient, the photo hides it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from panini import Restorer
from panini.faces.paste import PasteOptions, paste_into
from panini.faces.seam import Seam, seam_step
from panini.images import RgbImage, load_image
from panini.restorer import RestoredFace

WAYS = {
    "as drawn": PasteOptions(match_colour=False),
    "matched": PasteOptions(),
    "matched, grain": PasteOptions(grain=True),
}


def seam(photo: RgbImage, face: RestoredFace, options: PasteOptions) -> Seam:
    """Paste one face alone, and measure its border."""
    drawn = np.asarray(face.restored)
    after = photo.copy()
    paste_into(after, drawn, face.matrix, options=options)
    return seam_step(photo, after, face.matrix, drawn.shape[0])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Steps across the borders of pasted faces.")
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--model", default="mobile-mfr")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prior-bias", type=float, default=0.0)
    arguments = parser.parse_args()

    restorer = Restorer.from_pretrained(arguments.model, arguments.device)
    print(f"| photo | face, px | own gradient | {' | '.join(WAYS)} |")
    print("|---" * (len(WAYS) + 3) + "|")
    below = dict.fromkeys(WAYS, 0)
    count = 0
    for file in arguments.photos:
        photo = load_image(file)
        for face in restorer.restore(photo, prior_bias=arguments.prior_bias).faces:
            seams = {way: seam(photo, face, options) for way, options in WAYS.items()}
            own = next(iter(seams.values())).own
            size = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
            steps = " | ".join(f"{each.step:.2f}" for each in seams.values())
            print(f"| {file.name} | {size:.0f} | {own:.2f} | {steps} |", flush=True)
            count += 1
            for way, each in seams.items():
                below[way] += each.ratio < 1
    share = ", ".join(f"{way} {number}" for way, number in below.items())
    print(f"\nof {count} borders below the photo's own gradient: {share}")


if __name__ == "__main__":
    main()
