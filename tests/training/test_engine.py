"""What a step of an optimizer is, in every precision."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from panini.errors import ConfigError, MissingExtraError, TrainingError
from panini.training.engine import Engine
from panini.training.run import RunConfig


@pytest.fixture
def recipe(shard_group, kit, tmp_path):
    def make(**changes) -> RunConfig:
        fields = {"images": 8, "data": kit.data(shard_group), "learning_rate": 0.1}
        return RunConfig.model_validate(fields | {"out": tmp_path} | changes)

    return make


def test_accumulated_batches_are_one_large_batch(recipe):
    """The mean gradient of two batches, one step, and no step in between."""

    def after_a_step(accumulate: int) -> torch.Tensor:
        engine = Engine(recipe(accumulate=accumulate))
        weight = nn.Parameter(torch.zeros(2))
        engine.add_optimizer("net", ([weight], 1.0))
        for micro in range(accumulate):
            engine.begin(0, micro)
            rows = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
            rows = rows if accumulate == 1 else 2 * rows[micro]
            norm = engine.update("net", (rows * weight).sum(), clip_norm=1e9)
            assert engine.stepping == (micro + 1 == accumulate)
        assert norm.item() == pytest.approx(10**0.5)
        return weight.data

    assert torch.equal(after_a_step(1), after_a_step(2))


def test_losses_add_up_before_a_step(recipe):
    engine = Engine(recipe())
    weight = nn.Parameter(torch.zeros(2))
    engine.add_optimizer("net", ([weight], 1.0))
    engine.begin(0)
    engine.backward("net", 3 * weight[0])
    engine.backward("net", 4 * weight[1])
    assert engine.step("net").item() == pytest.approx(5)
    assert weight.grad is None


def test_half_precision_scales_its_loss_and_passes_over_what_overflows(recipe):
    engine = Engine(recipe(precision="float16"))
    weight = nn.Parameter(torch.zeros(1))
    engine.add_optimizer("net", ([weight], 1.0))
    scaler = engine.scalers["net"]
    first = scaler.get_scale()
    engine.begin(0)
    engine.update("net", weight.sum() * math.inf)
    assert weight.item() == 0
    assert scaler.get_scale() == first / 2
    engine.check()
    engine.update("net", weight.sum())
    assert weight.item() < 0
    for _ in range(40):
        engine.update("net", weight.sum() * math.inf)
    with pytest.raises(TrainingError, match=r"optimizer net, image 0: .*not finite.*use precision"):
        engine.check()


def test_to_a_run_in_float32_no_float32_is_advised(recipe):
    engine = Engine(recipe())
    weight = nn.Parameter(torch.zeros(1))
    engine.add_optimizer("critic", ([weight], 1.0))
    engine.begin(3, nimg=24)
    with pytest.raises(
        TrainingError, match=r"optimizer critic, image 24: .*good: lower learning_rate or clip_norm"
    ):
        engine.update("critic", weight.sum() * math.nan)


def test_on_a_gpu_the_first_image_that_was_not_finite_is_kept(recipe):
    engine = Engine(recipe())
    weights = {name: nn.Parameter(torch.zeros(1)) for name in ("net", "critic")}
    for name, weight in weights.items():
        engine.add_optimizer(name, ([weight], 1.0))
    engine.device = torch.device("cuda")  # only what is guarded there looks at it
    for step, norms in enumerate(
        ({"net": 1.0}, {"critic": math.nan}, {"net": math.inf}, {"critic": math.inf})
    ):
        engine.begin(step, nimg=8 * step)
        for name in weights:
            engine._guard(name, torch.tensor(norms.get(name, 1.0)))
    with pytest.raises(TrainingError, match="optimizer critic, image 8: "):
        engine.check()


def test_every_step_has_torchs_random_numbers_of_its_own(recipe):
    engine = Engine(recipe())
    engine.begin(3)
    first = torch.rand(1)
    torch.manual_seed(999)
    engine.begin(3)
    assert torch.equal(torch.rand(1), first)
    engine.begin(4)
    assert not torch.equal(torch.rand(1), first)


def test_a_device_that_is_not_there_is_refused(recipe):
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(ConfigError, match="device: device cuda: not available here"):
        Engine(recipe(device="cuda"))


def test_without_accelerate_the_line_that_installs_it_is_told(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"training needs the extra train"):
        Engine(recipe())


def test_update_clips_the_gradient(recipe):
    engine = Engine(recipe())
    weight = nn.Parameter(torch.zeros(4))
    engine.optimizers["net"] = torch.optim.SGD([weight], lr=1.0)
    engine.scalers["net"] = torch.amp.GradScaler("cpu", enabled=False)
    norm = engine.update("net", (weight * torch.tensor([3.0, 0.0, 4.0, 0.0])).sum(), clip_norm=1.0)
    assert norm.item() == pytest.approx(5)
    torch.testing.assert_close(weight.data, torch.tensor([-0.6, 0.0, -0.8, 0.0]), atol=1e-5, rtol=0)


def test_autocast_is_what_the_recipe_says(recipe):
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision in ("float32", "bfloat16", "float16"):
        with Engine(recipe(precision=precision)).autocast():
            assert layer(x).dtype == getattr(torch, precision)
