"""Networks at the start of their training, and their averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from panini.errors import ConfigError
from panini.models.panini_net import PaniniNet
from panini.training.network import check_lq_size, freeze, trainable, update_ema
from panini.training.run import RunConfig


@pytest.fixture
def recipe(shard_group, kit, tmp_path):
    def make(**changes) -> RunConfig:
        fields = {"images": 8, "data": kit.data(shard_group), "learning_rate": 0.1}
        return RunConfig.model_validate(fields | {"out": tmp_path} | changes)

    return make


def test_average_halves_a_weights_share_in_its_half_life():
    net, ema = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(net.weight, 5.0)
    net.num_batches_tracked.fill_(9)
    update_ema(ema, net, images=10, half_life=10, nimg=10**6)
    assert ema.weight.item() == pytest.approx(3.0)  # half-way from 1 to 5
    assert ema.num_batches_tracked.item() == 9
    update_ema(ema, net, images=10, half_life=10, nimg=0)
    assert ema.weight.item() == pytest.approx(5.0)  # the ramp-up starts without a memory


def test_prior_and_degradation_encoder_are_frozen_and_masks_stand_apart():
    net = freeze(PaniniNet.named("tiny"))
    assert not net.degradation_encoder.training
    assert net.encoder.training
    rest, masks = trainable(net)
    names = {id(p): name for name, p in net.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in rest} == {"encoder", "fusion"}
    assert {names[id(p)].split(".")[1] for p in masks} == {"mask_mlps"}
    assert len(rest) + len(masks) == sum(p.requires_grad for p in net.parameters())


def test_data_of_another_size_than_the_network_takes_is_refused(recipe):
    net = PaniniNet.named("tiny")
    config = recipe()
    check_lq_size(net, config)
    other = config.model_copy(update={"data": config.data.model_copy(update={"lq_size": 512})})
    with pytest.raises(
        ConfigError, match=r"data\.lq_size: the network takes faces of 128 px, got 512"
    ):
        check_lq_size(net, other)


def test_what_is_not_trained_is_not_averaged():
    net, ema = nn.Linear(1, 1), nn.Linear(1, 1)
    net.bias.requires_grad_(False)
    before = ema.bias.clone()
    update_ema(ema, net, images=10, half_life=0, nimg=10**6)
    assert torch.equal(ema.weight, net.weight)
    assert torch.equal(ema.bias, before)
