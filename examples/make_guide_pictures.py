"""Make the pictures of docs/editing.md again, with the shipped model and the examples here.

python examples/make_guide_pictures.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from panini import Restorer
from panini.degradations import DegradationParams, degrade
from panini.editing import Explanation, explain, heat_map, vary
from panini.editing.explanation_report import overview
from panini.editing.pictures import masks_plot, sheet
from panini.editing.variation_report import comparison_sheet
from panini.images import read_rgb

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "images"
BIASES = (-3.0, -1.5, 0.0, 1.5, 3.0)
LOW_SIDES = (128, 40, 16)
SEED = 1


def bias_sheet(restorer: Restorer) -> Image.Image:
    """Two faces at several biases."""
    photo = restorer.restore(HERE / "astronaut_lq.png", faces="largest").faces[0].lq
    cells: list[tuple[str, Image.Image]] = []
    for lq in (Image.open(HERE / "face_lq.png"), photo):
        cells.append(("input", lq))
        for bias in BIASES:
            (face,) = restorer.restore_aligned(lq, prior_bias=bias).faces
            cells.append((f"bias {bias:g}, theta {face.theta:.2f}", face.restored))
    return sheet(cells, columns=1 + len(BIASES), side=240)


def variations_sheet(restorer: Restorer) -> Image.Image:
    """A face of 16 px and its variations."""
    (face,) = restorer.restore_aligned(degraded(16)).faces
    return comparison_sheet([face], [vary(restorer, face, 7, seed=SEED)])


def explain_sheet(restorer: Restorer) -> Image.Image:
    """What is told of the face in a photo."""
    (face,) = restorer.restore(HERE / "astronaut_lq.png", faces="largest").faces
    told = explain(restorer, face, seed=SEED)
    return overview(told, heat_of(told), masks_plot(told.masks, side=640))


def invention_sheet(restorer: Restorer) -> Image.Image:
    """One face, degraded more and more, and what of it was invented."""
    cells: list[tuple[str, Image.Image]] = []
    for low_side in LOW_SIDES:
        (face,) = restorer.restore_aligned(degraded(low_side)).faces
        told = explain(restorer, face, seed=SEED)
        cells += [
            (f"input of {low_side} px", face.lq),
            (f"result, theta {face.theta:.2f}", face.restored),
            (f"invented: mean {told.invention.mean:.2f}", heat_of(told)),
        ]
    return sheet(cells, columns=3, side=300)


def degraded(low_side: int) -> np.ndarray:
    """The example face through a given number of pixels."""
    params = DegradationParams.from_low_side(low_side, sigma=1.0, noise=4.0, jpeg=80)
    truth = read_rgb(HERE / "face_truth.png")
    return degrade(truth, params, np.random.default_rng(low_side))


def heat_of(told: Explanation) -> Image.Image:
    """The map over the face."""
    return heat_map(np.asarray(told.face.restored), told.invention.map)


def main() -> None:
    """Write docs/images/guide_{bias,variations,explain,invention}.webp."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/editing.md again.")
    parser.add_argument("--model", default="mobile-mfr")
    restorer = Restorer.from_pretrained(parser.parse_args().model, "cpu")
    pictures = {
        "guide_bias.webp": bias_sheet,
        "guide_variations.webp": variations_sheet,
        "guide_explain.webp": explain_sheet,
        "guide_invention.webp": invention_sheet,
    }
    for name, make in pictures.items():
        picture = make(restorer)
        picture.save(DOCS / name, quality=85, method=6)  # WebP: the repository stays small
        print(f"{DOCS / name}  {picture.width}x{picture.height}")


if __name__ == "__main__":
    main()
