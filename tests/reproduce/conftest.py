"""What a study reads, at a size that takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from panini.features.vgg16 import VGG16
from panini.reproduce import Options, load_budget, reproduce


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """A folder of 20 squares of 256 px, each with a pattern of its own."""
    folder = tmp_path_factory.mktemp("faces")
    y, x = np.mgrid[:256, :256] / 256
    for index in range(20):
        waves = [np.sin(6 * (index + 1) * (x * a + y * b)) for a, b in ((1, 0), (0, 1), (1, 1))]
        image = np.rint(127 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> Path:
    """A folder with a small VGG-16 and its heads, under their names."""
    folder = tmp_path_factory.mktemp("networks")
    widths = (4, 4, 4, 8, 8)
    torch.manual_seed(3)
    vgg = VGG16(widths).state_dict()
    save_file(vgg, folder / "vgg16_caffe.safetensors", {"preprocess": "caffe"})
    heads = {f"lin{i}.weight": torch.ones(1, width, 1, 1) for i, width in enumerate(widths)}
    save_file(heads, folder / "lpips_vgg_heads.safetensors")
    return folder


@pytest.fixture
def options(faces, networks, tmp_path):
    """(**changes) → options of a smoke study."""

    def make(**changes) -> Options:
        fields = {
            "budget": load_budget("smoke"),
            "out": tmp_path / "study",
            "data": faces,
            "metrics_dir": networks,
            "device": "cpu",
        }
        return Options(**fields | changes)

    return make


@pytest.fixture(scope="session")
def study(faces, networks, tmp_path_factory) -> Path:
    """The folder of a smoke study of everything."""
    out = tmp_path_factory.mktemp("study")
    fields = {"budget": load_budget("smoke"), "data": faces, "metrics_dir": networks}
    reproduce("all", Options(out=out, device="cpu", command="panini reproduce all", **fields))
    return out
