"""The prior stage: a StyleGAN2 from scratch, and a light generator that learns from it."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from pydantic import ValidationError

from panini.checkpoints import load_prior, load_tensors, save_model, save_tensors
from panini.checkpoints.assemble import Plan, assemble
from panini.errors import CheckpointError, ConfigError
from panini.models.mobile_stylegan import MobileStyleGAN
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config
from panini.training.distillation import PRIOR, DistilStage, build_student
from panini.training.prior import GanStage, PathLength, PathLengthConfig, PriorRunConfig, train
from panini.training.restoration import RestorationRunConfig, RestorationStage
from panini.training.run import fit

SHAPE = {
    "size": 64,
    "style_dim": 16,
    "mapping_layers": 2,
    "channel_multiplier": 1 / 32,
    "max_channels": 8,
}
GAN = {
    "network": SHAPE,
    "r1_every": 2,
    "path_length": {"every": 2},
    "augment": {"start": 0.3, "kimg": 0.1, "every": 2},
}


def faces(group: dict, **changes) -> dict:
    return {"groups": [group | changes], "task": "sr16", "lq_size": 4, "num_workers": 0}


@pytest.fixture
def recipe(shard_group, tmp_path):
    def make(name: str = "run", **changes) -> PriorRunConfig:
        fields = {
            "out": tmp_path / name,
            "images": 16,
            "warmup_images": 0,
            "device": "cpu",
            "data": faces(shard_group, count=4),
            "gan": GAN,
        }
        return PriorRunConfig.model_validate(fields | changes)

    return make


def distil_recipe(recipe, teacher, name: str = "distil", **changes) -> PriorRunConfig:
    source = {"kind": "prior_live", "paths": [teacher]}
    group = {"source": source, "count": 4, "gt_size": 64, "scales": [64], "flip": False}
    fields = {"teacher": teacher, "base_channels": 8, "channels": (8, 8, 8), "sizes": [16, 64]}
    data = faces(group) | {"degrade_on": "device"}
    return recipe(name, gan=None, data=data, distil=fields | changes)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(0)
    net = StyleGAN2(StyleGAN2Config(**SHAPE)).requires_grad_(False)
    net.estimate_w_avg(200, torch.Generator().manual_seed(0))
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.2)
    meta = {"config": asdict(net.config)}
    save_tensors(net.state_dict(), path, kind="stylegan2-prior", meta=meta)
    return path


# ----------------------------------------------------------------------------------------------
# StyleGAN2


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bfloat16"}, {"accumulate": 2, "images": 32}],
    ids=["plain", "bfloat16", "accumulate"],
)
def test_resumed_run_is_the_uninterrupted_one(kit, recipe, changes):
    kit.check_resume(GanStage, lambda name, **more: recipe(name, **changes, **more))


def test_a_run_trains_both_networks_and_leaves_the_average(kit, recipe):
    config = recipe()
    stage = GanStage(config)
    before, critic = kit.copy_of(stage.net), kit.copy_of(stage.discriminator)
    assert train(config)
    state = kit.state(config)["tensors"]
    for name, held in (("net", before), ("discriminator", critic)):
        now = {key: state[f"module/{name}/{key}"] for key in held}
        same = {key for key in held if torch.equal(held[key], now[key])}
        assert {key for key in same if not key.endswith(".noise")} == set(), name
    prior = load_prior(config.out / PRIOR)
    assert isinstance(prior, StyleGAN2)
    assert all(
        torch.equal(value, state[f"module/ema/{key}"]) for key, value in prior.state_dict().items()
    )
    _, meta = load_tensors(config.out / PRIOR, kind="stylegan2-prior")
    assert meta["provenance"] == {"init": "scratch", "prior_images": 16}


def test_figures_and_the_lazy_steps(kit, recipe):
    stage = GanStage(recipe())
    first, second = (stage.step(kit.batch(stage, step), step, 4 * step) for step in range(2))
    always = {"generator", "norm", "d_real", "d_fake", "augmented", "sign_real"}
    assert first.keys() == always | {"path_length"}
    assert second.keys() == always
    assert all(value.ndim == 0 and value.isfinite() for value in first.values())
    # Two steps of 4 images in 100: the share has moved.
    assert abs(second["augmented"].item() - 0.3) == pytest.approx(0.08)
    lengths = stage.modules["path_length"].get_buffer("mean")
    assert lengths.item() == pytest.approx(first["path_length"].item())


def test_all_batches_of_a_step_tell_how_sure_the_discriminator_is(kit, recipe):
    stage = GanStage(recipe(accumulate=2))
    batch = kit.batch(stage)
    for micro in range(2):
        stage.engine.begin(0, micro)
        stage.step(batch, 0, 0)
    assert stage.modules["augmentation"].get_buffer("signs")[1] == 2


def test_one_face_is_enough_for_a_validation(kit, recipe):
    stage = GanStage(recipe())
    (part,) = kit.batch(stage)
    one = [part._replace(gt=part.gt[:1])]
    assert stage.validate(one)["thumbnails"] > 0


def test_switches_leave_their_parts_out(kit, recipe):
    gan = GAN | {"path_length": None, "augment": None, "r1_gamma": 0.0, "style_mixing": 0.0}
    stage = GanStage(recipe(gan=gan))
    assert stage.modules.keys() == {"net", "ema", "discriminator"}
    figures = stage.step(kit.batch(stage), 0, 0)
    assert figures.keys() == {"generator", "norm", "d_real", "d_fake", "sign_real"}
    ws = stage.draw_ws(8, torch.Generator().manual_seed(0))
    assert (ws == ws[:, :1]).all()


def test_mixed_styles_change_once_between_the_layers(recipe):
    stage = GanStage(recipe(gan=GAN | {"style_mixing": 1.0}))
    ws = stage.draw_ws(32, torch.Generator().manual_seed(0)).detach()
    changes = (ws[:, 1:] != ws[:, :-1]).any(dim=2).sum(dim=1)
    assert changes.tolist() == [1] * 32
    assert not torch.equal(stage.net.w_avg, torch.zeros(16))


def test_the_generator_learns_to_please_and_the_discriminator_to_tell(kit, recipe):
    """Against a discriminator that stands still, the generator's loss falls."""
    stage = GanStage(recipe(learning_rate=5e-3, gan=GAN | {"path_length": None}))
    batch = kit.batch(stage)
    losses = []
    for step in range(12):
        figures: dict = {}
        fake, loss = stage._listen(8, torch.Generator().manual_seed(step % 2), figures)
        stage.engine.begin(step)
        stage.engine.update("net", loss)
        losses.append(figures["generator"].item())
    assert losses[-1] < losses[0]
    real = torch.cat([group.gt for group in batch]).float() / 127.5 - 1
    gaps = []
    for step in range(1, 30, 2):  # steps without the penalty
        figures = stage._learn(real, fake[:4], step, torch.Generator().manual_seed(step))
        gaps.append((figures["d_real"] - figures["d_fake"]).item())
    assert gaps[-1] > gaps[0]


def test_path_length_is_the_norm_of_the_jacobian():
    class Linear(torch.nn.Module):
        """Doubles w into a picture: the Jacobian is twice the identity."""

        def synthesis(self, ws, random):
            return 2 * ws.reshape(len(ws), 1, 4, 4)

    lengths = PathLength(PathLengthConfig())
    ws = torch.randn(500, 1, 16, requires_grad=True)
    found = lengths(Linear(), ws, torch.Generator().manual_seed(0))
    # |2 y| / 4 for y of 16 standard normal numbers.
    assert found.shape == (500,)
    assert found.square().mean().item() == pytest.approx(4.0, rel=0.1)


def test_validation_and_the_sheet(kit, recipe, shard_group):
    validation = {
        "source": shard_group["source"],
        "every": 8,
        "count": 4,
        "batch": 4,
        "gt_size": 64,
        "sheet": 4,
    }
    config = recipe(validation=validation)
    stage = GanStage(config)
    batch = kit.batch(stage)
    assert stage.validate(batch)["thumbnails"] > 0
    columns = stage.pictures(batch)
    assert [tuple(column.shape) for column in columns] == [(4, 3, 64, 64)] * 3
    fit(stage, config)
    assert (config.out / "best" / PRIOR).is_file()


def test_validation_of_another_size_is_refused(recipe, shard_group):
    validation = {"source": shard_group["source"], "every": 8, "count": 4}
    with pytest.raises(
        ConfigError, match=r"validation\.gt_size: the prior draws 64 px, got 256; set"
    ):
        GanStage(recipe(validation=validation))


def test_what_is_differentiated_twice_is_not_compiled(recipe, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    for gamma in (0.0, 1.0):
        compiled.clear()
        stage = GanStage(recipe(compile=True, gan=GAN | {"r1_gamma": gamma}))
        names = {name for name, module in stage.modules.items() if module in compiled}
        assert "path_length" not in names
        assert ("discriminator" in names) == (gamma == 0)


def test_a_run_goes_on_from_a_prior(kit, recipe, teacher):
    config = recipe(gan={"init": teacher})
    stage = GanStage(config)
    expected = load_prior(teacher).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in stage.net.state_dict().items())
    stage.step(kit.batch(stage), 0, 0)
    assert "blocks.4.conv1.weight" in kit.changed(stage.net, expected)


def test_a_run_goes_on_from_a_discriminator(recipe):
    config = recipe()
    train(config)
    (state, *_) = sorted((config.out / "checkpoints").iterdir(), reverse=True)
    stage = GanStage(recipe("next", gan=GAN | {"discriminator_init": state}))
    tensors = load_tensors(state, kind="training-state")[0]
    for name, value in stage.discriminator.state_dict().items():
        assert torch.equal(value, tensors[f"module/discriminator/{name}"])
    wider = GAN | {"network": SHAPE | {"max_channels": 16}, "discriminator_init": state}
    with pytest.raises(CheckpointError, match="misshapen tensors, first: "):
        GanStage(recipe("wider", gan=wider))


def test_recipes_that_cannot_be_are_refused(recipe, prior, shard_group):
    with pytest.raises(ValidationError, match="exactly one of gan and distil"):
        recipe(gan=None)
    with pytest.raises(ValidationError, match=r"either network \(from scratch\) or init"):
        recipe(gan={})
    with pytest.raises(ConfigError, match=r"gan\.network: expected a size among"):
        GanStage(recipe(gan={"network": SHAPE | {"size": 48}}))
    with pytest.raises(ConfigError, match="the prior draws 64 px, got 128"):
        GanStage(recipe(data=faces(shard_group, gt_size=128)))
    with pytest.raises(ConfigError, match="is no StyleGAN2; a light prior is distilled"):
        GanStage(recipe(gan={"init": prior}))


def test_a_network_around_a_prior_can_be_restored_with(kit, shard_group, vgg, tmp_path):
    torch.manual_seed(0)
    prior = StyleGAN2(StyleGAN2Config(**SHAPE | {"size": 128})).requires_grad_(False)
    net = assemble(prior, Plan(size=128, encoder="mobile"))
    save_model(net, tmp_path / "net.safetensors", provenance={})
    config = RestorationRunConfig.model_validate(
        {
            "out": tmp_path / "run",
            "init": tmp_path / "net.safetensors",
            "images": 8,
            "window": 32,
            "patch": 48,
            "device": "cpu",
            "perceptual": {"vgg": vgg, "weight": 1e-5},
            "data": kit.data(shard_group),
        }
    )
    stage = RestorationStage(config)
    before = kit.copy_of(stage.net)
    figures = stage.step(kit.batch(stage), 0, 0)
    assert all(value.isfinite() for value in figures.values())
    changed = {name.split(".")[0] for name in kit.changed(stage.net, before)}
    assert changed == {"encoder", "fusion"}


# ----------------------------------------------------------------------------------------------
# Distillation


def test_teacher_and_student_share_the_mapping(teacher, recipe):
    net = load_prior(teacher)
    config = distil_recipe(recipe, teacher)
    assert config.distil is not None
    student = build_student(net, config.distil)
    assert isinstance(student, MobileStyleGAN)
    z = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(student.mapping(z), net.mapping(z), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(student.mapping(z, 0.5), net.mapping(z, 0.5), atol=1e-5, rtol=1e-4)
    noise = net.get_buffer("blocks.16.conv0.noise") * 0.2
    assert torch.equal(student.get_buffer("blocks.1.conv1.noise"), noise)
    again = build_student(student, config.distil)
    assert torch.equal(again.mapping(z), student.mapping(z))


def test_distillation_resumes_and_leaves_a_mobile_prior(kit, recipe, teacher):
    def make(name, **more):
        return distil_recipe(recipe, teacher, name).model_copy(update=more)

    kit.check_resume(lambda config: DistilStage(config, config.distil), make)
    prior = load_prior(make("whole").out / PRIOR)
    assert isinstance(prior, MobileStyleGAN)
    _, meta = load_tensors(make("whole").out / PRIOR, kind="mobile-prior")
    assert meta["provenance"] == {"teacher": "teacher.safetensors", "distilled_images": 16}


def test_the_student_comes_nearer_and_keeps_the_mapping(kit, recipe, teacher):
    config = distil_recipe(recipe, teacher).model_copy(update={"learning_rate": 5e-3})
    assert config.distil is not None
    stage = DistilStage(config, config.distil)
    mapping = kit.copy_of(stage.net.mapping_layers)
    batch = kit.batch(stage)
    losses = []
    for step in range(0, 40, 2):  # the full size comes on even steps
        stage.engine.begin(step)
        losses.append(stage.step(batch, step, 4 * step)["l1_64"].item())
    assert losses[-1] < 0.9 * losses[0]
    assert kit.changed(stage.net.mapping_layers, mapping) == set()


def test_every_head_learns_and_every_term_is_heard(kit, recipe, teacher, vgg, heads):
    config = distil_recipe(
        recipe,
        teacher,
        perceptual={"vgg": vgg, "heads": heads, "patch": 32},
        adversarial={"scale": 64, "patch": 32, "max_channels": 8, "r1_weight": 1.0},
    )
    assert config.distil is not None
    stage = DistilStage(config, config.distil)
    before = kit.copy_of(stage.net.heads)
    figures: set[str] = set()
    for step in range(8):
        stage.engine.begin(step)
        figures |= stage.step(kit.batch(stage, step), step, 4 * step).keys()
    assert {"l1_16", "l1_64", "perceptual_16", "perceptual_32", "adversarial"} <= figures
    assert {"d_real", "d_fake", "norm"} <= figures
    moved = {name.split(".")[0] for name in kit.changed(stage.net.heads, before)}
    assert moved == {"16", "64"}
    batch = kit.batch(stage)
    assert stage.validate(batch)["l1"] > 0
    assert [tuple(x.shape) for x in stage.pictures(batch)] == [(4, 3, 64, 64)] * 2


@pytest.mark.parametrize(("sizes", "turns"), [([16], [0, 1, 2]), ([], [0, 1, 2, 3, 4, 5])])
def test_the_critic_counts_its_own_updates(kit, recipe, teacher, monkeypatch, sizes, turns):
    adversarial = {"scale": 64, "patch": 32, "max_channels": 8}
    config = distil_recipe(recipe, teacher, sizes=sizes, adversarial=adversarial)
    assert config.distil is not None
    stage = DistilStage(config, config.distil)
    seen = []
    monkeypatch.setattr(stage.critic, "learn", lambda *parts: seen.append(parts[-1]) or {})
    for step in range(6):
        stage.step(kit.batch(stage, step), step, 4 * step)
    assert seen == turns


def test_distillation_refuses_what_it_cannot_learn_from(recipe, teacher, shard_group):
    def refused(match, config):
        with pytest.raises(ConfigError, match=match):
            DistilStage(config, config.distil)

    refused(
        "distil.channels: a 64 px generator has 3", distil_recipe(recipe, teacher, channels=(8,))
    )
    refused(
        "the student draws at 8, 16, 32, 64 px, got 128",
        distil_recipe(recipe, teacher, sizes=[128]),
    )
    config = distil_recipe(recipe, teacher)
    shards = PriorRunConfig.model_validate(
        config.model_dump() | {"data": faces(shard_group, count=4)}
    )
    refused("distillation needs w: kind prior or prior_live, and flip: false", shards)
    fields = config.data.model_dump()
    fields["groups"][0]["colour_jitter"] = 0.1
    varied = PriorRunConfig.model_validate(config.model_dump() | {"data": fields})
    refused("distillation needs w: .* and no colour_jitter", varied)
    refused(
        "distil.adversarial.patch",
        distil_recipe(recipe, teacher, adversarial={"scale": 64, "patch": 128}),
    )
    source = {"kind": "prior_live", "paths": [teacher]}
    for changes, message in (
        ({"source": shard_group["source"]}, r"validation\.source\.kind: this stage needs w"),
        ({"source": source}, r"validation\.gt_size: the prior draws 64 px, got 256"),
    ):
        validation = {"every": 8, "count": 4} | changes
        fields = config.model_dump() | {"validation": validation}
        refused(message, PriorRunConfig.model_validate(fields))
