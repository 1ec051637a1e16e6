"""The mobile prior: equality with OpenVINO's output of its IR, and the contract of `GanPrior`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from panini.checkpoints import SPECS, load_network_prior
from panini.checkpoints.convert.mobile_prior import read_mobile_prior
from panini.consistency import back_project, reduce
from panini.models.mobile_stylegan import (
    ANCHOR_STEPS,
    MobileStyleGAN,
    MobileStyleGANConfig,
    haar_downsample,
    haar_upsample,
)
from panini.models.prior import Window

GOLDEN = Path(__file__).parents[1] / "golden" / "mobilestylegan.npz"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(size: int = 128, width: int = 16) -> MobileStyleGAN:
    """A small prior whose noise, mean and biases are not zero."""
    torch.manual_seed(0)
    config = MobileStyleGANConfig(
        size=size,
        w_dim=16,
        mapping_layers=2,
        base_channels=width,
        channels=(width,) * (size.bit_length() - 4),
    )
    prior = MobileStyleGAN(config)
    for name, value in prior.named_buffers():
        value.normal_(std=0.1 if name.endswith("noise") else 1.0)
    return prior.eval().requires_grad_(False)


def random_ws(prior: MobileStyleGAN, count: int = 1) -> torch.Tensor:
    return torch.randn(count, prior.num_ws, prior.w_dim, generator=seeded(1))


# ----------------------------------------------------------------------------------------------
# Golden values


def wheel() -> Path:
    """The public wheel or its unpacked folder, wherever this machine has it."""
    if path := os.environ.get("PANINI_MOBILE_WHEEL"):
        return Path(path)
    spec = importlib.util.find_spec("random_face")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the wheel random-face: name it in PANINI_MOBILE_WHEEL, or install it")
    return Path(spec.submodule_search_locations[0])


def golden_errors(prior: MobileStyleGAN) -> dict[str, float]:
    """Relative error of every golden array; prints them."""
    with np.load(GOLDEN) as file:
        golden = dict(file)
    with torch.inference_mode():
        w = prior.mapping(torch.from_numpy(golden["z"]))
        images = torch.cat([prior.synthesis(prior.broadcast(one)) for one in w.split(1)])
    found = {
        "w": w,
        "strided": images[..., ::8, ::8],
        "crop": images[..., 480:544, 480:544],
        "mean": images.mean(dim=(2, 3)),
        "std": images.std(dim=(2, 3), unbiased=False),
    }
    assert found.keys() == golden.keys() - {"z"}
    errors = {
        key: float(np.linalg.norm(value.numpy() - golden[key]) / np.linalg.norm(golden[key]))
        for key, value in found.items()
    }
    print("\nmobile prior: " + ", ".join(f"{key} {error:.1e}" for key, error in errors.items()))
    return errors


def test_prior_of_the_wheel_draws_the_golden_faces():
    prior = MobileStyleGAN()
    missing, unknown = prior.load_state_dict(read_mobile_prior(wheel()), strict=False)
    sizes = (8, 16, 32, 64, 128, 256, 512)
    derived = {f"heads.{size}.{part}" for size in sizes for part in ("weight", "bias")}
    assert not unknown
    assert set(missing) == derived | {"w_avg"}
    errors = golden_errors(prior.eval())
    assert max(errors.values()) < 1e-3, errors


def test_prior_of_the_shipped_model_draws_the_golden_faces():
    if "mobile-mfr" not in SPECS:
        pytest.skip("mobile-mfr is not shipped yet")
    prior = load_network_prior("mobile-mfr")
    assert isinstance(prior, MobileStyleGAN)
    errors = golden_errors(prior)  # stored as float16
    assert max(errors.values()) < 1e-2, errors


def test_parameter_counts_are_those_of_the_public_model():
    prior = MobileStyleGAN()
    assert sum(p.numel() for p in prior.mapping_layers.parameters()) == 8 * (512 * 512 + 512)
    assert prior.num_ws == 23
    assert prior.channels == dict.fromkeys((4, 8, 16, 32, 64), 512)


# ----------------------------------------------------------------------------------------------
# Haar transform


def test_haar_upsample_is_the_formula_of_every_pixel():
    bands = torch.randn(2, 12, 3, 5, generator=seeded())
    low, details = bands[:, :3], bands[:, 3:].reshape(2, 3, 3, 3, 5)
    image = haar_upsample(bands)
    assert image.shape == (2, 3, 6, 10)
    for a in (0, 1):
        for b in (0, 1):
            v, h, d = details.unbind(2)
            pixel = 0.5 * (low + (-1) ** a * v + (-1) ** b * h + (-1) ** (a + b) * d)
            torch.testing.assert_close(image[..., a::2, b::2], pixel)


def test_haar_transforms_undo_each_other():
    image = torch.randn(2, 5, 8, 6, generator=seeded())
    torch.testing.assert_close(haar_upsample(haar_downsample(image)), image)
    # Orthonormal: it keeps the energy, which `fit_heads` relies on.
    torch.testing.assert_close(haar_downsample(image).square().sum(), image.square().sum())


# ----------------------------------------------------------------------------------------------
# Synthesis


def test_every_size_from_8_to_1024_comes_out():
    prior = build(1024)
    ws = random_ws(prior)
    for size in (8, 16, 32, 64, 128, 256, 512, 1024):
        assert prior.synthesis(ws, size=size).shape == (1, 3, size, size)
    assert prior.synthesis(ws).shape == (1, 3, 1024, 1024)


def test_synthesis_gives_each_layer_its_own_style():
    prior = build(64)
    ws = random_ws(prior)
    image = prior.synthesis(ws)
    for index in range(prior.num_ws):
        changed = ws.clone()
        changed[:, index] += 1
        assert not torch.allclose(prior.synthesis(changed), image), f"ws[{index}] does nothing"


def test_a_block_modulates_before_each_of_its_steps():
    """The merged modulation of `Block` against the plain order of the design."""
    block = build(16).blocks[0]
    x = torch.randn(2, 16, 4, 4, generator=seeded())
    ws = torch.randn(2, 3, 16, generator=seeded(1))

    def conv(layer, x, w):
        x = F.conv2d(x * layer.style(w), layer.depthwise, padding=1, groups=x.shape[1])
        return F.leaky_relu(F.conv2d(x, layer.weight) + layer.noise + layer.bias, 0.2)

    plain = haar_upsample(x * block.up_style(ws[:, 0]))
    plain = conv(block.conv2, conv(block.conv1, plain, ws[:, 1]), ws[:, 2])
    torch.testing.assert_close(block(x, ws), plain, rtol=1e-4, atol=1e-5)


def test_fuse_is_called_from_coarse_to_fine():
    prior = build(256)
    calls = []

    def fuse(level, feature):
        calls.append((level, tuple(feature.shape)))
        return feature

    ws = random_ws(prior, 2)
    same = prior.synthesis(ws, fuse=fuse)
    assert calls == [(level, (2, 16, level, level)) for level in (4, 8, 16, 32, 64)]
    torch.testing.assert_close(same, prior.synthesis(ws))


@pytest.mark.parametrize("level", [4, 8, 16, 32, 64])
def test_what_fuse_returns_is_what_goes_on(level):
    prior = build(128)
    ws = random_ws(prior)

    def blank(at, feature):
        return torch.zeros_like(feature) if at == level else feature

    def blank_by_hand(at, feature):
        return feature * 0 if at <= level else feature

    image = prior.synthesis(ws, fuse=blank)
    assert not torch.allclose(image, prior.synthesis(ws))
    # Whatever came before a blank level is forgotten.
    torch.testing.assert_close(image, prior.synthesis(ws, fuse=blank_by_hand))


def test_a_window_is_that_part_of_the_whole_but_for_its_edges():
    prior = build(512)
    ws = random_ws(prior)
    window = Window(top=20, left=8, side=24)
    part = prior.synthesis(ws, window=window)
    whole = window.crop(prior.synthesis(ws))
    assert part.shape == whole.shape == (1, 3, 192, 192)
    edge = 2 * 512 // 64  # two cells, as the training cuts off
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(part[inside], whole[inside])
    assert not torch.allclose(part, whole)


def test_an_anchor_is_what_the_face_shrinks_to():
    prior = build(512)
    ws = random_ws(prior)
    small = prior.synthesis(ws, size=256)
    plain, anchored = prior.synthesis(ws), prior.synthesis(ws, anchor=256)

    def distance(image):
        return float((reduce(image, 256) - small).abs().mean())

    # A random network draws noise, of which the filters pass least.
    assert distance(anchored) < 0.4 * distance(plain)
    torch.testing.assert_close(anchored, back_project(plain, small, ANCHOR_STEPS))
    # At its own size and below there is nothing to agree with.
    for size in (128, 256):
        same = prior.synthesis(ws, size=size, anchor=256)
        assert torch.equal(same, prior.synthesis(ws, size=size))


@pytest.mark.parametrize(("anchor", "edge"), [(64, 64), (256, 32)])
def test_an_anchored_window_is_that_part_of_the_whole_but_for_its_edges(anchor, edge):
    prior = build(512)
    ws = random_ws(prior)
    window = Window(top=20, left=8, side=24)
    part = prior.synthesis(ws, window=window, anchor=anchor)
    whole = window.crop(prior.synthesis(ws, anchor=anchor))
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(part[inside], whole[inside])


def test_modules_above_a_level_are_those_that_compute_there():
    prior = build(128)
    ws = random_ws(prior)
    before = prior.synthesis(ws, size=32), prior.synthesis(ws)
    for module in prior.modules_above(16):
        for parameter in module.parameters():
            parameter.add_(0.1)
    assert torch.equal(prior.synthesis(ws, size=32), before[0])
    assert not torch.allclose(prior.synthesis(ws), before[1])
    assert prior.modules_above(64) == []


@pytest.mark.parametrize("size", [64, 128])
def test_a_window_counts_at_small_sizes_too(size):
    prior = build(128)
    ws = random_ws(prior)
    window = Window(top=32, left=0, side=32)
    part = prior.synthesis(ws, size=size, window=window)
    # No convolution lies between the window's level and these images.
    torch.testing.assert_close(part, window.crop(prior.synthesis(ws, size=size)))


def test_a_window_outside_the_frame_is_refused():
    prior = build(128)
    with pytest.raises(ValueError, match=r"Window\(top=40.* does not fit a map of 64 px"):
        prior.synthesis(random_ws(prior), window=Window(top=40, left=0, side=32))
    with pytest.raises(ValueError, match="does not fit a map of 32 px"):
        prior.synthesis(random_ws(prior), size=32, window=Window(top=0, left=0, side=32))


def test_size_and_styles_that_do_not_fit_are_refused():
    prior = build(32)
    with pytest.raises(ValueError, match="size must be one of 8, 16, 32, got 64"):
        prior.synthesis(random_ws(prior), size=64)
    with pytest.raises(ValueError, match=r"expected ws \(N, 8, 16\), got \(1, 7, 16\)"):
        prior.synthesis(random_ws(prior)[:, 1:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 96}, "size must be a power of two from 16, got 96"),
        ({"size": 8, "channels": ()}, "size must be a power of two from 16, got 8"),
        ({"size": 512}, "a 512 px generator has 6 blocks"),
    ],
)
def test_a_config_that_does_not_fit_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MobileStyleGANConfig(**fields)


# ----------------------------------------------------------------------------------------------
# Latents and heads


def test_truncation_runs_from_the_mean_to_w():
    prior = build(32)
    z = torch.randn(3, 16, generator=seeded())
    w = prior.mapping(z)
    assert torch.equal(prior.mapping(z, 0.0), prior.w_avg.expand(3, -1))
    torch.testing.assert_close(prior.mapping(z, 0.5), (w + prior.w_avg) / 2)
    torch.testing.assert_close(
        prior(z, 0.5), prior.synthesis(prior.broadcast((w + prior.w_avg) / 2))
    )


def test_mapping_does_not_see_the_length_of_z():
    prior = build(32)
    z = torch.randn(3, 16, generator=seeded())
    torch.testing.assert_close(prior.mapping(5 * z), prior.mapping(z), rtol=1e-4, atol=1e-5)


def test_mean_of_w_is_estimated_and_kept():
    prior = build(32)
    mean = prior.estimate_w_avg(100, seeded(3))
    assert torch.equal(prior.w_avg, mean)
    w = prior.mapping(torch.randn(100, 16, generator=seeded(3)))
    torch.testing.assert_close(mean, w.mean(dim=0))


def test_fitted_heads_show_the_prior_at_smaller_sizes():
    prior = build(128)
    faces = prior.broadcast(prior.mapping(torch.randn(4, 16, generator=seeded(9))))

    def psnr(size: int) -> float:
        target = F.avg_pool2d(prior.synthesis(faces), 128 // size)
        return float(10 * torch.log10(4 / F.mse_loss(prior.synthesis(faces, size=size), target)))

    before = {size: psnr(size) for size in (8, 16, 32, 64)}
    full = prior.synthesis(faces)
    found = prior.fit_heads(16, seeded(2))
    after = {size: psnr(size) for size in before}
    assert found.keys() == before.keys()
    assert all(after[size] > before[size] + 3 for size in before), (before, after)
    # On faces that were not fitted, about what the fit says of itself.
    assert all(abs(after[size] - found[size]) < 3 for size in before), (found, after)
    assert torch.equal(prior.synthesis(faces), full)
