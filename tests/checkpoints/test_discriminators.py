"""Discriminators out of the files that hold them."""

from __future__ import annotations

import pytest
import torch

from panini.checkpoints import load_discriminator, save_tensors
from panini.checkpoints.convert.authors import discriminator_names
from panini.errors import CheckpointError
from panini.models.stylegan2 import Discriminator, DiscriminatorConfig

SHAPE = DiscriminatorConfig(size=64, max_channels=8)


@pytest.fixture
def trained() -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(SHAPE)


def loaded(path, shape: DiscriminatorConfig = SHAPE) -> Discriminator:
    torch.manual_seed(0)
    net = Discriminator(shape)
    load_discriminator(net, path)
    return net


def is_same(net: Discriminator, other: Discriminator) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def theirs(net: Discriminator) -> dict[str, torch.Tensor]:
    """Under the names of the authors' framework, with one of its fixed filters."""
    state = net.state_dict()
    names = discriminator_names(net.config.size)
    kernel = {"discriminator.convs.1.skip.0.kernel": torch.ones(4, 4)}
    return {name: state[ours] for name, ours in names.items()} | kernel


def test_out_of_a_file_of_the_authors_or_of_mmgen(trained, tmp_path):
    path = tmp_path / "stylegan2.pth"
    generator = {"generator_ema.conv1.activate.bias": torch.zeros(8)}
    torch.save({"meta": {"iter": 3}, "state_dict": generator | theirs(trained)}, path)
    assert is_same(loaded(path), trained)
    torch.save(theirs(trained), path)
    assert is_same(loaded(path), trained)


def test_out_of_a_file_of_rosinality(trained, tmp_path):
    path = tmp_path / "550000.pt"
    bare = {name.removeprefix("discriminator."): value for name, value in theirs(trained).items()}
    names = (name.replace(".conv.weight_orig", ".weight") for name in bare)
    names = (name.replace(".linear.weight_orig", ".weight") for name in names)
    critic = dict(zip(names, bare.values(), strict=True))
    assert {"convs.0.0.weight", "convs.1.conv2.2.bias", "final_linear.0.weight"} <= critic.keys()
    torch.save({"g_ema": {"input.input": torch.zeros(1, 8, 4, 4)}, "d": critic}, path)
    assert is_same(loaded(path), trained)


def test_out_of_a_state_of_a_run(trained, tmp_path):
    path = tmp_path / "0000000640.safetensors"
    state = {f"module/discriminator/{name}": v for name, v in trained.state_dict().items()}
    state["module/net/weight"] = torch.zeros(1)
    save_tensors(state, path, kind="training-state", meta={})
    assert is_same(loaded(path), trained)


def test_what_does_not_fit_is_told(trained, tmp_path):
    path = tmp_path / "state.pth"
    torch.save(theirs(trained), path)
    with pytest.raises(CheckpointError, match=r"state\.pth: \d+ misshapen tensors, first: "):
        loaded(path, DiscriminatorConfig(size=64, max_channels=16))
    with pytest.raises(CheckpointError, match=r"state\.pth: \d+ missing tensors, first: "):
        loaded(path, DiscriminatorConfig(size=128, max_channels=8))
    torch.save({"generator_ema.w": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="holds no discriminator; expected a state of a run"):
        loaded(path)
    with pytest.raises(CheckpointError, match="no such file"):
        loaded(tmp_path / "none.pth")
