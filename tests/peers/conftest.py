"""A small prior with noise maps and a mean style."""

from __future__ import annotations

import pytest
import torch

from panini.models.panini_net import PaniniNet


@pytest.fixture(scope="session")
def net() -> PaniniNet:
    torch.manual_seed(0)
    net = PaniniNet.named("tiny").eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith(".noise"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        net.prior.estimate_w_avg(256, generator)
    return net
