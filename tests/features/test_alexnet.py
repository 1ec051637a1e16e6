from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from panini.errors import CheckpointError
from panini.features.alexnet import AlexNet, build_alexnet

FILE = Path("alexnet-owt-7be5be79.pth")
LAYERS = (0, 3, 6, 8, 10)


def file_state(network):
    tensors = iter(network.state_dict().values())
    return {f"features.{i}.{kind}": next(tensors) for i in LAYERS for kind in ("weight", "bias")}


def test_it_has_the_size_of_torchvisions():
    network = AlexNet()
    assert sum(p.numel() for p in network.parameters()) == 2_469_696
    assert not any(p.requires_grad for p in network.parameters())


def test_it_is_the_plain_chain_of_convolutions_and_pools():
    torch.manual_seed(0)
    network = AlexNet((4, 5, 6, 7, 8))
    x = torch.rand(2, 3, 67, 71) * 2 - 1
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    y = ((x + 1) / 2 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    settings = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
    for number, (stride, padding, pooled) in enumerate(settings, start=1):
        layer = network.get_submodule(f"conv{number}")
        y = F.max_pool2d(y, 3, 2) if pooled else y
        y = F.conv2d(y, *layer.parameters(), stride=stride, padding=padding).relu()
        torch.testing.assert_close(network(x)[number - 1], y)


def test_torchvisions_file_is_read_without_its_classifier():
    torch.manual_seed(0)
    network = AlexNet((4, 5, 6, 7, 8))
    state = file_state(network) | {"classifier.1.weight": torch.zeros(2, 2)}
    loaded = build_alexnet(state, FILE)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x), network(x))


def test_other_files_are_refused():
    state = file_state(AlexNet((4, 5, 6, 7, 8)))
    wrong = state | {"features.3.weight": torch.zeros(5, 4, 3, 3)}
    with pytest.raises(CheckpointError, match=r"alexnet-owt-7be5be79\.pth: expected torchvision's"):
        build_alexnet(wrong, FILE)
    del state["features.8.bias"]
    with pytest.raises(CheckpointError, match=r"features\.8\.bias"):
        build_alexnet(state, FILE)
