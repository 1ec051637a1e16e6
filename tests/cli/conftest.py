"""What the tests of `panini restore` share: a small network, a head, and a detector at no cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from panini.checkpoints import load_model, save_model
from panini.faces.align import TEMPLATE
from panini.faces.detect import Face
from panini.models.panini_net import PaniniNet, named_config


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(PaniniNet.named("tiny"), path, provenance={})
    return path


@pytest.fixture(scope="session")
def sr16_weights(tiny_weights: Path) -> Path:
    """A small network for super-resolution, 64 to 128 px, around the prior of the tiny one."""
    tiny = named_config("tiny")
    encoder = replace(tiny.encoder, in_size=64, unshuffle=1)
    torch.manual_seed(0)
    net = PaniniNet(replace(tiny, task="sr16", encoder=encoder, degradation_encoder=None))
    net.prior.load_state_dict(load_model(tiny_weights).prior.state_dict())
    path = tiny_weights.with_name("tiny-sr16.safetensors")
    save_model(net, path, provenance={})
    return path


@pytest.fixture
def auto_weights(tiny_weights: Path, sr16_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--model auto` stands for."""
    monkeypatch.setattr("panini.drawing.AUTO_LARGE", str(tiny_weights))
    monkeypatch.setattr("panini.drawing.AUTO_SMALL", str(sr16_weights))


@pytest.fixture(scope="session")
def head() -> Image.Image:
    """The astronaut's head, 128 px."""
    astronaut = pytest.importorskip("skimage.data").astronaut()
    image = Image.fromarray(astronaut[:256, 97:353])
    return image.resize((128, 128), Image.Resampling.BOX)


@pytest.fixture
def quick_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """One face fills every photo that has any contrast; nothing is searched."""

    class Whole:
        def detect(self, photo: np.ndarray, **_: Any) -> list[Face]:
            if np.ptp(photo) < 20 or photo[..., 1].std() < 5:
                return []
            side = float(min(photo.shape[:2]))
            points = (TEMPLATE * side).astype(np.float32)
            return [Face(box=(0.0, 0.0, side, side), landmarks=points, score=1.0)]

    monkeypatch.setattr("panini.restorer.FaceDetector", Whole)
