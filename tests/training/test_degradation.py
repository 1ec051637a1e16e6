"""Stage 1: momentum contrast between faces of equal degradation."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from panini.checkpoints import io, load_tensors
from panini.data import FaceBatches, to_float
from panini.errors import CheckpointError, ConfigError, TrainingError
from panini.losses import info_nce
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.training import degradation
from panini.training.degradation import (
    WEIGHTS,
    DegradationRunConfig,
    DegradationStage,
    calibrate,
    train,
)


@pytest.fixture
def recipe(shard_group, kit, tmp_path):
    def make(name: str = "run", **changes) -> DegradationRunConfig:
        group = shard_group | {"count": changes.pop("count", 8)}
        fields = {"images": 32, "data": kit.data(group), "queue_size": 16, "warmup_images": 0}
        return DegradationRunConfig.model_validate(fields | {"out": tmp_path / name} | changes)

    return make


def test_resumed_run_is_the_uninterrupted_one(kit, recipe):
    kit.check_resume(DegradationStage, recipe, paired=True)


def test_a_run_leaves_an_encoder_that_the_next_stage_reads(recipe):
    config = recipe(images=16, calibration_images=16)
    train(config)
    state, meta = load_tensors(config.out / WEIGHTS, kind="degradation-encoder")
    net = DegradationEncoder(DegradationEncoderConfig(**meta["config"]))
    net.load_state_dict(state)
    assert meta["provenance"] == {"udrl_images": 16, "calibrated": True}


def test_the_best_is_calibrated_too(recipe, shard):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 8, "count": 4}
    config = recipe(images=32, calibration_images=16, validation=validation, queue_size=8)
    train(config)
    names = [config.out / WEIGHTS, config.out / "best" / WEIGHTS]
    (last, own), (best, told) = (load_tensors(path, kind="degradation-encoder") for path in names)
    assert own["provenance"] == {"udrl_images": 32, "calibrated": True}
    assert told["provenance"]["calibrated"]
    if told["provenance"]["udrl_images"] == 32:
        assert all(torch.equal(last[name], best[name]) for name in last)


def test_nothing_is_the_best_before_the_queue_is_full(recipe, shard):
    """A random key of the start is too easy to tell: its figure would never be reached again."""
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 8, "count": 4}
    config = recipe(images=40, calibration_images=0, validation=validation, queue_size=12)
    train(config)
    lines = [json.loads(line) for line in (config.out / "stats.jsonl").read_text().splitlines()]
    told = {e["nimg"]: e["validation_info_nce"] for e in lines if "validation_info_nce" in e}
    assert [nimg for nimg, figure in told.items() if figure is None] == [8, 16]
    _, meta = load_tensors(config.out / "best" / WEIGHTS, kind="degradation-encoder")
    finite = {nimg: figure for nimg, figure in told.items() if nimg > 16}
    assert meta["provenance"]["udrl_images"] == min(finite, key=finite.__getitem__)


def test_a_queue_holds_the_keys_of_a_batch(recipe):
    with pytest.raises(ValueError, match=r"queue_size: expected at least the 4 keys .*, got 3"):
        recipe(queue_size=3)


def test_calibrating_again_gives_the_same_weights(recipe):
    """The state keeps the encoder as it was trained, so a finished run may be run again."""
    config = recipe(images=16, calibration_images=16)
    train(config)
    first, _ = load_tensors(config.out / WEIGHTS, kind="degradation-encoder")
    train(config)
    again, _ = load_tensors(config.out / WEIGHTS, kind="degradation-encoder")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_calibration_measures_faces_of_the_end_of_the_curriculum(recipe, monkeypatch):
    opened = []

    class Spy(FaceBatches):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)

    monkeypatch.setattr(degradation, "FaceBatches", Spy)
    config = recipe(images=16, calibration_images=16)
    train(config)
    assert [dataset.start.nimg for dataset in opened] == [16]


def test_a_full_disk_after_the_calibration_says_what_to_do(recipe, monkeypatch):
    config = recipe(images=16, calibration_images=16)
    calibrate_whole = degradation.calibrate

    def fill_the_disk(*arguments):
        calibrate_whole(*arguments)
        monkeypatch.setattr(io, "save_file", no_space)

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(degradation, "calibrate", fill_the_disk)
    with pytest.raises(TrainingError, match="is whole: make room on the disk and run the same"):
        train(config)


def test_calibration_evens_the_axes_out_and_keeps_the_projection():
    torch.manual_seed(0)
    encoder = DegradationEncoder(DegradationEncoderConfig(kind="mobile", dim=4)).eval()
    with torch.no_grad():
        # Almost all of the variance on one axis, as contrast leaves it.
        encoder.pointwise.weight[0] *= 50
        encoder.pointwise.bias.add_(3)
    lq = torch.rand(128, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    lq = lq * torch.linspace(0.1, 1, 128).view(-1, 1, 1, 1)
    before = encoder(lq).detach()
    projected = encoder.project(before)
    calibrate(encoder, lq, floor=1e-4)
    after = encoder(lq).detach()
    torch.testing.assert_close(encoder.project(after), projected, rtol=1e-3, atol=1e-3)
    assert before.std(dim=0).max() > 20 * before.std(dim=0).min()
    torch.testing.assert_close(after.mean(dim=0), torch.zeros(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(torch.cov(after.T, correction=0), torch.eye(4), atol=0.1, rtol=0)


def test_a_step_contrasts_with_the_queue_as_it_was(kit, recipe):
    """Loss, queue and pointer of a step, worked out by hand."""
    stage = DegradationStage(recipe(momentum=0.9))
    batch = kit.batch(stage, paired=True)
    lq = to_float(batch[0].lq)
    encoder, momentum_encoder = copy.deepcopy(stage.encoder), copy.deepcopy(stage.encoder)
    queue = stage.contrast.queue.clone()
    figures = stage.step(batch, 0, 0)
    with torch.no_grad():
        query = F.normalize(encoder.project(encoder(lq[0::2])), dim=1)
        # The momentum encoder starts as a copy, so the first step does not move it.
        key = F.normalize(momentum_encoder.project(momentum_encoder(lq[1::2])), dim=1)
    expected = info_nce(query, key, queue, 0.07)
    torch.testing.assert_close(figures["info_nce"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stage.contrast.queue[:4], key, rtol=1e-4, atol=1e-5)
    assert torch.equal(stage.contrast.queue[4:], queue[4:])
    assert stage.contrast.pointer.item() == 4


def test_labels_teach_the_encoder_what_was_done(kit, recipe):
    """The term by hand, and its gradient reaches the encoder and the layer that tells."""
    stage = DegradationStage(recipe(label_weight=2.0))
    batch = kit.batch(stage, paired=True)
    params = batch[0].params[0::2].float()
    encoder, teller = copy.deepcopy(stage.encoder), copy.deepcopy(stage.teller)
    before = teller.weight.detach().clone()
    figures = stage.step(batch, 0, 0)
    told = teller(encoder(to_float(batch[0].lq)[0::2]))
    truth = torch.stack(
        [
            (params[:, 0] - 2.25) / 1.3,
            (params[:, 1].log2() - 3.5) / 1.2,
            (params[:, 2] - 7.5) / 4.3,
            (params[:, 3] - 72) / 13,
        ],
        dim=1,
    )
    expected = F.smooth_l1_loss(told, truth)
    torch.testing.assert_close(figures["labels"], expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(stage.teller.weight, before)


def test_each_number_counts_what_the_recipe_says(kit, recipe):
    only_rate = DegradationStage(recipe(label_weight=1.0, label_shares=(0, 4, 0, 0)))
    batch = kit.batch(only_rate, paired=True)
    teller = copy.deepcopy(only_rate.teller)
    only_rate.step(batch, 0, 0)
    moved = (only_rate.teller.weight - teller.weight).abs().sum(dim=1) > 0
    assert moved.tolist() == [False, True, False, False]


def test_a_trained_encoder_goes_on_by_labels_alone(kit, recipe, tmp_path):
    assert train(recipe("first", images=8, calibration_images=0))
    weights = tmp_path / "first" / WEIGHTS
    config = recipe("more", init=weights, contrast_weight=0, label_weight=1.0)
    stage = DegradationStage(config)
    for name, tensor in load_tensors(weights, kind="degradation-encoder")[0].items():
        torch.testing.assert_close(stage.encoder.state_dict()[name], tensor)
    before = kit.copy_of(stage.encoder)
    batch = kit.batch(stage, paired=True)
    assert stage.step(batch, 0, 0).keys() == {"labels"}
    changed = kit.changed(stage.encoder, before)
    assert changed
    assert stage.validate(batch).keys() == {"labels"}
    assert not any(name.startswith("head.") for name in changed)  # only the contrast reads it
    stage.save(tmp_path, 8)
    told = load_tensors(tmp_path / WEIGHTS, kind="degradation-encoder")[1]["provenance"]
    assert told == {"init": WEIGHTS, "udrl_images": 8}
    missing = recipe("none", init=tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="no such file; name a trained encoder, or leave it"):
        train(missing)
    with pytest.raises(ConfigError, match=r"init: .* has a .*mobile.*, the recipe says .*paper"):
        DegradationStage(recipe(init=weights, kind="paper"))


def test_resumed_run_with_labels_is_the_uninterrupted_one(kit, recipe):
    def labelled(name: str = "run", **changes):
        return recipe(name, label_weight=1.0, **changes)

    kit.check_resume(DegradationStage, labelled, paired=True)


def test_labels_need_degradations_by_numbers(recipe, kit, shard_group):
    data = kit.data(shard_group | {"count": 8}) | {"task": "sr16", "degradations": []}
    with pytest.raises(ValidationError, match="label_weight: task 'sr16' has no degradation"):
        recipe(label_weight=1.0, data=data)


def test_the_momentum_encoder_follows_without_gradients(kit, recipe):
    stage = DegradationStage(recipe(momentum=0.9))
    momentum_encoder = stage.contrast.encoder
    start = copy.deepcopy(momentum_encoder)
    stage.step(kit.batch(stage, 0, paired=True), 0, 0)
    stepped = copy.deepcopy(stage.encoder)
    stage.step(kit.batch(stage, 1, paired=True), 1, 8)
    triples = zip(
        momentum_encoder.parameters(), start.parameters(), stepped.parameters(), strict=True
    )
    for found, before, encoder in triples:
        torch.testing.assert_close(found, 0.9 * before + 0.1 * encoder)
        assert found.grad is None
    optimised = {id(p) for p in stage.optimizers["encoder"].param_groups[0]["params"]}
    assert optimised == {id(p) for p in stage.encoder.parameters()}


def test_the_queue_drops_its_oldest_keys_first(recipe):
    contrast = DegradationStage(recipe(queue_size=5)).contrast
    dim = contrast.queue.shape[1]

    def keys(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, dim)

    contrast.enqueue(keys(1, 2, 3))
    contrast.enqueue(keys(4, 5, 6))
    assert contrast.queue[:, 0].tolist() == [6, 2, 3, 4, 5]
    assert contrast.pointer.item() == 6
    contrast.enqueue(keys(7, 8))
    assert contrast.queue[:, 0].tolist() == [6, 7, 8, 4, 5]


def test_the_queue_starts_on_the_sphere_and_stays_there(kit, recipe):
    stage = DegradationStage(recipe())
    for step in range(3):
        norms = stage.contrast.queue.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        stage.step(kit.batch(stage, step, paired=True), step, 8 * step)


def test_crops_stay_on_the_grid_of_jpeg(recipe):
    from panini.training.degradation import _crop

    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    images = torch.stack([y, x, x]).expand(64, -1, -1, -1)
    crops = _crop(images, 16, torch.Generator().manual_seed(0))
    assert crops.shape == (64, 3, 16, 16)
    corners = crops[:, :2, 0, 0]
    assert (corners % 8 == 0).all()
    assert set(corners.flatten().tolist()) == {0, 8, 16, 24}
    torch.testing.assert_close(crops[:, 0, :, 0], corners[:, :1] + torch.arange(16))


def test_crops_are_what_is_contrasted(kit, recipe):
    stage = DegradationStage(recipe(crop=32))
    shapes = []
    stage.encoder.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    stage.step(kit.batch(stage, paired=True), 0, 0)
    assert shapes == [(4, 3, 32, 32)]


def test_two_crops_of_one_face_are_dasrs_pairs(kit, recipe):
    stage = DegradationStage(recipe(pairs="dasr", crop=32, count=3))
    batch = kit.batch(stage)
    query, key = stage._views(batch, (0, 0, 0))
    assert query.shape == key.shape == (3, 3, 32, 32)
    whole = to_float(batch[0].lq)
    for views in (query, key):
        places = whole.unfold(2, 32, 8).unfold(3, 32, 8).permute(0, 2, 3, 1, 4, 5)
        for view, face in zip(views, places, strict=True):
            assert (face == view).all(dim=(-1, -2, -3)).any()
    assert not torch.equal(query, key)
    assert stage.step(batch, 0, 0)["info_nce"] > 0


def test_crops_hang_on_seed_and_part_of_the_step(kit, recipe):
    stage = DegradationStage(recipe(crop=32))
    batch = kit.batch(stage, paired=True)
    first, again, micro = (stage._views(batch, key)[0] for key in ((3, 0, 0), (3, 0, 0), (3, 1, 0)))
    other = DegradationStage(recipe(crop=32, seed=1))._views(batch, (3, 0, 0))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, micro)
    assert not torch.equal(first, other)


def test_a_resumed_run_has_the_same_crops(kit, recipe):
    def make(name: str, **more) -> DegradationRunConfig:
        return recipe(name, crop=32, accumulate=2, images=64, **more)

    kit.check_resume(DegradationStage, make, paired=True)


def test_held_out_pairs_are_told_apart_without_learning(kit, recipe):
    stage = DegradationStage(recipe())
    before = kit.copy_of(stage.contrast) | kit.copy_of(stage.encoder)
    figures = stage.validate(kit.batch(stage, paired=True))
    assert next(iter(figures)) == "info_nce"
    assert not kit.changed(stage.encoder, kit.copy_of(stage.encoder))
    after = kit.copy_of(stage.contrast) | kit.copy_of(stage.encoder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert stage.encoder.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 3}, "data.groups: pairs need even counts, got 3"),
        ({"crop": 100}, "crop: kind mobile takes multiples of 32 px, got 100; try 96"),
        (
            {"validation": {"source": {"kind": "folder", "paths": ["x"]}, "every": 8, "batch": 1}},
            "validation.batch: pairs need an even number, got 1",
        ),
        ({"crop": 256}, "crop: 256 px do not fit faces of 128 px"),
        ({"contrast_weight": 0}, "contrast_weight: 0 leaves nothing to learn; set label_weight"),
        ({"pairs": "dasr"}, "crop: pairs dasr need the side of their patches"),
    ],
)
def test_recipes_that_make_no_pairs_are_refused(recipe, changes, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)
