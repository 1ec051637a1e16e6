"""16× super-resolution through the stages: a learned constant in the place of v_DR."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from panini.checkpoints import load_model, load_prior
from panini.errors import ConfigError
from panini.models.bands import BandsConfig
from panini.models.panini_net import PaniniNet, named_config
from panini.training import network, warmup
from panini.training.network import StartConfig, build_network
from panini.training.restoration import RestorationRunConfig, RestorationStage
from panini.training.run import WEIGHTS, fit
from panini.training.warmup import WarmupRunConfig, WarmupStage

ADVERSARIAL = {"scale": 128, "patch": 32, "max_channels": 8}


@pytest.fixture(autouse=True)
def tiny_sr16(monkeypatch):
    """The named size "tiny-sr16": 64 to 128 px."""
    tiny = named_config("tiny")
    config = replace(
        tiny,
        task="sr16",
        encoder=replace(tiny.encoder, in_size=64, unshuffle=1),
        degradation_encoder=None,
        bands=BandsConfig(levels=(64, 32, 16, 8)),
    )
    known = {"tiny-sr16": config, "tiny": tiny}
    monkeypatch.setattr(network, "named_config", known.__getitem__)
    return config


@pytest.fixture
def recipe(prior_group, prior, tmp_path):
    def make(**changes) -> WarmupRunConfig:
        fields = {
            "size": "tiny-sr16",
            "prior": prior,
            "images": 8,
            "warmup_images": 0,
            "log_every_s": 0.0,
            "data": data(prior_group),
            "out": tmp_path / "warmup",
        }
        return WarmupRunConfig.model_validate(fields | changes)

    return make


def data(*groups: dict) -> dict:
    return {"groups": groups, "task": "sr16", "lq_size": 64, "num_workers": 0}


def lines(config) -> list[dict]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in the log")

    text = (config.out / "stats.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.mark.parametrize("method", ["dafi", "concat", "latent"])
def test_a_network_goes_through_both_stages(
    kit, recipe, prior_group, shard_group, vgg, tmp_path, method
):
    first = recipe(fusion_method=method)
    assert warmup.train(first)
    written = load_model(first.out / WEIGHTS)
    assert (written.config.task, written.config.fusion.method) == ("sr16", method)

    second = RestorationRunConfig.model_validate(
        {
            "out": tmp_path / "restoration",
            "init": first.out / WEIGHTS,
            "images": 16,
            "window": 32,
            "patch": 48,
            "warmup_images": 0,
            "log_every_s": 0.0,
            "perceptual": {"vgg": vgg, "weight": 1e-5},
            "adversarial": ADVERSARIAL,
            "data": data(shard_group, prior_group),
            "validation": {
                "source": shard_group["source"],
                "every": 8,
                "count": 2,
                "batch": 2,
                "gt_size": 64,
                "sheet": 2,
            },
        }
    )
    stage = RestorationStage(second)
    before = kit.copy_of(stage.net)
    assert fit(stage, second)
    changed = {name.split(".")[0] for name in kit.changed(stage.net, before)}
    fused = set() if method == "latent" else {"fusion"}  # latent codes alone have no weights
    assert changed == {"encoder", "bands", "degradation_constant"} | fused
    # Where the fusion weighs nothing, there is no θ to log: NaN is not JSON.
    for config in (first, second):
        assert any(("theta" in line) == (method != "concat") for line in lines(config))
    trained = load_model(second.out / WEIGHTS)
    with torch.inference_mode():
        output = trained(torch.zeros(2, 3, 64, 64))
    assert output.image.shape == (2, 3, 128, 128)
    assert bool(output.theta.isnan().all()) == (method == "concat")


def test_the_constant_and_the_masks_learn_in_the_warm_up(kit, recipe):
    stage = WarmupStage(recipe())
    before = kit.copy_of(stage.net)
    batch = kit.batch(stage)
    figures = [stage.step(batch, step, 0) for step in range(30)]
    changed = kit.changed(stage.net, before)
    assert {"degradation_constant", "fusion.mask_mlps.64.2.weight"} <= changed
    for name in ("latent", "image", "fused"):
        assert figures[-1][name] < 0.95 * figures[0][name], name


def test_methods_differ_in_the_fusion_alone(prior):
    start = StartConfig(size="tiny-sr16", prior=prior)
    nets = [
        build_network(start.model_copy(update={"fusion_method": method}), 0)
        for method in ("dafi", "concat")
    ]
    names = [
        {name: p.shape for name, p in net.named_parameters() if not name.startswith("fusion.")}
        for net in nets
    ]
    assert names[0] == names[1]
    assert nets[0].config.prior == nets[1].config.prior
    assert replace(nets[1].config.fusion, method="dafi") == nets[0].config.fusion


def test_the_prior_may_be_that_of_a_network(prior, tiny_weights):
    net = build_network(StartConfig(size="tiny-sr16", prior=tiny_weights), 0)
    theirs = load_model(tiny_weights).prior.state_dict()
    assert not any(not torch.equal(net.prior.state_dict()[k], v) for k, v in theirs.items())
    own = build_network(StartConfig(size="tiny-sr16", prior=prior), 0)
    assert torch.equal(own.prior.w_avg, load_prior(prior).w_avg)


def test_what_does_not_fit_is_refused(kit, recipe, prior_group, encoder_weights, prior):
    with pytest.raises(ConfigError, match=r"data\.task: the network is for sr16, got mfr"):
        WarmupStage(recipe(data=kit.data(prior_group) | {"lq_size": 64}))
    with pytest.raises(ConfigError, match="degradation_encoder: tiny-sr16 has none, got"):
        WarmupStage(recipe(degradation_encoder=encoder_weights))
    with pytest.raises(ConfigError, match="degradation_encoder: tiny has one, got None"):
        build_network(StartConfig(size="tiny", prior=prior), 0)


def test_the_estimate_knows_the_method(recipe):
    from panini.training.estimate import estimate

    dafi, concat = (estimate(recipe(fusion_method=method)) for method in ("dafi", "concat"))
    parameters = sum(p.numel() for p in PaniniNet(network.named_config("tiny-sr16")).parameters())
    assert dafi["parameters_m"] == pytest.approx(parameters / 1e6, abs=1e-3)
    assert concat["parameters_m"] != dafi["parameters_m"]
