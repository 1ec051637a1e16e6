"""The loop that the stages share, on a stage of one number."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch
from torch import nn

from panini.errors import ConfigError, TrainingError
from panini.models.panini_net import PaniniNet
from panini.training import run
from panini.training.run import (
    STATE,
    RunConfig,
    Stage,
    autocast,
    check_lq_size,
    fit,
    freeze,
    optimizer,
    trainable,
    update,
    update_ema,
)


class OneNumber(Stage):
    """Moves a number towards three."""

    def __init__(self, config: RunConfig, size: int = 1) -> None:
        self.config = config
        self.net = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.net.weight)
        self.modules = {"net": self.net}
        self.optimizers = {"net": optimizer(config, (list(self.net.parameters()), 2.0))}
        self.seen: list[tuple[int, int, float]] = []
        self.target = 3.0

    def step(self, batch, step, nimg):
        loss = (self.net.weight - self.target).square().sum()
        self.seen.append((step, nimg, self.optimizers["net"].param_groups[0]["lr"]))
        update(self.optimizers["net"], loss, self.config.clip_norm)
        return {"loss": loss.detach(), "step": torch.tensor(float(step))}

    def save(self, folder, nimg):
        (folder / "weights").write_text(str(nimg))


@pytest.fixture
def recipe(shard_group, kit, tmp_path):
    def make(name: str = "run", **changes) -> RunConfig:
        fields = {"images": 8, "data": kit.data(shard_group), "learning_rate": 0.1}
        return RunConfig.model_validate(fields | {"out": tmp_path / name} | changes)

    return make


def test_resumed_run_is_the_uninterrupted_one(kit, recipe):
    kit.check_resume(OneNumber, recipe)


def test_a_finished_run_stays_as_it_is(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    before = torch.load(config.out / STATE, weights_only=True)
    again = OneNumber(config)
    fit(again, config)
    assert again.seen == []
    assert torch.equal(again.net.weight, before["modules"]["net"]["weight"])
    assert (config.out / "weights").read_text() == "8"


def test_a_longer_recipe_goes_on_from_where_the_run_stands(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    longer = recipe(images=12)
    stage = OneNumber(longer)
    fit(stage, longer)
    assert [(step, nimg) for step, nimg, _ in stage.seen] == [(4, 8), (5, 10)]


def test_a_last_batch_that_is_not_needed_whole_is_seen_whole(recipe):
    config = recipe(images=5)
    stage = OneNumber(config)
    fit(stage, config)
    assert [nimg for _, nimg, _ in stage.seen] == [0, 2, 4]


def test_learning_rate_warms_up_and_falls_along_a_half_cosine(recipe):
    config = recipe(images=12, warmup_images=5)
    stage = OneNumber(config)
    fit(stage, config)
    for _, nimg, rate in stage.seen:
        warmup = min(1, (nimg + 1) / 5)
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * nimg / 12)) / 2
        assert rate == pytest.approx(2.0 * 0.1 * warmup * cosine)


def test_a_resumed_run_takes_its_learning_rate_from_the_recipe(recipe):
    """What the error of a loss that is not finite advises must have an effect."""
    config = recipe(warmup_images=0)
    fit(OneNumber(config), config)
    slower = recipe(images=16, warmup_images=0, learning_rate=0.001, betas=(0.5, 0.6))
    stage = OneNumber(slower)
    fit(stage, slower)
    assert stage.seen[0][2] < 2.0 * 0.001
    assert stage.optimizers["net"].param_groups[0]["betas"] == (0.5, 0.6)


def test_figures_are_logged_as_means_since_the_last_line(recipe, caplog):
    config = recipe(log_every_s=-1.0)
    with caplog.at_level(logging.INFO, logger="panini"):
        fit(OneNumber(config), config)
    lines = [json.loads(line) for line in (config.out / "stats.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == [2, 4, 6, 8]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["loss"] == pytest.approx(9)
    assert "8/8 images" in caplog.text


def test_rare_log_lines_average_over_all_steps(recipe, monkeypatch):
    config = recipe(images=8, log_every_s=2.5)
    clock = iter(range(1000))
    # Each look at the clock is a second later: the log looks once a step.
    monkeypatch.setattr(run.time, "monotonic", lambda: float(next(clock)))
    log = run._Log(config.out / "stats.jsonl", config.log_every_s, config.images)
    config.out.mkdir()
    for step, value in enumerate((1.0, 2.0, 6.0)):
        log.add({"loss": torch.tensor(value)}, 2 * step + 2)
    (line,) = (config.out / "stats.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == pytest.approx(3.0)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_state_whole(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    before = (config.out / STATE).read_bytes()
    longer = recipe(images=16)
    stage = OneNumber(longer)
    stage.target = math.nan
    with pytest.raises(TrainingError, match=r"loss is nan and its gradient not finite.*run again"):
        fit(stage, longer)
    assert (config.out / STATE).read_bytes() == before
    assert torch.isfinite(stage.net.weight).all()


def test_a_full_disk_leaves_the_state_before_it(recipe, monkeypatch):
    config = recipe()
    fit(OneNumber(config), config)
    before = (config.out / STATE).read_bytes()

    def full(_state, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    longer = recipe(images=16)
    with pytest.raises(
        TrainingError, match=r"cannot be written.*the checkpoint before it is whole"
    ):
        fit(OneNumber(longer), longer)
    assert (config.out / STATE).read_bytes() == before
    assert sorted(path.name for path in config.out.iterdir()) == [STATE, "weights"]


def refused(stage: Stage, config: RunConfig) -> None:
    with pytest.raises(TrainingError) as caught:
        fit(stage, config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{config.out / STATE}: not a state of this configuration (")
    assert message.endswith("choose another `out`, or remove it to start again")


def test_a_state_of_another_configuration_is_refused(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    refused(OneNumber(config, size=2), config)
    stage = OneNumber(config)
    stage.modules["other"] = nn.Linear(1, 1)
    refused(stage, config)
    stage = OneNumber(config)
    stage.optimizers["net"] = optimizer(config, ([], 1.0), (list(stage.net.parameters()), 1.0))
    refused(stage, config)


@pytest.mark.parametrize("cut", [0, 20, -100])
def test_a_damaged_state_is_refused(recipe, cut):
    config = recipe()
    fit(OneNumber(config), config)
    path = config.out / STATE
    path.write_bytes(path.read_bytes()[:cut])
    refused(OneNumber(config), config)
    path.write_bytes(b"not a state at all")
    refused(OneNumber(config), config)
    torch.save([1, 2, 3], path)
    refused(OneNumber(config), config)


def test_a_state_with_code_in_it_is_not_executed(recipe, tmp_path):
    config = recipe()
    config.out.mkdir()
    mark = tmp_path / "executed"
    torch.save({"modules": Bomb(mark)}, config.out / STATE)
    refused(OneNumber(config), config)
    assert not mark.exists()


class Bomb:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return (type(self.mark).touch, (self.mark,))


def test_update_clips_the_gradient(recipe):
    weight = nn.Parameter(torch.zeros(4))
    sgd = torch.optim.SGD([weight], lr=1.0)
    norm = update(sgd, (weight * torch.tensor([3.0, 0.0, 4.0, 0.0])).sum(), clip_norm=1.0)
    assert norm.item() == pytest.approx(5)
    torch.testing.assert_close(weight.data, torch.tensor([-0.6, 0.0, -0.8, 0.0]), atol=1e-5, rtol=0)


def test_average_halves_a_weights_share_in_its_half_life():
    net, ema = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(net.weight, 5.0)
    net.num_batches_tracked.fill_(9)
    update_ema(ema, net, images=10, half_life=10, nimg=10**6)
    assert ema.weight.item() == pytest.approx(3.0)  # half-way from 1 to 5
    assert ema.num_batches_tracked.item() == 9
    update_ema(ema, net, images=10, half_life=10, nimg=0)
    assert ema.weight.item() == pytest.approx(5.0)  # the ramp-up starts without a memory


def test_autocast_is_what_the_recipe_says(recipe):
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(recipe(precision=precision)):
            assert layer(x).dtype == dtype


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
