"""The weights in the package: whole, small enough, and good at what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panini.checkpoints import SPECS, load_model, load_tensors
from panini.checkpoints.io import sha256_of
from panini.consistency import reduce
from panini.degradations import DegradationParams, degrade
from panini.images import read_rgb, to_tensor, to_uint8
from panini.metrics.grid import grid_amplitude
from panini.metrics.psnr import psnr

EXAMPLES = Path(__file__).parents[2] / "examples"
RATES = (16, 32, 64, 128)


@pytest.fixture(scope="module")
def net():
    return load_model("mobile-mfr")


@pytest.fixture(scope="module")
def restored(net):
    with torch.inference_mode():
        return net(to_tensor(read_rgb(EXAMPLES / "face_lq.png")))


@pytest.mark.parametrize("name", SPECS)
def test_a_shipped_file_is_the_one_that_was_measured(name):
    spec = SPECS[name]
    assert sha256_of(spec.path) == spec.sha256
    assert spec.path.stat().st_size <= 60_000_000
    _, meta = load_tensors(spec.path, kind="panini-net")
    assert meta["provenance"]["restoration_images"] > 0


def test_the_networks_stay_within_their_budget(net):
    assert sum(parameter.numel() for parameter in net.parameters()) <= 30_000_000


def test_the_example_face_comes_nearer_to_its_truth(restored):
    truth = torch.from_numpy(np.array(read_rgb(EXAMPLES / "face_truth.png"))).permute(2, 0, 1)[None]
    lq = torch.from_numpy(np.array(read_rgb(EXAMPLES / "face_lq.png"))).permute(2, 0, 1)[None]
    assert restored.image.shape == (1, 3, 1024, 1024)
    small = torch.nn.functional.avg_pool2d(restored.image, 2)
    ours = torch.from_numpy(np.stack(to_uint8(small))).permute(0, 3, 1, 2)
    before, after = psnr(lq, truth).item(), psnr(ours, truth).item()
    print(f"PSNR to the truth: {before:.2f} dB before, {after:.2f} dB after")
    assert after > before


def test_the_output_is_free_of_a_grid(restored):
    amplitude = grid_amplitude(restored.image).item()
    print(f"8 px lattice: {amplitude:.3f} levels")
    assert amplitude < 1.0


def test_theta_rises_with_the_downsampling_rate(net):
    truth = read_rgb(EXAMPLES / "face_truth.png")
    generator = np.random.default_rng(0)
    lqs = [
        degrade(truth, DegradationParams(sigma=1.5, rate=rate, noise=5.0, jpeg=80), generator)
        for rate in RATES
    ]
    with torch.inference_mode():
        masks = net.fusion.masks(net.degradation(torch.cat([to_tensor(lq) for lq in lqs])))
    thetas = masks[64].mean(dim=(1, 2, 3)).tolist()
    print("θ", [round(theta, 3) for theta in thetas])
    # At rate 128 four pixels are left: one face in twelve, this one too, falls back a little there.
    assert thetas[0] < thetas[1] < thetas[2]
    assert thetas[3] > thetas[1]


def test_the_same_face_gives_the_same_pixels(net, restored):
    with torch.inference_mode():
        again = net(to_tensor(read_rgb(EXAMPLES / "face_lq.png")))
    assert torch.equal(again.image, restored.image)


def test_the_small_example_face_is_drawn_nearer_to_its_truth_than_bicubic():
    net = load_model("mobile-sr16")
    small = read_rgb(EXAMPLES / "face_small.png")
    truth = to_tensor(read_rgb(EXAMPLES / "face_truth.png"))
    bicubic = Image.fromarray(small).resize((1024, 1024), Image.Resampling.BICUBIC)
    with torch.inference_mode():
        drawn = net(to_tensor(small)).image
    assert drawn.shape == (1, 3, 1024, 1024)
    before, after = (
        psnr(torch.nn.functional.avg_pool2d(image, 2), truth).item()
        for image in (to_tensor(np.asarray(bicubic)), drawn)
    )
    # It agrees with its input to a level or so.
    again = psnr(reduce(drawn, 64), to_tensor(small)).item()
    print(f"PSNR to the truth: bicubic {before:.2f} dB, drawn {after:.2f} dB; again {again:.1f} dB")
    assert after > before
    assert again > 45
    assert grid_amplitude(drawn).item() < 1.0
