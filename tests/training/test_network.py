"""Networks at the start of their training, and their averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from panini.checkpoints import load_model, save_model
from panini.errors import CheckpointError, ConfigError
from panini.models.panini_net import PaniniNet, named_config
from panini.training.network import (
    StartConfig,
    TransferConfig,
    build_network,
    check_lq_size,
    freeze,
    trainable,
    update_ema,
)
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


def test_a_start_may_take_everything_from_one_network(tiny_weights):
    source = load_model(tiny_weights)
    fields = {"prior": tiny_weights, "degradation_encoder": tiny_weights}
    net = build_network(StartConfig(size=str(tiny_weights), **fields), 0)
    assert net.config == source.config
    for part in ("prior", "degradation_encoder"):
        ours, theirs = (getattr(n, part).state_dict() for n in (net, source))
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        StartConfig(size="none.safetensors", **fields).shape()


def test_a_start_may_leave_out_what_the_size_has(prior, encoder_weights):
    constant = StartConfig(size="tiny", prior=prior, constant_masks=True)
    net = build_network(constant, 0)
    assert net.config.degradation_encoder is None
    assert net.config.task == "mfr"
    assert net.degradation_constant.requires_grad
    both = constant.model_copy(update={"degradation_encoder": encoder_weights})
    with pytest.raises(ConfigError, match="degradation_encoder: tiny has none, got"):
        build_network(both, 0)
    shape = StartConfig(size="mobile-mfr", prior=prior, bands=False).shape()
    assert named_config("mobile-mfr").bands is not None
    assert shape.bands is None


def test_a_start_says_how_many_mlps_make_the_masks(prior):
    fields = {"size": "tiny", "prior": prior, "constant_masks": True}
    own, shared = (
        build_network(StartConfig(**fields, shared_mlp=value), 0).fusion.state_dict()
        for value in (None, True)
    )
    assert any(name.startswith("mask_mlps.64.") for name in own)
    assert any(name.startswith("mask_mlp.") for name in shared)
    shapes = [
        StartConfig(size="mfr-1024", prior=prior, shared_mlp=value).shape().fusion.shared_mlp
        for value in (None, False)
    ]
    assert shapes == [True, False]
    with pytest.raises(ConfigError, match=r"shared_mlp: mobile-mfr: initial_prior needs .* out"):
        StartConfig(size="mobile-mfr", prior=prior, shared_mlp=True).shape()


def test_a_start_names_the_anchor(prior):
    start = StartConfig(size="mobile-sr16", prior=prior, anchor_size=512)
    assert start.shape().anchor_size == 512
    assert named_config("mobile-sr16").anchor_size == 0


def test_what_a_face_takes_from_its_input_is_left_out_together(prior):
    whole, bare = (
        StartConfig(size="mobile-sr16", prior=prior, bands=bands).shape() for bands in (True, False)
    )
    assert (whole.consistency_steps, bare.consistency_steps) == (2, 0)


def test_latent_codes_alone_start_without_image_branches(prior, encoder_weights):
    fields = {"prior": prior, "degradation_encoder": encoder_weights}
    net = build_network(StartConfig(size="tiny", fusion_method="latent", **fields), 0)
    assert list(net.fusion.parameters()) == []
    rest, masks = trainable(net)
    assert {id(p) for p in rest} == {id(p) for p in net.encoder.parameters()}
    assert masks == []


def test_a_constant_is_taken_over_with_the_masks_that_know_it(prior, tmp_path):
    start = StartConfig(size="tiny", prior=prior, constant_masks=True)
    source = build_network(start, 0)
    save_model(source, tmp_path / "constant.safetensors", provenance={})
    transfer = TransferConfig(source=tmp_path / "constant.safetensors")
    net = build_network(start.model_copy(update={"transfer": transfer}), 1)
    assert torch.equal(net.degradation_constant, source.degradation_constant)
