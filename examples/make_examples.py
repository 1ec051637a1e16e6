"""Make the pictures of this folder again: a public-domain photo, and a face that nobody has.

    python examples/make_examples.py                         the photo (needs scikit-image)
    python examples/make_examples.py --prior WHEEL --seed 21 the photo and the synthetic face

WHEEL is random_face-2021.7.21.1-py3-none-any.whl:
    pip download --no-deps random-face==2021.7.21.1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from panini.checkpoints.convert.mobile_prior import read_mobile_prior
from panini.degradations import DegradationParams, bilinear_antialias, degrade
from panini.images import RgbImage, to_uint8, write_rgb
from panini.models.mobile_stylegan import MobileStyleGAN

HERE = Path(__file__).parent
LQ = DegradationParams.from_low_side(40, size=512, sigma=2.0, noise=6.0, jpeg=70)
SMALL = 64
"""Side of the face for super-resolution, px."""
PHOTO_LQ = DegradationParams.from_low_side(140, size=512, sigma=1.5, noise=6.0, jpeg=60)


def astronaut() -> RgbImage:
    """Eileen Collins, photographed by NASA; public domain. uint8 RGB, (512, 512, 3)."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut())


@torch.inference_mode()
def synthetic_face(wheel: Path, seed: int) -> RgbImage:
    """A face drawn by the mobile prior, truncated to look ordinary. uint8 RGB, (1024, 1024, 3)."""
    prior = MobileStyleGAN().eval()
    # The wheel has neither w_avg nor the heads of the smaller sizes; only the former is used.
    prior.load_state_dict(read_mobile_prior(wheel), strict=False)
    generator = torch.Generator().manual_seed(seed)
    prior.estimate_w_avg(10_000, generator)
    return to_uint8(prior(torch.randn(1, prior.z_dim, generator=generator), truncation_psi=0.7))[0]


def main() -> None:
    """Write the files beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", type=Path, help="the wheel that carries the face prior")
    parser.add_argument("--seed", type=int, default=21, help="which face")
    args = parser.parse_args()

    photo = astronaut()
    photo_lq = degrade(photo, PHOTO_LQ, np.random.default_rng(args.seed))
    images = {"astronaut.png": photo, "astronaut_lq.png": photo_lq}
    if args.prior:
        truth = bilinear_antialias(synthetic_face(args.prior, args.seed), 512)
        images["face_truth.png"] = truth
        images["face_lq.png"] = degrade(truth, LQ, np.random.default_rng(args.seed))
        images["face_small.png"] = bilinear_antialias(truth, SMALL)
    for name, image in images.items():
        write_rgb(HERE / name, image, overwrite=True)
        print(f"{HERE / name}  {image.shape[1]}x{image.shape[0]}")


if __name__ == "__main__":
    main()
