"""Equality with the authors' networks: golden values of tests/golden, on synthetic weights.

Every tensor of the synthetic weights is drawn from a generator that is seeded with the authors'
name of it, so the key names of `checkpoints.convert.authors` are proved as well.
"""

from __future__ import annotations

import ast
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from panini.checkpoints.convert import authors
from panini.checkpoints.convert.stylegan2 import W_AVG_SAMPLES, W_AVG_SEED, mean_style
from panini.models.panini_net import PaniniNet
from panini.models.stylegan2 import Discriminator, StyleGAN2Config

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[2].parent / "shared" / "reference"
TOLERANCE = 1e-3


def foreign_shapes(names: Mapping[str, str], ours: Mapping[str, Tensor]) -> dict[str, tuple]:
    """Shapes under the authors' names: their modulated layers keep an axis for the batch."""
    shapes = {}
    for theirs, name in names.items():
        shape = tuple(ours[name].shape)
        if ".conv.weight_orig" in theirs and theirs.startswith("generator."):
            shape = (1, *shape)
        elif name.endswith("to_rgb.bias"):
            shape = (1, *shape, 1, 1)
        shapes[theirs] = shape
    return shapes


def synthetic_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    n = rng.standard_normal(shape, dtype=np.float32)
    plain = ("weight_orig", "constant_input.input", "choice_vector")
    if key.endswith(plain) or "injected_noise" in key:
        value = n
    elif key.endswith("style_modulation.bias"):
        value = 1 + 0.1 * n
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(n)
    elif key.endswith(("running_mean", "bias", "noise_injector.weight")):
        value = 0.1 * n
    elif n.ndim == 1:
        value = 1 + 0.1 * n
    else:
        value = n / np.float32(math.sqrt(math.prod(shape[1:])))
    return torch.from_numpy(value)


def synthetic_state(names: Mapping[str, str], model: nn.Module) -> dict[str, Tensor]:
    shapes = foreign_shapes(names, model.state_dict())
    return {key: synthetic_tensor(key, shape) for key, shape in shapes.items()}


def uniform(seed: int, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))


def image_arrays(image: Tensor) -> dict[str, Tensor]:
    return {
        "strided": image[..., ::16, ::16],
        "crop": image[..., 480:544, 480:544],
        "mean": image.mean(dim=(2, 3)),
        "std": image.std(dim=(2, 3), unbiased=False),
    }


def compare(name: str, arrays: Mapping[str, Tensor]) -> None:
    """Each golden array within TOLERANCE; prints the figures."""
    with np.load(GOLDEN / f"{name}.npz") as golden:
        assert set(golden) == set(arrays)
        errors = {
            key: float(np.linalg.norm(arrays[key].numpy() - golden[key]))
            / float(np.linalg.norm(golden[key]))
            for key in golden
        }
    print(f"\n{name}: " + ", ".join(f"{key} {error:.1e}" for key, error in errors.items()))
    assert all(error < TOLERANCE for error in errors.values()), errors


def panini_arrays(out) -> dict[str, Tensor]:
    prior = torch.stack([out.masks[level][..., 0, 0] for level in authors.FUSED_LEVELS], dim=1)
    masks = torch.stack([prior, 1 - prior], dim=2)  # (N, levels, 2, C)
    return image_arrays(out.image) | {"mask": masks, "ws": out.ws}


def fill(model: nn.Module, names: Mapping[str, str]) -> None:
    """Synthetic weights under our names and in our shapes."""
    theirs, ours = synthetic_state(names, model), model.state_dict()
    state = {name: theirs[key].reshape(ours[name].shape) for key, name in names.items()}
    if "prior.w_avg" in ours:
        state["prior.w_avg"] = mean_style(state, StyleGAN2Config(), "prior.")
    model.load_state_dict(state)


def run(name: str, names: Mapping[str, str], seed: int, side: int) -> SimpleNamespace:
    model = PaniniNet.named(name).eval()
    fill(model, names)
    with torch.inference_mode():
        out = model(uniform(seed, (1, 3, side, side)))
    return SimpleNamespace(model=model, out=out)


@pytest.fixture(scope="module")
def mfr():
    return run("mfr-1024", authors.mfr_names(), seed=1, side=512)


@pytest.fixture(scope="module")
def sr():
    return run("sr16-1024", authors.sr_names(), seed=2, side=64)


@pytest.fixture(scope="module")
def critic():
    model = Discriminator().eval()
    fill(model, authors.discriminator_names())
    return model


def count(model: nn.Module, *apart: str) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(apart))


def test_mfr_agrees_with_the_authors_network(mfr):
    compare("panini_mfr", panini_arrays(mfr.out) | {"dre": mfr.out.degradation})


def test_theta_is_the_mean_mask_of_64_px(mfr):
    with np.load(GOLDEN / "panini_mfr.npz") as golden:
        theta = golden["mask"][:, 4, 0].mean()
    assert mfr.out.theta.item() == pytest.approx(theta, rel=TOLERANCE)


def test_mapping_and_synthesis_agree_with_the_authors_stylegan2(mfr):
    rng = np.random.Generator(np.random.PCG64(3))
    z = torch.from_numpy(rng.standard_normal((2, 512), dtype=np.float32))
    prior = mfr.model.prior
    with torch.inference_mode():
        w = prior.mapping(z)
        image = prior.synthesis(prior.broadcast(w[:1]))
    compare("stylegan2", image_arrays(image) | {"w": w})


def test_mean_style_is_that_of_the_mapping(mfr):
    prior = mfr.model.prior
    stored = prior.w_avg.clone()
    again = prior.estimate_w_avg(W_AVG_SAMPLES, torch.Generator().manual_seed(W_AVG_SEED))
    torch.testing.assert_close(stored, again)


def test_mfr_has_the_authors_parameter_counts(mfr):
    assert count(mfr.model) == 94_339_836
    assert count(mfr.model, "prior.mapping_network.", "degradation_encoder.head.") == 92_107_004
    parts = {name: count(child) for name, child in mfr.model.named_children()}
    assert parts == {
        "prior": 30_370_060,
        "encoder": 49_510_320,
        "degradation_encoder": 1_278_784,
        "fusion": 1_381_632 + 11_799_040,
    }


def test_sr_agrees_with_the_authors_network(sr):
    compare("panini_sr", panini_arrays(sr.out))


def test_sr_has_the_authors_parameter_counts(sr):
    assert count(sr.model) == 108_847_096
    assert count(sr.model, "prior.mapping_network.") == 106_745_848
    assert count(sr.model.encoder) == 65_296_108


def test_discriminator_agrees_with_the_authors_network(critic):
    with torch.inference_mode():
        logits = critic(uniform(4, (2, 3, 1024, 1024)))
    compare("discriminator", {"logits": logits})


def test_discriminator_has_the_authors_parameter_count(critic):
    assert count(critic) == 29_012_513


@pytest.mark.parametrize("part", ["mfr", "sr", "discriminator"])
def test_keys_and_shapes_are_those_of_the_authors_files(part, request):
    path = SHARED / f"authors-state-dict-{part}.txt"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    rows = (line.split(" ", 1) for line in path.read_text().splitlines())
    listed = {key: ast.literal_eval(shape) for key, shape in rows if not key.endswith(".kernel")}
    fixture = request.getfixturevalue("critic" if part == "discriminator" else part)
    model = fixture if part == "discriminator" else fixture.model
    names = getattr(authors, f"{part}_names")()
    assert foreign_shapes(names, model.state_dict()) == listed
