"""Small faces, small metric networks, and systems that need no weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from panini.evaluation import Drawn, Plan
from panini.features.identity import IdentityNet
from panini.features.vgg16 import VGG16
from panini.metrics.judge import WEIGHTS, Judge
from panini.metrics.lpips import LPIPS
from panini.metrics.sharpness import sharpness

WIDTHS = (2, 2, 2, 2, 2)
CHEAP = ("psnr", "ssim", "lpips", "identity", "sharpness")


def make_face(seed: int, side: int = 256) -> np.ndarray:
    """Smooth colours with some texture."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(30, 226, (12, 12, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return (image.astype(int) + generator.integers(-20, 21, image.shape)).clip(0, 255).astype("u1")


@pytest.fixture(scope="session")
def face() -> Callable[..., np.ndarray]:
    return make_face


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with face0.png, face1.png, face2.png."""
    folder = tmp_path_factory.mktemp("faces")
    for index in range(3):
        Image.fromarray(make_face(index)).save(folder / f"face{index}.png")
    return folder


@pytest.fixture(scope="session")
def judge() -> Judge:
    torch.manual_seed(0)
    vgg = VGG16(WIDTHS)
    for name, values in vgg.named_parameters():
        if name.endswith("bias"):
            values.data.fill_(5.0)  # else so few channels are soon all dead
    lpips = LPIPS(vgg, [torch.rand(2) for _ in WIDTHS])
    return Judge(lpips, IdentityNet(width=2), metrics=CHEAP)


@pytest.fixture(scope="session")
def metrics_dir(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judge's networks as files."""
    folder = tmp_path_factory.mktemp("metrics")
    vgg, heads, identity_net = (folder / name for name in WEIGHTS)
    save_file(judge.lpips.network.state_dict(), vgg, {"preprocess": "caffe"})
    save_file({f"lin{i}.weight": judge.lpips.get_buffer(f"head{i}") for i in range(5)}, heads)
    state = {}
    for key, value in judge.identity.state_dict().items():
        if key == "fc.weight":
            state["fc"] = value.T.contiguous()
        elif value.ndim == 4:
            state[key.replace(".weight", ".filters")] = value.permute(2, 3, 1, 0).contiguous()
        elif key.endswith("conv.bias"):
            state[key] = value
        else:
            name = key.replace(".gain", ".scale.weights").replace(".bias", ".scale.biases")
            state[name] = value
    save_file(state, identity_net)
    return folder


@pytest.fixture
def plan(faces: Path, tmp_path: Path) -> Callable[..., Plan]:
    """A plan over `faces`, with changes."""

    def make(**changes: object) -> Plan:
        values = {"data": faces, "task": "mfr", "out": tmp_path / "out", "metrics": CHEAP}
        return Plan(**(values | changes))  # pyright: ignore[reportArgumentType]

    return make


class Drawing:
    """A system made of a function, that remembers how many faces it was given."""

    task = None
    in_size = 512

    def __init__(self, name: str, draw: Callable[[Tensor], Tensor]) -> None:
        self.name = name
        self.draw = draw
        self.seen = 0

    def __call__(self, lq: Tensor) -> Drawn:
        self.seen += len(lq)
        return Drawn(self.draw(lq), None)


class Weighing(Drawing):
    """One that tells θ: the share of the spectrum that is missing."""

    def __call__(self, lq: Tensor) -> Drawn:
        return Drawn(super().__call__(lq).image, self.theta(lq))

    def theta(self, lq: Tensor) -> Tensor:
        return 1 - sharpness(F.avg_pool2d(lq, 2))


@pytest.fixture
def drawing() -> type[Drawing]:
    return Drawing


@pytest.fixture
def weighing() -> type[Weighing]:
    return Weighing
