"""Make the pictures of README.md again, with the shipped model and faces that nobody has.

    panini convert random_face-2021.7.21.1-py3-none-any.whl runs/prior.safetensors
    python examples/make_pictures.py runs/prior.safetensors

The faces of the contact sheet are drawn by the prior from a seed that training never used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from panini import Restorer
from panini.checkpoints import load_prior
from panini.degradations import DegradationParams, bilinear_antialias, degrade
from panini.evaluation.sheet import caption, picture_table
from panini.images import RgbImage, to_uint8
from panini.models.mobile_stylegan import MobileStyleGAN

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "images"
LOW_SIDES = (128, 96, 64, 48, 32, 24, 16, 8)
SEED = 20261122
SIDE = 256
"""Of a tile, px."""


@torch.inference_mode()
def faces(prior: MobileStyleGAN, count: int) -> list[RgbImage]:
    """Faces of the prior, uint8 RGB (512, 512, 3)."""
    generator = torch.Generator().manual_seed(SEED)
    z = torch.randn(count, prior.z_dim, generator=generator)
    return [bilinear_antialias(to_uint8(prior(part, 0.8))[0], 512) for part in z.split(1)]


def contact_sheet(restorer: Restorer, truths: list[RgbImage]) -> Image.Image:
    """Input, restored, truth; mild to severe."""
    rows = []
    for index, (truth, low_side) in enumerate(zip(truths, LOW_SIDES, strict=True)):
        params = DegradationParams.from_low_side(low_side, sigma=2.0, noise=6.0, jpeg=75)
        lq = degrade(truth, params, np.random.default_rng([SEED, index]))
        (face,) = restorer.restore_aligned(lq).faces
        rows.append((caption(params, face.theta), (lq, np.asarray(face.restored), truth)))
    return picture_table(("input", "restored", "truth"), rows)


@torch.inference_mode()
def upscale_sheet(restorer: Restorer, truths: list[RgbImage]) -> Image.Image:
    """Faces of 64 px, enlarged by interpolation, drawn, and brought to agree with the input."""
    exact = restorer.with_consistency(True)
    rows = []
    for index, truth in enumerate(truths):
        small = bilinear_antialias(truth, restorer.model.config.in_size)
        pixels, bicubic = (
            np.asarray(Image.fromarray(small).resize((SIDE, SIDE), method))
            for method in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC)
        )
        drawn = [
            np.asarray(each.restore_aligned(Image.fromarray(small)).faces[0].restored)
            for each in (restorer, exact)
        ]
        rows.append((f"face {index}", (pixels, bicubic, *drawn, truth)))
    return picture_table(("input, 64 px", "bicubic", "drawn", "--consistent", "truth"), rows)


def before_after(restorer: Restorer) -> Image.Image:
    """The degraded photo and the restored one, side by side, around the face."""
    photo = Image.open(HERE / "astronaut_lq.png").convert("RGB")
    restored = restorer.restore(photo).image
    area = (110, 0, 350, 225)
    size = (480, 450)
    sheet = Image.new("RGB", (2 * size[0] + 6, size[1]), (255, 255, 255))
    for column, image in enumerate((photo, restored)):
        part = image.crop(area).resize(size, Image.Resampling.LANCZOS)
        sheet.paste(part, (column * (size[0] + 6), 0))
    return sheet


def main() -> None:
    """Write the pictures into docs/images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", type=Path, help="the converted prior")
    parser.add_argument("--model", default="mobile-mfr")
    parser.add_argument("--small-model", default="mobile-sr16")
    args = parser.parse_args()

    restorer = Restorer.from_pretrained(args.model, "cpu")
    truths = faces(load_prior(args.prior), len(LOW_SIDES))
    pictures = {
        "before_after.webp": before_after(restorer),
        "contact_sheet.webp": contact_sheet(restorer, truths),
        "upscale.webp": upscale_sheet(Restorer.from_pretrained(args.small_model, "cpu"), truths),
    }
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(DOCS / name, quality=85, method=6)  # WebP: the repository stays small
        print(f"{DOCS / name}  {picture.width}x{picture.height}")


if __name__ == "__main__":
    main()
