"""The tiny network behind a Restorer, and a synthetic face for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panini.degradations import DegradationParams, degrade
from panini.images import RgbImage, read_rgb
from panini.models.panini_net import PaniniNet
from panini.restorer import RestoredFace, Restorer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def truth() -> RgbImage:
    """The example face that nobody has, 128 px."""
    image = Image.fromarray(read_rgb(EXAMPLES / "face_truth.png"))
    return np.asarray(image.resize((128, 128), Image.Resampling.BOX))


@pytest.fixture(scope="session")
def restorer() -> Restorer:
    """The tiny network; random, but with noise maps."""
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith(".noise"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        net.prior.estimate_w_avg(256, generator)
    return Restorer(net, device="cpu", name="tiny")


@pytest.fixture(scope="session")
def face(restorer: Restorer, truth: RgbImage) -> RestoredFace:
    """The face through 24 px, restored by the tiny network."""
    params = DegradationParams.from_low_side(24, size=128)
    lq = degrade(truth, params, np.random.default_rng(0))
    return restorer.restore_aligned(lq).faces[0]
