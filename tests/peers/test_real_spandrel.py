"""GFP-GAN by spandrel itself, with random weights; only where the extra is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from panini.peers import load_peer


def _randomise(net: nn.Module) -> dict[str, torch.Tensor]:
    """Small random weights; they share one storage, which makes the file a third as large."""
    state = net.state_dict()
    most = max(tensor.numel() for tensor in state.values())
    noise = 0.02 * torch.randn(most, generator=torch.Generator().manual_seed(0))
    return {name: noise[: one.numel()].view(one.shape) for name, one in state.items()}


def test_gfpgan_is_built_and_called_as_its_authors_do(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    try:
        from spandrel.architectures.GFPGAN import GFPGAN  # pyright: ignore
    except Exception as error:  # a torchvision of another torch raises RuntimeError
        pytest.skip(f"spandrel does not load here: {error}")
    net = GFPGAN().eval()
    state = _randomise(net)
    net.load_state_dict(state)
    path = tmp_path / "GFPGANv1.4.pth"
    torch.save({"params_ema": state}, path)

    peer = load_peer(path)
    path.unlink()  # pytest would keep its 134 MB
    assert (peer.name, peer.network.architecture.id) == ("GFPGANv1.4", "GFPGAN")
    faces = torch.rand((1, 3, 512, 512), generator=torch.Generator().manual_seed(1)) * 2 - 1
    image = peer(faces).image
    assert image.std() > 0
    with torch.inference_mode(), torch.random.fork_rng([]):
        torch.manual_seed(0)  # of the noise that it draws
        torch.testing.assert_close(image, net(faces)[0].clamp(-1, 1))
