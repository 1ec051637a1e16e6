"""The estimate of a dry run, against networks that were built."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from panini.features.vgg16 import VGG16
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniNet
from panini.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    StyleGAN2,
    StyleGAN2Config,
)
from panini.training.critics import FeatureDiscriminator
from panini.training.degradation import DegradationRunConfig
from panini.training.distillation import write_prior
from panini.training.estimate import estimate
from panini.training.network import freeze
from panini.training.prior import PriorRunConfig
from panini.training.restoration import RestorationRunConfig


@pytest.fixture
def recipe(shard_group, vgg, kit, tmp_path):
    def make(**changes) -> RestorationRunConfig:
        fields = {
            "out": tmp_path,
            "images": 1000,
            "perceptual": {"vgg": vgg},
            "start": {"size": "tiny", "prior": "none", "degradation_encoder": "none"},
            "data": kit.data(shard_group),
        }
        return RestorationRunConfig.model_validate(fields | changes)

    return make


def test_parameters_and_memory_are_those_of_the_network(recipe):
    net = freeze(PaniniNet.named("tiny"))
    parameters = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    found = estimate(recipe())
    assert found["parameters_m"] == pytest.approx(parameters / 1e6, abs=1e-3)
    assert found["trained_m"] == pytest.approx(trained / 1e6, abs=1e-3)
    assert found["weights_mb"] == pytest.approx((2 * parameters + 3 * trained) * 4e-6, abs=0.1)
    thawed = estimate(recipe(train_prior=1.0))
    prior = sum(p.numel() for p in net.prior.parameters())
    assert thawed["trained_m"] == pytest.approx((trained + prior) / 1e6, abs=1e-3)


def test_operations_are_those_of_a_forward_pass(recipe):
    from torch.utils.flop_counter import FlopCounterMode

    def count(net: torch.nn.Module, *arguments: Any) -> int:
        counter = FlopCounterMode(display=False)
        with counter:
            net(*arguments)
        return counter.get_total_flops()

    net = count(PaniniNet.named("tiny"), torch.zeros(1, 3, 128, 128))
    config = recipe()
    (group,) = config.data.groups
    side = min(config.patch, max(group.scales))
    judge = count(VGG16(), torch.zeros(1, 3, side, side), ["conv4_3"])
    found = estimate(config)
    assert found["forward_gflop_a_face"] == pytest.approx(net / 1e9, abs=1e-3)
    # Forward, to the input and to the weights; of the judge the truth, forward and to the input.
    assert found["run_pflop"] == pytest.approx(1e-12 * (3 * net + 3 * judge), abs=1e-3)


def test_a_tensor_that_several_operations_keep_is_there_once(recipe):
    """Against the places in memory of a pass that is really made."""

    def kept(net: torch.nn.Module, *arguments: Any) -> int:
        weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
        storages: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage  # held, so that no other takes its place
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            net(*arguments)
        return sum(storage.nbytes() for storage in storages.values())

    config = recipe()
    net = kept(freeze(PaniniNet.named("tiny")), torch.zeros(1, 3, 128, 128))
    (group,) = config.data.groups
    side = min(config.patch, max(group.scales))
    patch = torch.zeros(1, 3, side, side, requires_grad=True)
    judge = kept(VGG16(), patch, ["conv4_3"])
    expected = 1e-6 * config.data.batch * (net + judge)
    assert estimate(config)["activations_mb"] == pytest.approx(expected, rel=0.01)


def test_what_is_drawn_at_times_is_in_the_memory(recipe, tmp_path):
    small = {"window": 32, "phases": [{"until": 10, "window": 16}]}
    plain = estimate(recipe(window=32))
    assert estimate(recipe(**small)) == plain
    large = estimate(recipe(window=32, phases=[{"until": 10, "window": 64}]))
    assert large["activations_mb"] > plain["activations_mb"]
    assert large["run_pflop"] == plain["run_pflop"]
    # The face's own window, on the steps that compare who it is, and the descriptor.
    identity = {"weights": tmp_path / "none", "every": 4}
    known = estimate(recipe(window=32, identity=identity))
    assert known["activations_mb"] > plain["activations_mb"]
    assert known["run_pflop"] > plain["run_pflop"]


def test_a_judge_keeps_what_its_patch_needs(recipe):
    large, small = estimate(recipe()), estimate(recipe(patch=32))
    assert large["activations_mb"] > small["activations_mb"] + 5


def test_windows_half_precision_and_batches_count(recipe):
    whole, window = estimate(recipe()), estimate(recipe(window=32))
    assert window["forward_gflop_a_face"] < whole["forward_gflop_a_face"]
    assert estimate(recipe(precision="bfloat16"))["activations_mb"] == pytest.approx(
        whole["activations_mb"] / 2, abs=0.1
    )
    assert whole["activations_mb"] > 1


def test_the_papers_size_needs_no_memory_to_be_estimated(recipe, kit, shard_group):
    data = kit.data(shard_group) | {"lq_size": 512}
    start = {"size": "mfr-1024", "prior": "none", "degradation_encoder": "none"}
    found = estimate(recipe(start=start, data=data, train_prior=1.0))
    # The authors' network has 448.3 G operations and 91 to 95 M parameters with its DRE's head.
    assert found["forward_gflop_a_face"] == pytest.approx(448.3, rel=0.03)
    assert 85 < found["parameters_m"] < 100


def test_a_network_that_is_not_there_yet_is_told(recipe, tmp_path):
    path = tmp_path / "none.safetensors"
    assert estimate(recipe(start=None, init=path)) == {"unknown": f"{path}: no such file"}


def test_the_stage_before_says_the_shape_of_a_network_that_is_not_there_yet(recipe, tmp_path):
    (tmp_path / "warmup").mkdir()
    (tmp_path / "restoration").mkdir()
    path = tmp_path / "warmup" / "tiny.yaml"
    lines = ["out: runs/tiny", "size: tiny", "prior: none", "degradation_encoder: none"]
    lines += ["images: 1", "data: {groups: [{source: {kind: folder, paths: [x]}, count: 1,"]
    lines += ["  gt_size: 64}], degradations: [{}]}"]
    path.write_text("\n".join(lines))
    own = tmp_path / "restoration" / "tiny.yaml"
    config = recipe(start=None, init=Path("runs/tiny/panini.safetensors"))
    assert estimate(config, own) == estimate(recipe()) | {"network_of": str(path)}
    other = recipe(start=None, init=Path("runs/other/panini.safetensors"))
    assert estimate(other, own) == {"unknown": "runs/other/panini.safetensors: no such file"}


def test_trained_discriminators_count(recipe, vgg):
    adversarial = {"scale": 64, "patch": 64, "max_channels": 8}
    feature = {"vgg": vgg, "scale": 64, "patch": 32, "channels": 4, "tap": "relu3_3"}
    plain = estimate(recipe())
    found = estimate(recipe(adversarial=adversarial, feature_adversarial=feature))
    critics = (
        Discriminator(DiscriminatorConfig(size=64, max_channels=8)),
        FeatureDiscriminator(256, 4),
    )
    more = sum(p.numel() for net in critics for p in net.parameters())
    for name in ("parameters_m", "trained_m"):
        assert found[name] - plain[name] == pytest.approx(more / 1e6, abs=2e-3)
    # No average of theirs: weights, gradients and two moments.
    assert found["weights_mb"] - plain["weights_mb"] == pytest.approx(16e-6 * more, abs=0.1)
    assert found["forward_gflop_a_face"] > plain["forward_gflop_a_face"]


def test_a_network_that_is_loaded_for_its_shape_gives_no_warnings(recipe, tiny_weights):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimate(recipe(start=None, init=tiny_weights))
    assert found == estimate(recipe())


def test_the_degradation_encoder_is_estimated(shard_group, kit, tmp_path):
    fields = {"out": tmp_path, "images": 10, "data": kit.data(shard_group)}
    whole = estimate(DegradationRunConfig.model_validate(fields))
    crop = estimate(DegradationRunConfig.model_validate(fields | {"crop": 64}))
    assert whole["forward_gflop_a_face"] == pytest.approx(
        4 * crop["forward_gflop_a_face"], rel=0.02
    )


def test_half_of_the_faces_of_stage_1_are_keys(shard_group, kit, tmp_path):
    fields = {"out": tmp_path, "images": 10**6, "data": kit.data(shard_group), "crop": 64}

    def found(**changes: Any) -> tuple[float, float]:
        told = estimate(DegradationRunConfig.model_validate(fields | changes))
        return float(told["run_pflop"]) / float(told["forward_gflop_a_face"]), float(
            told["activations_mb"]
        )

    labels = {"contrast_weight": 0, "label_weight": 1}
    (udrl, half), (dasr, all_), (alone, same) = (
        found(**changes) for changes in ({}, {"pairs": "dasr"}, labels)
    )
    # A query: forward, backward to the input and to the weights; a key: forward. Two patches of
    # one face are one of each, and labels need no key.
    assert [udrl, dasr, alone] == pytest.approx([2, 4, 1.5], rel=0.05)
    assert half == same == pytest.approx(all_ / 2, abs=0.1)


def test_the_network_before_a_discriminator_of_features_is_in(recipe, vgg):
    feature = {"vgg": vgg, "scale": 64, "patch": 32, "channels": 4}
    early, late = (
        estimate(recipe(images=10**6, feature_adversarial=feature | {"tap": tap}))
        for tap in ("relu2_2", "relu4_3")
    )
    # The discriminator of so few channels is nothing beside it.
    assert float(late["run_pflop"]) > float(early["run_pflop"]) + 1
    assert late["activations_mb"] > early["activations_mb"]


def test_a_degradation_encoder_that_is_trained_counts(recipe):
    encoder = PaniniNet.named("tiny").degradation_encoder
    fixed, thawed = estimate(recipe()), estimate(recipe(train_degradation_encoder=1.0))
    more = sum(p.numel() for p in encoder.parameters())
    assert float(thawed["trained_m"]) - float(fixed["trained_m"]) == pytest.approx(
        more / 1e6, abs=2e-3
    )


def test_a_prior_is_estimated_with_its_discriminator(kit, shard_group, tmp_path):
    network = {"size": 64, "style_dim": 32, "mapping_layers": 2, "max_channels": 16}
    fields = {"out": tmp_path, "images": 10, "data": kit.data(shard_group)}
    recipe = PriorRunConfig.model_validate(fields | {"gan": {"network": network}})
    prior = StyleGAN2(StyleGAN2Config(channel_multiplier=2.0, **network))
    critic = Discriminator(DiscriminatorConfig(size=64, max_channels=16))
    own, beside = (sum(p.numel() for p in net.parameters()) for net in (prior, critic))
    found = estimate(recipe)
    assert found["parameters_m"] == found["trained_m"] == round((own + beside) / 1e6, 3)
    # One average, of the generator; gradient and two moments of both.
    assert found["weights_mb"] == pytest.approx((5 * own + 4 * beside) * 4e-6, abs=0.1)
    assert float(found["forward_gflop_a_face"]) > 0


def test_a_student_is_estimated_without_what_it_takes_over(kit, shard_group, tmp_path):
    teacher = MobileStyleGAN(
        MobileStyleGANConfig(
            size=64, w_dim=32, mapping_layers=2, base_channels=32, channels=(32, 32, 16)
        )
    )
    write_prior(teacher, tmp_path / "teacher.safetensors", {})
    distil = {
        "teacher": tmp_path / "teacher.safetensors",
        "base_channels": 16,
        "channels": [16, 16, 8],
    }
    fields = {"out": tmp_path, "images": 10, "data": kit.data(shard_group), "distil": distil}
    found = estimate(PriorRunConfig.model_validate(fields))
    mapping = sum(p.numel() for p in teacher.mapping_layers.parameters())
    assert float(found["parameters_m"]) - float(found["trained_m"]) == pytest.approx(
        mapping / 1e6, abs=2e-3
    )
    distil["teacher"] = tmp_path / "none.safetensors"
    missing = estimate(PriorRunConfig.model_validate(fields))
    assert missing == {"unknown": f"{tmp_path / 'none.safetensors'}: no such file"}
