"""Stage 3: the whole network, with L1, perceptual and adversarial loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.nn import functional as F

from panini.checkpoints import (
    load_model,
    load_network_prior,
    load_prior,
    load_tensors,
    save_model,
    save_tensors,
)
from panini.config import load_config
from panini.data import to_float
from panini.errors import ConfigError, TrainingError
from panini.features.identity import IdentityNet, chip_window
from panini.features.vgg16 import VGG16, load_vgg16
from panini.models.bands import BandsConfig
from panini.models.panini_net import PaniniNet, named_config
from panini.models.prior import Window
from panini.models.stylegan2 import Discriminator, DiscriminatorConfig
from panini.training.checkpointing import KIND, Checkpoints
from panini.training.restoration import (
    FACE_WINDOW,
    Perceptual,
    PerceptualConfig,
    RestorationRunConfig,
    RestorationStage,
    train,
)
from panini.training.run import WEIGHTS, fit
from panini.training.views import crop_pair, draw_window, view, view_side

SHARED = Path(__file__).parents[2].parent / "shared" / "models"
IDENTITY = {"weights": "identity.safetensors"}
HEAD = "heads.128.weight"
ADVERSARIAL = {"scale": 128, "patch": 32, "max_channels": 8, "r1_weight": 1.0, "r1_every": 2}


@pytest.fixture
def recipe(shard_group, prior_group, tiny_weights, vgg, kit, tmp_path):
    def make(name: str = "run", **changes) -> RestorationRunConfig:
        fields = {
            "init": tiny_weights,
            "images": 16,
            "window": 32,
            "patch": 48,
            "warmup_images": 0,
            "perceptual": {"vgg": vgg, "weight": 1e-5},
            "data": kit.data(shard_group, prior_group),
        }
        return RestorationRunConfig.model_validate(fields | {"out": tmp_path / name} | changes)

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {"adversarial": ADVERSARIAL},
        {"window": 64, "train_prior": 0.1},
        {"precision": "bfloat16"},
    ],
    ids=["adversarial", "whole-face", "bfloat16"],
)
def test_resumed_run_is_the_uninterrupted_one(kit, recipe, changes):
    kit.check_resume(RestorationStage, lambda name, **more: recipe(name, **changes, **more))


def test_a_run_trains_encoder_and_fusion_and_leaves_the_average(kit, recipe):
    config = recipe(images=8, adversarial=ADVERSARIAL)
    stage = RestorationStage(config)
    before, critic = kit.copy_of(stage.net), kit.copy_of(stage.modules["discriminator"])
    fit(stage, config)
    changed = {name.split(".")[0] for name in kit.changed(stage.net, before)}
    assert changed == {"encoder", "fusion"}
    assert kit.changed(stage.modules["discriminator"], critic) == set(critic)
    assert not kit.changed(load_model(config.out / WEIGHTS), kit.copy_of(stage.ema))
    _, meta = load_tensors(config.out / WEIGHTS, kind="panini-net")
    assert meta["provenance"] == {"init": "tiny.safetensors", "restoration_images": 8}


def test_a_run_does_not_go_on_from_another_beginning(kit, recipe, tiny_weights, tmp_path):
    train(recipe(images=4))
    moved = tmp_path / "elsewhere" / tiny_weights.name
    moved.parent.mkdir()
    moved.write_bytes(tiny_weights.read_bytes())
    train(recipe(init=moved, images=8))  # the same file on another machine
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_weights.read_bytes())
    with pytest.raises(TrainingError) as caught:
        train(recipe(init=other, images=12))
    assert f"this run began with init {tiny_weights.name}, the recipe has other." in str(
        caught.value
    )


def test_the_prior_is_trained_where_the_recipe_says_so(kit, recipe):
    stage = RestorationStage(recipe(train_prior=0.1))
    before = kit.copy_of(stage.net)
    stage.step(kit.batch(stage), 0, 0)
    changed = {name.split(".")[0] for name in kit.changed(stage.net, before)}
    assert changed == {"encoder", "fusion", "prior"}
    rates = [group["initial_lr"] for group in stage.optimizers["net"].param_groups]
    assert rates == pytest.approx([1e-3, 3e-3, 1e-4])


def test_the_prior_as_it_was_is_kept_over_all_legs(recipe, tiny_weights):
    learns = {"window": 64, "train_prior": 1.0, "train_prior_above": 32, "ema_half_life": 0}
    first = load_network_prior(tiny_weights).state_dict()
    leg = recipe("one", images=8, **learns)
    train(leg)
    second = recipe("two", init=leg.out / WEIGHTS, images=8, **learns)
    train(second)
    for out in (leg.out, second.out):
        assert not torch.equal(load_model(out / WEIGHTS).prior.state_dict()[HEAD], first[HEAD])
        kept = load_network_prior(out / WEIGHTS).state_dict()
        assert all(torch.equal(kept[name], tensor) for name, tensor in first.items())


def test_of_the_prior_only_what_is_large_may_be_trained(kit, recipe):
    stage = RestorationStage(recipe(window=64, train_prior=0.1, train_prior_above=32))
    before = kit.copy_of(stage.net)
    stage.step(kit.batch(stage), 0, 0)
    changed = {name for name in kit.changed(stage.net, before) if name.startswith("prior.")}
    assert {".".join(name.split(".")[1:3]) for name in changed} == {"blocks.3", "heads.128"}
    with pytest.raises(ConfigError, match="train_prior_above: the prior has nothing above 64 px"):
        RestorationStage(recipe(train_prior=0.1, train_prior_above=64))


def test_the_anchors_head_is_trained_where_the_recipe_says_so(kit, recipe, tiny_weights, tmp_path):
    net = load_model(tiny_weights)
    net.config = replace(net.config, anchor_size=64)
    save_model(net, tmp_path / "anchored.safetensors", provenance={})
    stage = RestorationStage(
        recipe(init=tmp_path / "anchored.safetensors", window=64, train_anchor=0.5)
    )
    before = kit.copy_of(stage.net)
    stage.step(kit.batch(stage), 0, 0)
    changed = {name for name in kit.changed(stage.net, before) if name.startswith("prior.")}
    assert changed == {"prior.heads.64.weight", "prior.heads.64.bias"}
    with pytest.raises(ValidationError, match="train_anchor: train_prior lets that head learn al"):
        recipe(train_anchor=0.5, train_prior=0.5)
    with pytest.raises(ConfigError, match="train_anchor: this network has no anchor"):
        RestorationStage(recipe(train_anchor=0.5))
    # The head of 64 px is among what is above 16, and not among what is above 32.
    anchored = {"init": tmp_path / "anchored.safetensors", "train_prior": 0.5, "train_anchor": 0.5}
    RestorationStage(recipe(**anchored, train_prior_above=32))
    with pytest.raises(ConfigError, match="train_anchor: train_prior lets that head of 64 px"):
        RestorationStage(recipe(**anchored, train_prior_above=16))


def test_the_degradation_encoder_is_trained_where_the_recipe_says_so(kit, recipe, prior):
    stage = RestorationStage(recipe(train_degradation_encoder=0.5))
    before = kit.copy_of(stage.net)
    stage.step(kit.batch(stage), 0, 0)
    changed = kit.changed(stage.net, before)
    assert {name.split(".")[0] for name in changed} == {"encoder", "fusion", "degradation_encoder"}
    assert not any("running" in name or "head" in name for name in changed)
    assert kit.changed(stage.ema, before) == changed
    rates = [group["initial_lr"] for group in stage.optimizers["net"].param_groups]
    assert rates == pytest.approx([1e-3, 3e-3, 5e-4])
    start = {"size": "tiny", "prior": prior, "constant_masks": True}
    with pytest.raises(ConfigError, match="train_degradation_encoder: this network has no degrad"):
        RestorationStage(recipe(init=None, start=start, train_degradation_encoder=0.5))


def test_the_shares_of_the_bands_stay_where_the_recipe_says_so(kit, recipe, tmp_path):
    config = replace(named_config("tiny"), bands=BandsConfig(levels=(128, 64, 32, 16, 8)))
    save_model(PaniniNet(config), tmp_path / "bands.safetensors", provenance={})
    for learns in (True, False):
        stage = RestorationStage(recipe(init=tmp_path / "bands.safetensors", train_bands=learns))
        before = kit.copy_of(stage.net)
        stage.step(kit.batch(stage), 0, 0)
        changed = {name.split(".")[0] for name in kit.changed(stage.net, before)}
        assert changed == {"encoder", "fusion"} | ({"bands"} if learns else set())
    with pytest.raises(ConfigError, match="train_bands: this network has no bands"):
        RestorationStage(recipe(train_bands=False))


def test_only_what_the_recipe_names_is_trained(kit, recipe):
    only = ["prior.blocks.3.", "fusion.convs.64."]
    stage = RestorationStage(recipe(train_prior=0.5, train_only=only))
    before = kit.copy_of(stage.net)
    stage.step(kit.batch(stage), 0, 0)
    changed = kit.changed(stage.net, before)
    assert changed
    assert all(name.startswith(tuple(only)) for name in changed)
    assert kit.changed(stage.ema, before) == changed
    rates = [group["initial_lr"] for group in stage.optimizers["net"].param_groups]
    assert rates == pytest.approx([1e-3, 5e-4])  # no mask learns
    with pytest.raises(ConfigError, match=r"train_only: .*under encoder, fusion; nothing .*prior"):
        RestorationStage(recipe(train_only=["prior."]))


def test_moments_of_other_weights_are_not_taken(kit, recipe):
    """Branches of two levels are as many tensors of equal shapes: only their names differ."""
    first = recipe(images=4, train_only=["fusion.convs.64."])
    assert fit(RestorationStage(first), first)
    other = recipe(images=8, train_only=["fusion.convs.32."])
    told = (
        r"not a state of this configuration \(optimizer net trained net\.fusion\.convs\.64\.\S+ "
        r"among \d+, expected net\.fusion\.convs\.32\.\S+\); choose another `out`"
    )
    with pytest.raises(TrainingError, match=told):
        fit(RestorationStage(other), other)
    # A checkpoint of before has no names: what fits by its shapes goes on.
    (path,) = Checkpoints(first.out, 2).all()
    tensors, meta = load_tensors(path, kind=KIND)
    del meta["learned"]
    save_tensors(tensors, path, kind=KIND, meta=meta)
    longer = recipe(images=8, train_only=["fusion.convs.64."])
    assert fit(RestorationStage(longer), longer)
    assert kit.state(longer)["meta"]["progress"]["nimg"] == 8


def test_losses_fall_on_a_batch_seen_again(kit, recipe):
    stage = RestorationStage(recipe(window=64))
    batch = kit.batch(stage)
    figures = [stage.step(batch, 0, 0) for _ in range(25)]
    l1 = [[value for name, value in f.items() if name.startswith("l1_")] for f in figures]
    assert sum(l1[-1]) < 0.8 * sum(l1[0])


def test_every_figure_names_its_source_and_scale(kit, recipe):
    stage = RestorationStage(recipe(adversarial=ADVERSARIAL))
    names = set().union(*(stage.step(kit.batch(stage, s), s, 4 * s) for s in range(6)))
    assert names == {
        *(f"{loss}_shards_64" for loss in ("l1", "perceptual")),
        *(f"{loss}_prior_{scale}" for loss in ("l1", "perceptual") for scale in (64, 128)),
        *("theta", "theta_std", "norm", "adversarial", "d_real", "d_fake"),
    }


def test_of_one_face_theta_has_no_deviation(kit, recipe, shard_group):
    one = recipe(data=kit.data(shard_group | {"count": 1}))
    stage = RestorationStage(one)
    assert stage.step(kit.batch(stage), 0, 0)["theta_std"] == 0


def test_groups_of_one_kind_have_figures_of_their_own(kit, recipe, shard_group):
    stage = RestorationStage(recipe(data=kit.data(shard_group, shard_group)))
    figures = stage.step(kit.batch(stage), 0, 0)
    assert {"l1_shards_64", "l1_shards2_64", "perceptual_shards2_64"} <= figures.keys()


def test_l1_is_the_mean_over_the_windows_inner_cells(kit, recipe):
    stage = RestorationStage(recipe())
    batch = kit.batch(stage)
    lq = torch.cat([group.lq for group in batch]).float() / 127.5 - 1
    generator = np.random.default_rng([stage.config.seed, 0])
    window = draw_window(32, generator)
    with torch.no_grad():
        image = stage.net(lq).image[:2]
    figures = stage.step(batch, 0, 0)
    # Half the size: the means of 2×2 pixels of the whole face, two cells off the window's edge.
    restored = F.interpolate(image, (64, 64), mode="bilinear", antialias=True)
    top, left = window.top + 2, window.left + 2
    inner = (..., slice(top, top + 28), slice(left, left + 28))
    gt = batch[0].gt.float() / 127.5 - 1
    expected = (restored[inner] - gt[inner]).abs().mean()
    # The antialias reaches a pixel beyond the part that was synthesised.
    assert figures["l1_shards_64"].item() == pytest.approx(expected.item(), rel=0.02)


def test_the_generator_listens_to_the_discriminator_from_its_start(kit, recipe):
    def weights_after_a_step(**changes) -> dict:
        torch.manual_seed(0)
        stage = RestorationStage(recipe(**changes))
        figures = stage.step(kit.batch(stage), 0, 0)
        return kit.copy_of(stage.net), figures

    without, _ = weights_after_a_step()
    deaf, figures = weights_after_a_step(adversarial=ADVERSARIAL | {"start": 1000})
    assert figures["adversarial"] == 0
    assert "d_real" in figures
    assert all(torch.equal(without[name], deaf[name]) for name in without)
    listening, figures = weights_after_a_step(adversarial=ADVERSARIAL | {"weight": 10.0})
    assert figures["adversarial"] > 0
    assert not all(torch.equal(without[name], listening[name]) for name in without)


def test_the_discriminators_gradients_are_its_own(kit, recipe):
    """The generator's loss must not leave gradients in the discriminator, nor freeze it."""
    stage = RestorationStage(recipe(adversarial=ADVERSARIAL))
    stage.step(kit.batch(stage), 1, 0)
    assert all(p.requires_grad for p in stage.modules["discriminator"].parameters())
    rates = {name: opt.param_groups[0]["initial_lr"] for name, opt in stage.optimizers.items()}
    assert rates["discriminator"] == pytest.approx(2e-4)


def test_a_loss_that_is_not_finite_leaves_the_last_state(kit, recipe):
    config = recipe(images=4)
    fit(RestorationStage(config), config)
    before = kit.state(config)
    longer = recipe(images=12)
    stage = RestorationStage(longer)
    inner = stage.perceptual.forward
    stage.perceptual.forward = lambda *images: inner(*images) * torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        fit(stage, longer)
    assert kit.state(config)["meta"] == before["meta"]
    assert all(torch.isfinite(value).all() for value in stage.net.state_dict().values())


def test_a_state_with_a_discriminator_needs_a_recipe_with_one(recipe):
    config = recipe(images=4)
    fit(RestorationStage(config), config)
    other = recipe(images=8, adversarial=ADVERSARIAL)
    with pytest.raises(TrainingError, match=r"not a state of this configuration.*discriminator"):
        fit(RestorationStage(other), other)


def test_the_discriminator_may_be_a_trained_one(recipe, tmp_path):
    torch.manual_seed(7)
    trained = Discriminator(DiscriminatorConfig(size=32, max_channels=8))
    path = tmp_path / "state.safetensors"
    state = {f"module/discriminator/{name}": v for name, v in trained.state_dict().items()}
    save_tensors(state, path, kind="training-state", meta={})
    stage = RestorationStage(recipe(adversarial=ADVERSARIAL | {"init": path}))
    found = stage.modules["discriminator"].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in trained.state_dict().items())


# ----------------------------------------------------------------------------------------------
# The perceptual term


def test_perceptual_term_is_the_squared_error_of_conv4_3(vgg):
    generator = torch.Generator().manual_seed(0)
    restored, gt = torch.rand(2, 2, 3, 32, 32, generator=generator) * 2 - 1
    restored.requires_grad_()
    term = Perceptual(PerceptualConfig(vgg=vgg))
    found = term(restored, gt)
    network = load_vgg16(vgg)
    x, y = (network(image, ["conv4_3"])["conv4_3"] for image in (restored, gt))
    torch.testing.assert_close(found, ((x - y) / network.contrast).square().mean(dim=(1, 2, 3)))
    found.sum().backward()
    assert restored.grad is not None
    assert restored.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in term.parameters())


def test_the_perceptual_term_may_see_colours_as_the_authors_code_does(vgg):
    torch.manual_seed(0)
    restored, gt = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    plain = Perceptual(PerceptualConfig(vgg=vgg))
    signed = Perceptual(PerceptualConfig(vgg=vgg, signed=True))
    # ImageNet's mean and deviation of [0, 1] are taken of what lies in [-1, 1].
    as_they_are = [plain.judge.prepare(2 * x - 1) for x in (restored, gt)]
    shift, scale = plain.judge.shift, plain.judge.scale
    for given, x in zip(as_they_are, (restored, gt), strict=True):
        expected = 2 * scale * x + (shift - scale)
        torch.testing.assert_close(given, expected.flip(1))
    torch.testing.assert_close(signed(restored, gt), plain(2 * restored - 1, 2 * gt - 1))
    with pytest.raises(ValueError, match="signed is for kind vgg"):
        PerceptualConfig(kind="lpips", vgg=vgg, heads=vgg, signed=True)


def test_the_perceptual_term_is_as_large_with_caffes_weights_as_with_torchvisions(tmp_path):
    """The same filters for both preparations: without the scale one is 3,300 times the other."""
    terms = []
    restored, gt = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for preparation in ("caffe", "torchvision"):
        torch.manual_seed(0)
        state = VGG16((8, 8, 8, 8, 8), preparation=preparation).state_dict()
        if preparation == "caffe":  # BGR, and biases for the larger range
            state = {k: 57.6 * v if k.endswith("bias") else v for k, v in state.items()}
            state["conv1_1.weight"] = state["conv1_1.weight"].flip(1).contiguous()
        path = tmp_path / f"{preparation}.safetensors"
        save_file(state, path, {"preprocess": preparation})
        terms.append(Perceptual(PerceptualConfig(vgg=path))(restored, gt))
    torch.testing.assert_close(terms[0], terms[1], rtol=0.05, atol=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared frozen networks")
def test_the_papers_weight_makes_the_perceptual_term_about_as_large_as_l1():
    """On Caffe's activations as they are it would be thousands of times as large."""
    data = pytest.importorskip("skimage.data")
    face = torch.from_numpy(data.astronaut()[:128, 160:288].copy()).permute(2, 0, 1)[None]
    gt = face / 127.5 - 1
    small = F.interpolate(gt, (32, 32), mode="bilinear", antialias=True)
    blurred = F.interpolate(small, (128, 128), mode="bicubic").clamp(-1, 1)
    term = Perceptual(PerceptualConfig(vgg=SHARED / "vgg16_caffe.safetensors"))(blurred, gt)
    l1 = (blurred - gt).abs().mean().item()
    assert 0.2 * l1 < 1e-2 * term.item() < 5 * l1


def test_torchvisions_own_file_can_be_the_perceptual_network(tmp_path):
    torch.manual_seed(0)
    network = VGG16((4, 4, 4, 8, 8), preparation="torchvision")
    layers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    numbers = dict(zip(network.layers, layers, strict=True))
    state = {}
    for key, value in network.state_dict().items():
        name, _, part = key.partition(".")
        state[f"features.{numbers[name]}.{part}"] = value
    torch.save(state, tmp_path / "vgg16.pth")
    term = Perceptual(PerceptualConfig(vgg=tmp_path / "vgg16.pth"))
    assert isinstance(term.judge, VGG16)
    assert (term.judge.preparation, term.judge.contrast) == ("torchvision", pytest.approx(1.0))
    assert torch.equal(
        term.judge.state_dict()["conv4_3.bias"], network.state_dict()["conv4_3.bias"]
    )


def test_lpips_can_be_the_perceptual_term(kit, recipe, vgg, heads):
    from panini.metrics.lpips import load_lpips

    config = PerceptualConfig(kind="lpips", vgg=vgg, heads=heads)
    restored, gt = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = load_lpips(vgg, heads)(restored, gt)
    torch.testing.assert_close(Perceptual(config)(restored, gt), expected)
    stage = RestorationStage(recipe(perceptual=config.model_dump()))
    assert stage.step(kit.batch(stage), 0, 0)["perceptual_shards_64"] > 0


# ----------------------------------------------------------------------------------------------
# What the paper does not have


def test_a_discriminator_of_features_learns_and_teaches(kit, recipe, vgg):
    feature = {"vgg": vgg, "scale": 128, "patch": 48, "channels": 8, "weight": 10.0}
    feature |= {"r1_weight": 1.0, "r1_every": 1}
    config = recipe(feature_adversarial=feature, adversarial=ADVERSARIAL)
    stage = RestorationStage(config)
    assert set(stage.modules) == {"net", "ema", "discriminator", "feature_discriminator"}
    before = kit.copy_of(stage.modules["feature_discriminator"])
    figures = stage.step(kit.batch(stage), 0, 0)
    assert {"feature_adversarial", "feature_d_real", "feature_d_fake"} <= figures.keys()
    assert kit.changed(stage.modules["feature_discriminator"], before) == set(before)
    torch.manual_seed(0)
    without = RestorationStage(recipe(adversarial=ADVERSARIAL))
    without.step(kit.batch(without), 0, 0)
    assert kit.changed(stage.net, kit.copy_of(without.net))


def test_windows_and_sizes_grow_over_the_images(kit, recipe):
    phases = [{"until": 8, "window": 16, "size": 128}, {"until": 16, "window": 32}]
    config = recipe(window=64, phases=phases)
    assert [config.output_at(nimg) for nimg in (0, 7, 8, 15, 16)] == [
        *[(16, 128)] * 2,
        *[(32, None)] * 2,
        (64, None),
    ]
    stage = RestorationStage(config)
    drawn = [stage._draw(kit.batch(stage), 0, nimg)[0] for nimg in (0, 8, 16)]
    assert [part.images[0].shape[-1] for part in drawn] == [32, 64, 128]
    names = set().union(*(stage.step(kit.batch(stage), s, 0) for s in range(2)))
    assert "l1_shards_64" in names


def test_a_phase_of_a_size_keeps_the_recipes_window(recipe):
    config = recipe(window=32, phases=[{"until": 8, "size": 128}])
    assert config.output_at(0) == (32, 128)


def test_what_is_differentiated_twice_is_not_compiled(recipe, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    for weight in (0.0, 1.0):
        config = recipe(compile=True, adversarial=ADVERSARIAL | {"r1_weight": weight})
        critic = RestorationStage(config).modules["discriminator"]
        assert any(module is critic for module in compiled) == (weight == 0)


def test_sizes_that_the_prior_does_not_have_are_refused(recipe):
    phases = [{"until": 8, "window": 32, "size": 100}]
    with pytest.raises(ConfigError, match=r"phases: expected sizes among \[128\], got 100"):
        RestorationStage(recipe(phases=phases))


def test_validation_judges_the_average_whole(kit, recipe, shard, monkeypatch):
    config = recipe(images=8)
    stage = RestorationStage(config)
    figures = stage.validate(kit.batch(stage)[:1])
    assert list(figures) == ["perceptual", "l1", "theta"]
    lq, gt = (to_float(part) for part in kit.batch(stage)[0][:2])
    with torch.no_grad():
        restored = stage.ema(lq).image
    columns = stage.pictures(kit.batch(stage)[:1])
    assert [column.shape for column in columns] == [(2, 3, 256, 256)] * 3
    expected = [F.interpolate(x, (256, 256), mode="bilinear", antialias=True) for x in (lq, gt)]
    torch.testing.assert_close(columns[0], expected[0])
    torch.testing.assert_close(columns[2], expected[1])
    whole = F.interpolate(restored, (256, 256), mode="bilinear", antialias=True)
    torch.testing.assert_close(columns[1], whole)
    torch.testing.assert_close(figures["l1"], (whole - expected[1]).abs().mean())


def test_a_network_can_start_from_its_prior(recipe, prior, encoder_weights):
    start = {"size": "tiny", "prior": prior, "degradation_encoder": encoder_weights}
    config = recipe(init=None, start=start)
    stage = RestorationStage(config)
    assert torch.equal(stage.net.prior.w_avg, load_prior(prior).w_avg)
    for both in ({"start": start}, {"init": None}):
        with pytest.raises(ValidationError, match="init: name either the weights to go on from"):
            recipe(**both)
    wrong = {"size": "tiny", "prior": prior}
    with pytest.raises(ConfigError, match="degradation_encoder: tiny has one, got None"):
        RestorationStage(recipe(init=None, start=wrong))


def test_data_for_another_task_is_refused(recipe, shard_group, kit):
    data = kit.data(shard_group) | {"task": "sr16", "degradations": []}
    with pytest.raises(ConfigError, match=r"data\.task: the network is for mfr, got sr16"):
        RestorationStage(recipe(data=data))


def test_without_an_average_the_network_itself_is_kept(kit, recipe):
    config = recipe(images=4, ema_half_life=0)
    stage = RestorationStage(config)
    fit(stage, config)
    assert kit.changed(stage.ema, kit.copy_of(stage.net)) == set()


# ----------------------------------------------------------------------------------------------
# Windows


def test_windows_reach_every_place():
    generator = np.random.default_rng(0)
    windows = [draw_window(60, generator) for _ in range(200)]
    assert (
        {window.top for window in windows} == {window.left for window in windows} == set(range(5))
    )
    assert all(window.side == 60 for window in windows)
    assert draw_window(64, generator) == Window(top=0, left=0, side=64)


@pytest.mark.parametrize("pixels", [1, 2, 16])
@pytest.mark.parametrize("trimmed", [True, False])
def test_a_view_at_its_own_size_is_the_windows_inside(pixels, trimmed):
    whole = torch.randn(1, 3, 64 * pixels, 64 * pixels, generator=torch.Generator().manual_seed(0))
    window = Window(top=5, left=9, side=20)
    edge = 2 if trimmed else 0
    inner = Window(top=5 + edge, left=9 + edge, side=20 - 2 * edge)
    found = view(window.crop(whole), window, 64 * pixels, trimmed=trimmed)
    assert torch.equal(found, inner.crop(whole))


def test_a_view_of_the_whole_face_is_not_trimmed():
    whole = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    found = view(whole, Window(top=0, left=0, side=64), 64, trimmed=True)
    assert torch.equal(found, F.interpolate(whole, (64, 64), mode="bilinear", antialias=True))


@pytest.mark.parametrize(("scale", "size"), [(64, 128), (256, 1024), (160, 192), (128, 64)])
def test_restored_and_truth_are_seen_at_the_same_size(scale, size):
    window = Window(top=5, left=9, side=32)
    side = view_side(32, scale, trimmed=True)
    assert side == scale * 28 // 64
    for pixels in (size, 128, 1024):
        crop = window.crop(torch.zeros(1, 3, pixels, pixels))
        assert view(crop, window, scale, trimmed=True).shape == (1, 3, side, side)


def test_pairs_are_cropped_at_one_place():
    generator = np.random.default_rng(0)
    first = torch.arange(100.0).view(1, 1, 10, 10)
    corners = set()
    for _ in range(100):
        a, b = crop_pair(first, first + 1000, 8, generator)
        assert a.shape == (1, 1, 8, 8)
        assert torch.equal(b, a + 1000)
        corners.add(a[0, 0, 0, 0].item())
    assert corners == {0, 1, 2, 10, 11, 12, 20, 21, 22}
    assert crop_pair(first, first, 12, generator) == (first, first)


# ----------------------------------------------------------------------------------------------
# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perceptual": {"kind": "lpips", "vgg": "v"}}, "kind lpips needs the file of its heads"),
        (
            {"adversarial": ADVERSARIAL | {"patch": 64}},
            "adversarial.patch: a window of 32 cells leaves 56 px of a face of 128 px, got 64",
        ),
        (
            {"window": 64, "adversarial": ADVERSARIAL | {"scale": 256}},
            "adversarial.scale: no group has truth compared at 256 px",
        ),
        (
            {"window": 64, "adversarial": ADVERSARIAL | {"patch": 128}, "identity": IDENTITY},
            "patch: the identity loss's face window of 48 cells leaves 88 px of a face of 128 px",
        ),
        ({"train_prior_above": 32}, "train_prior_above: expected a train_prior above 0 with it"),
        ({"window": 4}, "greater than 4"),
        ({"window": 65}, "less than or equal to 64"),
    ],
)
def test_recipes_that_cannot_run_are_refused(recipe, changes, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


def test_truth_is_not_enlarged(recipe, shard_group, kit):
    with pytest.raises(
        ValidationError, match=r"groups\.0\.scales: expected sides up to gt_size 64"
    ):
        recipe(data=kit.data(shard_group | {"scales": [64, 128]}))


def test_a_rule_over_several_keys_is_told_in_a_line(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    good = recipe().model_dump(mode="json")
    path.write_text(yaml.safe_dump(good | {"adversarial": ADVERSARIAL | {"patch": 64}}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, RestorationRunConfig)
    assert str(caught.value).startswith(f"{path}: adversarial.patch: a window of 32 cells leaves")


def test_faces_of_another_size_are_refused(recipe, shard_group, kit):
    config = recipe(data=kit.data(shard_group) | {"lq_size": 512})
    with pytest.raises(ConfigError, match=r"data\.lq_size: the network takes faces of 128 px"):
        train(config)


@pytest.fixture
def with_identity(recipe, monkeypatch):
    def load(_path):
        torch.manual_seed(0)
        return IdentityNet(width=4)

    monkeypatch.setattr("panini.training.restoration.load_identity", load)
    identity = {"weights": "identity.safetensors", "weight": 0.5, "every": 2}
    return recipe(identity=identity)


def test_the_face_window_holds_the_chip_of_the_descriptor():
    left, top, side = (64 * share for share in chip_window())
    assert FACE_WINDOW.left <= left
    assert left + side <= FACE_WINDOW.left + FACE_WINDOW.side
    assert FACE_WINDOW.top <= top
    assert top + side <= FACE_WINDOW.top + FACE_WINDOW.side


def test_identity_is_compared_every_so_many_steps(kit, with_identity):
    stage = RestorationStage(with_identity)
    assert "identity" in stage.step(kit.batch(stage, 0), 0, 0)
    assert "identity" not in stage.step(kit.batch(stage, 1), 1, 8)


def test_the_truth_itself_has_no_identity_distance(kit, with_identity):
    stage = RestorationStage(with_identity)
    batch = kit.batch(stage)
    truths = tuple(
        FACE_WINDOW.crop(F.interpolate(to_float(part.gt), 256, mode="bilinear", antialias=True))
        for part in batch
    )
    same = stage._identity_distance(truths, batch)
    other = stage._identity_distance(tuple(truth.flip(0) for truth in truths), batch)
    assert same < 1e-4
    assert other > 10 * same
