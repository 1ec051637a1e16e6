"""Stage 2: latents, features and masks from faces whose w is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from panini.checkpoints import load_model, load_prior, load_tensors, save_model, save_tensors
from panini.errors import ConfigError
from panini.models.degradation_encoder import DegradationEncoder
from panini.models.panini_net import PaniniNet, named_config
from panini.training.network import build_network, prior_features, start_from_prior
from panini.training.run import WEIGHTS, fit
from panini.training.warmup import LatentSpace, WarmupRunConfig, WarmupStage, train


@pytest.fixture
def recipe(prior_group, prior, encoder_weights, kit, tmp_path):
    def make(name: str = "run", **changes) -> WarmupRunConfig:
        fields = {
            "size": "tiny",
            "prior": prior,
            "degradation_encoder": encoder_weights,
            "images": 8,
            "warmup_images": 0,
            "data": kit.data(prior_group),
        }
        return WarmupRunConfig.model_validate(fields | {"out": tmp_path / name} | changes)

    return make


def test_resumed_run_is_the_uninterrupted_one(kit, recipe):
    kit.check_resume(WarmupStage, recipe)


def test_a_run_trains_encoder_and_fusion_and_leaves_the_average(kit, recipe):
    config = recipe(images=6)
    stage = WarmupStage(config)
    before = kit.copy_of(stage.net)
    fit(stage, config)
    changed = {name.split(".")[0] for name in kit.changed(stage.net, before)}
    assert changed == {"encoder", "fusion"}
    assert "fusion.mask_mlps.64.2.weight" in kit.changed(stage.net, before)
    written = load_model(config.out / WEIGHTS)
    assert not kit.changed(written, kit.copy_of(stage.ema))
    _, meta = load_tensors(config.out / WEIGHTS, kind="panini-net")
    assert meta["provenance"] == {"warmup_images": 6}


def test_a_live_prior_teaches_without_files(kit, recipe, prior):
    source = {"kind": "prior_live", "paths": [prior]}
    group = {"source": source, "count": 2, "gt_size": 64, "flip": False}
    config = recipe(data=kit.data(group), images=4)
    train(config)
    assert kit.state(config)["meta"]["progress"]["nimg"] == 4


def test_losses_fall_on_a_batch_seen_again(kit, recipe):
    stage = WarmupStage(recipe())
    batch = kit.batch(stage)
    figures = [stage.step(batch, step, 0) for step in range(40)]
    for name in ("latent", "image", "fused"):
        assert figures[-1][name] < 0.9 * figures[0][name], name


def test_network_starts_with_the_priors_weights_and_statistics(recipe, prior, encoder_weights):
    net = build_network(recipe().start, 0)
    theirs = load_prior(prior)
    for name, value in theirs.state_dict().items():
        assert torch.equal(net.prior.state_dict()[name], value), name
    assert torch.equal(net.encoder.w_avg, theirs.w_avg)
    state, _ = load_tensors(encoder_weights, kind="degradation-encoder")
    assert all(
        torch.equal(net.degradation_encoder.state_dict()[name], value)
        for name, value in state.items()
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        ws = theirs.broadcast(theirs.mapping(torch.randn(64, theirs.z_dim, generator=generator)))
    for level, feature in prior_features(theirs, ws).items():
        branch = net.fusion.convs[str(level)]
        torch.testing.assert_close(branch.mean[0, :, 0, 0], feature.mean(dim=(0, 2, 3)))
        deviation = feature.std(dim=(0, 2, 3)) + 1e-3
        torch.testing.assert_close(branch.std[0, :, 0, 0], deviation)


def test_building_is_repeatable(recipe):
    torch.manual_seed(999)
    first = build_network(recipe().start, 0)
    second = build_network(recipe().start, 0)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_start_from_prior_draws_from_its_own_generator(recipe):
    net = build_network(recipe().start, 0)
    before = torch.get_rng_state()
    start_from_prior(net, num_samples=8, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_prior_features_are_those_that_synthesis_hands_to_the_fusion(prior):
    net = load_prior(prior)
    ws = net.broadcast(net.w_avg[None])
    features = prior_features(net, ws)
    assert list(features) == [4, 8, 16, 32, 64]
    # Whatever ws are, features of the last level make the image; its own head is styled too.
    again = prior_features(net, ws)
    other = prior_features(net, ws + 1)
    for level, feature in features.items():
        assert feature.shape == (1, 32, level, level)
        assert torch.equal(feature, again[level])
        assert not torch.allclose(feature, other[level])
    image = net.synthesis(ws)
    kept = net.synthesis(ws, fuse=lambda level, _: features[level])
    torch.testing.assert_close(kept, image)


def test_latent_errors_weigh_what_the_prior_uses(prior):
    net = load_prior(prior)
    space = LatentSpace(net, num_samples=4000)
    with torch.no_grad():
        w = net.mapping(torch.randn(500, net.z_dim, generator=torch.Generator().manual_seed(7)))
    assert space.error(net.broadcast(w), w).item() == 0
    # The mean face is about one unit away, whatever the scale of w.
    mean = net.broadcast(space.mean.expand_as(w))
    assert 0.3 < space.error(mean, w).item() < 1
    variances = ((w - space.mean) @ space.axes).var(dim=0)
    strong, weak = space.axes[:, variances.argmax()], space.axes[:, variances.argmin()]
    here = w[:1]

    def price(direction: torch.Tensor) -> float:
        return space.error(net.broadcast(here + direction), here).item()

    assert price(strong) < price(weak)


def test_masks_learn_at_their_own_rate(recipe):
    stage = WarmupStage(recipe(learning_rate=1e-3, mask_rate=5.0))
    rest, masks = stage.optimizers["net"].param_groups
    assert masks["initial_lr"] == pytest.approx(5 * rest["initial_lr"])
    names = {id(p): name for name, p in stage.net.named_parameters()}
    assert all("mask_mlps" in names[id(p)] for p in masks["params"])


# ----------------------------------------------------------------------------------------------
# What does not fit


def test_groups_without_w_are_refused(recipe, shard_group, prior_group, kit):
    for group in (shard_group, prior_group | {"flip": True}, prior_group | {"colour_jitter": 0.1}):
        config = recipe(data=kit.data(group))
        with pytest.raises(
            ConfigError, match="its groups need kind: prior or prior_live, and flip: false"
        ):
            train(config)


def test_validation_without_w_is_refused(recipe, shard_group):
    validation = {"source": shard_group["source"], "every": 8, "count": 4}
    with pytest.raises(ConfigError, match=r"validation\.source\.kind: .* prior_live, got shards"):
        train(recipe(validation=validation))


def test_an_unknown_size_is_refused(recipe):
    with pytest.raises(ConfigError, match="size: unknown size 'huge'"):
        train(recipe(size="huge"))


def test_a_prior_of_another_shape_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"prior\.safetensors: a prior of MobileStyleGANConfig"):
        train(recipe(size="mobile-mfr"))


def test_an_encoder_of_another_kind_is_refused(recipe, tmp_path):
    path = tmp_path / "paper.safetensors"
    state = DegradationEncoder().state_dict()
    save_tensors(state, path, kind="degradation-encoder", meta={"config": {"kind": "paper"}})
    with pytest.raises(ConfigError, match=r"paper\.safetensors: a .* encoder, but tiny has"):
        train(recipe(degradation_encoder=path))


def test_faces_of_another_size_are_refused(recipe, prior_group, kit):
    config = recipe(data=kit.data(prior_group) | {"lq_size": 512})
    with pytest.raises(ConfigError, match=r"data\.lq_size: the network takes faces of 128 px"):
        train(config)


def test_validation_changes_nothing_of_what_is_left(kit, recipe, prior_group):
    """Norms of the paper's encoder would take the validation faces into their statistics."""
    validation = {"source": prior_group["source"], "every": 4, "count": 4}
    looked, alone = recipe("looked", validation=validation), recipe("alone")
    for config in (looked, alone):
        assert not WarmupStage(config).ema.training
        train(config)
    ours, theirs = (load_model(config.out / WEIGHTS).state_dict() for config in (looked, alone))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_network_may_fuse_at_fewer_levels_than_its_prior_has(kit, recipe, tmp_path):
    shape = named_config("tiny")
    kept = {level: c for level, c in shape.fusion.prior_channels.items() if level <= 16}
    fusion = replace(
        shape.fusion,
        prior_channels=kept,
        image_channels={level: shape.fusion.image_channels[level] for level in kept},
        initial_prior={},
    )
    path = tmp_path / "shape.safetensors"
    save_model(PaniniNet(replace(shape, fusion=fusion)), path, provenance={})
    stage = WarmupStage(recipe(size=str(path)))
    assert stage.step(kit.batch(stage), 0, 0)["fused"].isfinite()
