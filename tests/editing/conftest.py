"""The tiny network behind a Restorer, and a synthetic face for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
    """The tiny network; random, but drawing in sane colours, with some noise."""
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith(".noise"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        net.prior.estimate_w_avg(256, generator)
        head = net.prior.get_submodule("heads.128")
        weight = head.get_parameter("weight")
        weight.mul_(0.05)
    return Restorer(net, device="cpu")


@pytest.fixture(scope="session")
def face(restorer: Restorer, truth: RgbImage) -> RestoredFace:
    """The face, restored by the tiny network."""
    return restorer.restore_aligned(truth).faces[0]
