"""The loop that the stages share, on a stage of one number."""

from __future__ import annotations

import io
import json
import logging
import math
import tarfile

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import nn

from panini.checkpoints import load_tensors, save_tensors
from panini.config import Config
from panini.errors import ConfigError, DataError, TrainingError
from panini.training.checkpointing import FOLDER, KIND, Checkpoints
from panini.training.log import Log
from panini.training.run import Engine, RunConfig, Stage, fit


class OneNumber(Stage):
    """Moves a number towards three."""

    def __init__(self, config: RunConfig, size: int = 1) -> None:
        self.config = config
        self.engine = Engine(config)
        self.net = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.net.weight)
        self.modules = {"net": self.net}
        self.engine.add_optimizer("net", (list(self.net.parameters()), 2.0))
        self.seen: list[tuple[int, int, float]] = []
        self.target = 3.0

    def step(self, batch, step, nimg):
        loss = (self.net.weight - self.target).square().sum()
        self.seen.append((step, nimg, self.optimizers["net"].param_groups[0]["lr"]))
        self.engine.update("net", loss)
        return {"loss": loss.detach(), "step": torch.tensor(float(step))}

    def save(self, folder, nimg):
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(str(nimg))

    def validate(self, batch):
        assert sum(len(part.gt) for part in batch) == self.config.validation.batch
        return {"distance": (self.net.weight - self.nearest).abs().sum()}

    nearest = 0.15

    def pictures(self, batch):
        return [batch[0].gt.float() / 127.5 - 1]


def newest(config):
    return Checkpoints(config.out, 1).all()[-1]


@pytest.fixture
def recipe(shard_group, kit, tmp_path):
    def make(name: str = "run", **changes) -> RunConfig:
        fields = {"images": 8, "data": kit.data(shard_group), "learning_rate": 0.1}
        return RunConfig.model_validate(fields | {"out": tmp_path / name} | changes)

    return make


def test_resumed_run_is_the_uninterrupted_one(kit, recipe):
    kit.check_resume(OneNumber, recipe)


def test_a_finished_run_stays_as_it_is(kit, recipe):
    config = recipe()
    assert fit(OneNumber(config), config)
    before = kit.state(config)
    again = OneNumber(config)
    assert fit(again, config)
    assert again.seen == []
    assert torch.equal(again.net.weight, before["tensors"]["module/net/weight"])
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


def test_figures_are_means_over_the_batches_of_a_step(recipe):
    config = recipe(images=4, accumulate=2, log_every_s=-1.0)
    stage = OneNumber(config)
    inner = stage.step

    def step(batch, number, nimg):
        """The second batch has a figure more, and the norm of both."""
        inner(batch, number, nimg)
        micro = stage.engine.micro
        figures = {"loss": torch.tensor(2.0 + 4 * micro), "norm": torch.tensor(5.0 * micro)}
        return figures | ({"rare": torch.tensor(7.0)} if micro else {})

    stage.step = step
    fit(stage, config)
    (line,) = (config.out / "stats.jsonl").read_text().splitlines()
    line = json.loads(line)
    assert [line[name] for name in ("loss", "norm", "rare")] == [4.0, 5.0, 7.0]


def test_rare_log_lines_average_over_all_steps(recipe):
    config = recipe(log_every_s=1000.0)
    config.out.mkdir()
    log = Log(config, Engine(config), 0)
    for step, value in enumerate((1.0, 2.0, 6.0)):
        log.since -= 500.0
        log.add({"loss": torch.tensor(value)}, 2 * step + 2)
    (line,) = (config.out / "stats.jsonl").read_text().splitlines()
    line = json.loads(line)
    assert line["loss"] == pytest.approx(1.5)
    assert line["nimg"] == 4
    assert {"images_per_s", "data_wait", "peak_memory_mb", "seconds_a_step"} <= line.keys()


def test_a_log_line_tells_where_the_time_goes(recipe):
    config = recipe(log_every_s=-1.0)
    fit(OneNumber(config), config)
    line = json.loads((config.out / "stats.jsonl").read_text().splitlines()[-1])
    assert line["seconds_a_step"].keys() == {"data", "degrade", "backward", "optimizer"}
    assert 0 <= line["data_wait"] <= 1
    assert line["peak_memory_mb"] > 50


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_state_whole(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    before = newest(config).read_bytes()
    longer = recipe(images=16)
    stage = OneNumber(longer)
    stage.target = math.nan
    with pytest.raises(
        TrainingError,
        match=r"optimizer net, image 8: the loss or its gradient is not finite.*run again",
    ):
        fit(stage, longer)
    assert newest(config).read_bytes() == before
    assert torch.isfinite(stage.net.weight).all()


# ----------------------------------------------------------------------------------------------
# Checkpoints


def test_the_newest_checkpoints_and_the_best_stay(recipe, shard):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 2, "count": 4}
    config = recipe(images=20, validation=validation, keep=2, warmup_images=0)
    stage = OneNumber(config)
    stage.nearest = 0.9
    fit(stage, config)
    lines = [json.loads(line) for line in (config.out / "stats.jsonl").read_text().splitlines()]
    looks = {line["nimg"]: line["validation_distance"] for line in lines if len(line) == 2}
    assert sorted(looks) == list(range(2, 21, 2))
    best = min(looks, key=looks.__getitem__)
    assert best < 16
    kept = [int(path.stem) for path in Checkpoints(config.out, 2).all()]
    assert kept == [best, 18, 20]
    assert (config.out / "best" / "weights").read_text() == str(best)
    assert (config.out / "weights").read_text() == "20"


def test_what_is_the_best_survives_a_stop(kit, recipe, shard):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 2, "count": 4}
    config = recipe(images=8, validation=validation, warmup_images=0)
    fit(OneNumber(config), config)
    first = kit.state(config)["meta"]["progress"]
    longer = recipe(images=12, validation=validation, warmup_images=0)
    fit(OneNumber(longer), longer)
    second = kit.state(longer)["meta"]["progress"]
    assert first["best_nimg"] == second["best_nimg"] == 2
    assert second["best"] == first["best"]


def test_the_best_of_another_validation_does_not_count(kit, recipe, shard, caplog):
    source = {"kind": "shards", "paths": [shard]}
    validation = {"source": source, "every": 2, "count": 4}
    config = recipe(images=8, validation=validation, warmup_images=0)
    fit(OneNumber(config), config)
    assert kit.state(config)["meta"]["progress"]["best_nimg"] == 2
    often = recipe(images=9, validation=validation | {"every": 1}, warmup_images=0)
    fit(OneNumber(often), often)
    assert kit.state(often)["meta"]["progress"]["best_nimg"] == 2
    other = recipe(images=12, validation=validation | {"seed": 1}, warmup_images=0)
    with caplog.at_level(logging.INFO):
        fit(OneNumber(other), other)
    assert "the best, of 2 images, no longer counts" in caplog.text
    assert kit.state(other)["meta"]["progress"]["best_nimg"] > 8


def test_a_run_of_a_version_that_knew_fewer_keys_goes_on(recipe, monkeypatch):
    class Beginning(Config):
        size: str
        later: int = 0

    def begin(**fields):
        beginning = property(lambda _: {"start": Beginning(**fields)})
        monkeypatch.setattr(RunConfig, "beginning", beginning)

    begin(size="tiny")
    config = recipe()
    fit(OneNumber(config), config)
    tensors, meta = load_tensors(newest(config), kind=KIND)
    del meta["beginning"]["start"]["later"]
    save_tensors(tensors, newest(config), kind=KIND, meta=meta)
    assert fit(OneNumber(config), config)
    begin(size="tiny", later=1)
    with pytest.raises(TrainingError, match="this run began with start"):
        fit(OneNumber(config), config)


def test_a_sheet_shows_the_validation_faces(recipe, shard):
    from PIL import Image

    source = {"kind": "shards", "paths": [shard]}
    validation = {"source": source, "every": 4, "count": 4, "batch": 2, "sheet": 3, "gt_size": 64}
    config = recipe(images=8, validation=validation)
    fit(OneNumber(config), config)
    names = sorted(path.name for path in (config.out / "samples").iterdir())
    assert names == ["0000000004.png", "0000000008.png"]
    with Image.open(config.out / "samples" / names[0]) as sheet:
        assert sheet.size == (64, 3 * 64)
        assert np.asarray(sheet).std() > 10


class Blind(Stage):
    """Learns nothing, and draws nothing."""

    def __init__(self, config: RunConfig) -> None:
        self.engine = Engine(config)
        self.modules = {}

    def step(self, batch, step, nimg):
        raise AssertionError("the run was to be refused")

    def save(self, folder, nimg):
        raise AssertionError("the run was to be refused")


class Measuring(Blind):
    """Can be validated, but draws nothing."""

    def validate(self, batch):
        return {"loss": torch.zeros(())}


def test_a_validation_that_the_stage_does_not_have_is_refused_at_the_start(recipe, shard):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 4, "count": 4}
    config = recipe(validation=validation | {"sheet": 3})
    with pytest.raises(ConfigError, match=r"validation: Blind has no figure.*leave it out"):
        fit(Blind(config), config)
    with pytest.raises(
        ConfigError, match=r"validation\.sheet: Measuring draws no faces; expected 0, got 3"
    ):
        fit(Measuring(config), config)
    assert not config.out.exists()


def test_more_validation_faces_than_there_are_are_refused(recipe, shard):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 4, "count": 12}
    config = recipe(validation=validation)
    with pytest.raises(
        ConfigError, match=r"validation\.count: the source has 8 faces, got 12; set"
    ):
        fit(OneNumber(config), config)
    assert not config.out.exists()


def test_a_sheet_that_fails_comes_after_the_checkpoint(kit, recipe, shard):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 4, "count": 4}
    config = recipe(validation=validation | {"sheet": 3})
    stage = OneNumber(config)
    stage.pictures = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(stage, config)
    assert kit.state(config)["meta"]["progress"]["nimg"] == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_never_the_best(kit, recipe, shard, bad):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 2, "count": 4}
    config = recipe(validation=validation, warmup_images=0)
    stage = OneNumber(config)
    figures = iter([bad, 2.0, bad, 3.0])
    stage.validate = lambda batch, inner=stage.validate: {"distance": torch.tensor(now[0])}
    now = [next(figures)]
    step = stage.step

    def counted(batch, number, nimg):
        if number:
            now[0] = next(figures)
        return step(batch, number, nimg)

    stage.step = counted
    fit(stage, config)
    progress = kit.state(config)["meta"]["progress"]
    assert (progress["best"], progress["best_nimg"]) == (2.0, 4)
    assert (config.out / "best" / "weights").read_text() == "4"


def test_lines_of_steps_that_are_made_again_are_dropped(recipe):
    config = recipe(log_every_s=-1.0)
    fit(OneNumber(config), config)
    stats = config.out / "stats.jsonl"
    before = stats.read_text()
    stats.write_text(before + '{"nimg": 10, "loss": 1}\n{"nimg": 12, "lo')  # a killed run's
    longer = recipe(images=12, log_every_s=-1.0)
    fit(OneNumber(longer), longer)
    assert stats.read_text().startswith(before)
    lines = [json.loads(line)["nimg"] for line in stats.read_text().splitlines()]
    assert lines == [2, 4, 6, 8, 10, 12]


def test_skipped_faces_are_counted_over_a_stop(kit, recipe, damaged):
    data = kit.data(damaged) | {"max_corrupt": 1.0}
    config = recipe(data=data, images=40, log_every_s=-1.0)
    stage = OneNumber(config)
    fit(stage, config)
    longer = recipe(data=data, images=80, log_every_s=-1.0)
    fit(OneNumber(longer), longer)
    lines = [json.loads(line) for line in (config.out / "stats.jsonl").read_text().splitlines()]
    assert lines[0]["skipped_faces"] <= 1
    assert [line["skipped_faces"] for line in lines[19:]] == [1] * 21
    (reason,) = kit.state(longer)["meta"]["progress"]["skipped"]
    assert "broken.png: not a readable image" in reason


@pytest.fixture
def damaged(shard_group, shard, tmp_path) -> dict:
    """The group of faces, one of which cannot be read."""
    path = tmp_path / "damaged.tar"
    with tarfile.open(shard) as source, tarfile.open(path, "w") as target:
        for member in source:
            target.addfile(member, source.extractfile(member))
        info = tarfile.TarInfo("broken.png")
        info.size = 4
        target.addfile(info, io.BytesIO(b"\x89PNG"))
    return shard_group | {"source": {"kind": "shards", "paths": [path]}}


def test_machines_that_do_not_share_the_folder_are_told(recipe, monkeypatch):
    config = recipe()
    gather = Engine.gather

    def two(self, values):
        other = values + 640 if values.dtype == torch.int64 else values
        return gather(self, torch.cat([values, other]))

    monkeypatch.setattr(Engine, "gather", two)
    with pytest.raises(TrainingError, match=r"run: the processes found checkpoints of 0 to 640 im"):
        fit(OneNumber(config), config)


def test_data_that_is_not_there_leaves_no_folder(recipe, shard_group, kit, tmp_path):
    source = {"kind": "shards", "paths": [tmp_path / "none.tar"]}
    config = recipe(data=kit.data(shard_group | {"source": source}))
    with pytest.raises(DataError, match=r"none\.tar: no such file or folder"):
        fit(OneNumber(config), config)
    assert not config.out.exists()


def test_a_run_out_of_time_stops_with_a_checkpoint_and_goes_on(kit, recipe):
    whole = recipe("whole")
    assert fit(OneNumber(whole), whole)
    config = recipe(max_seconds=1000.0)
    stage = OneNumber(config)
    inner = stage.step

    def slow(batch, step, nimg):
        if step == 1:  # the last step of this leg
            stage.engine.started -= 1000.0
        return inner(batch, step, nimg)

    stage.step = slow
    assert not fit(stage, config)
    assert kit.state(config)["meta"]["progress"]["step"] == 2
    assert fit(OneNumber(config), config)
    found, expected = kit.state(config), kit.state(whole)
    assert torch.equal(
        found["tensors"]["module/net/weight"], expected["tensors"]["module/net/weight"]
    )


FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError(27, "Too big"), FULL]
)
def test_a_full_disk_leaves_the_state_before_it(recipe, monkeypatch, error):
    config = recipe()
    fit(OneNumber(config), config)
    before = newest(config).read_bytes()

    def full(_state, path, **_):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("panini.checkpoints.io.save_file", full)
    longer = recipe(images=16)
    with pytest.raises(
        TrainingError,
        match=r"0000000016\.safetensors: cannot be written.*0000000008\.safetensors is whole: make "
        r"room",
    ):
        fit(OneNumber(longer), longer)
    assert newest(config).read_bytes() == before
    assert [path.name for path in (config.out / FOLDER).iterdir()] == [newest(config).name]


@pytest.mark.parametrize("place", ["", "best"])
def test_a_full_disk_is_told_alike_for_the_weights_and_the_best(recipe, shard, monkeypatch, place):
    validation = {"source": {"kind": "shards", "paths": [shard]}, "every": 8, "count": 4}
    config = recipe(warmup_images=0)
    fit(OneNumber(config), config)

    class Saving(OneNumber):
        def save(self, folder, nimg):
            if folder == config.out / place:
                monkeypatch.setattr("panini.checkpoints.io.save_file", full)
            save_tensors(self.net.state_dict(), folder / "net.safetensors", kind="net", meta={})

    def full(*_, **__):
        raise FULL

    longer = recipe(images=16, validation=validation, warmup_images=0)
    whole = "0000000008" if place else "0000000010"
    with pytest.raises(
        TrainingError,
        match=rf"net\.safetensors: cannot be written.*{whole}\.safetensors is whole: make",
    ):
        fit(Saving(longer), longer)


def test_a_limit_on_files_is_a_full_disk(recipe):
    """The writer itself meets the end of the room, half-way through the file."""
    resource = pytest.importorskip("resource")
    config = recipe()
    fit(OneNumber(config), config)
    before = newest(config).read_bytes()
    longer = recipe(images=16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(TrainingError, match=r"0000000016\.safetensors: cannot be written"):
            fit(OneNumber(longer), longer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest(config).read_bytes() == before
    assert [path.name for path in (config.out / FOLDER).iterdir()] == [newest(config).name]
    assert fit(OneNumber(longer), longer)


def test_a_log_that_cannot_be_written_stops_the_run_with_a_word(recipe, monkeypatch):
    config = recipe(log_every_s=-1.0)
    begun = recipe("begun")
    fit(OneNumber(begun), begun)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Log, "write", full)
    told = r": cannot be written \(No space left on device\); "
    with pytest.raises(TrainingError, match=f"{told}there is no checkpoint yet: make room"):
        fit(OneNumber(config), config)
    longer = recipe("begun", images=16, log_every_s=-1.0)
    with pytest.raises(TrainingError, match=rf"{told}0000000008\.safetensors is whole: make room"):
        fit(OneNumber(longer), longer)


def test_what_a_killed_run_left_half_written_is_removed(recipe):
    config = recipe()
    folders = (config.out, config.out / FOLDER, config.out / "best")
    half = [folder / name for folder in folders for name in (".a.safetensors.abc", ".tmpgEQDY9")]
    others = [folder / name for folder in folders for name in (".tmp", ".tmpgEQDY9x", "tmpgEQDY9")]
    for file in (*half, *others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    fit(OneNumber(config), config)
    assert not any(file.exists() for file in half)
    assert all(file.exists() for file in others)


def test_resumed_moments_have_their_parameters_layout(recipe):
    """Fused Adam refuses others; a file holds all tensors row by row."""

    class Convolving(OneNumber):
        def __init__(self, config):
            super().__init__(config)
            self.net = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
            self.modules = {"net": self.net}
            self.engine.add_optimizer("net", (list(self.net.parameters()), 1.0))

    config = recipe()
    fit(Convolving(config), config)
    again = Convolving(config)
    fit(again, config)
    moments = again.optimizers["net"].state[again.net.weight]
    assert again.net.weight.stride() == (18, 1, 6, 2)
    assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == (18, 1, 6, 2)
    stored = newest_moment(config)
    assert stored.abs().sum() > 0
    assert torch.equal(moments["exp_avg"], stored)


def newest_moment(config) -> torch.Tensor:
    from panini.checkpoints import load_tensors

    return load_tensors(newest(config), kind=KIND)[0]["optimizer/net/0/exp_avg"]


def test_a_curriculum_goes_on_from_the_image_with_other_steps(
    kit, recipe, shard_group, monkeypatch
):
    """After four steps of 2 images, steps of 4: the sixth begins at image 12, not at 20."""
    from panini.data import batch

    mild = {"low_side": (96, 96)}
    data = kit.data(shard_group) | {
        "degradations": [mild, {"low_side": (16, 16)}],
        "degradation_weights": (0.0, 1.0),
        "curriculum": [{"until": 12, "weights": (1.0, 0.0)}],
    }
    config = recipe(data=data)
    fit(OneNumber(config), config)
    rates: list[float] = []

    def spy(image, params, generator, inner=batch.degrade):
        rates.append(params.rate)
        return inner(image, params, generator)

    monkeypatch.setattr(batch, "degrade", spy)
    longer = recipe(data=data, images=16, accumulate=2)
    fit(OneNumber(longer), longer)
    assert [round(128 / rate) for rate in rates] == [96] * 4 + [16] * 4


@pytest.mark.parametrize("images", [8, 1000])
def test_what_other_processes_skipped_counts_too(kit, recipe, monkeypatch, images):
    """At the end, or where the time is over."""
    monkeypatch.setattr(Engine, "gather_texts", lambda _, texts: [*texts, "theirs.png: broken"])
    data = kit.data(*recipe().data.model_dump()["groups"]) | {"max_corrupt": 0.2}
    config = recipe(data=data, images=images, max_seconds=1e-3 if images > 8 else None)
    fit(OneNumber(config), config)
    assert kit.state(config)["meta"]["progress"]["skipped"] == ["theirs.png: broken"]
    strict = recipe("strict", data=data | {"max_corrupt": 0.1})
    with pytest.raises(DataError, match=r"1 of 8 faces cannot be read.*theirs\.png"):
        fit(OneNumber(strict), strict)


def test_damaged_validation_faces_are_counted_among_themselves(kit, recipe, damaged):
    source = damaged["source"]
    validation = {"source": source, "every": 8, "count": 9, "batch": 3}
    with pytest.raises(DataError, match=r"1 of 9 faces cannot be read"):
        fit(OneNumber(recipe(validation=validation)), recipe(validation=validation))
    lenient = recipe("lenient").data.model_dump() | {"max_corrupt": 0.9}
    config = recipe("lenient", validation=validation, data=lenient)
    fit(OneNumber(config), config)
    assert kit.state(config)["meta"]["progress"]["skipped"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"clip_norm": 0.0},
        {"betas": (1.5, 0.9)},
        {"warmup_images": -1},
        {"ema_half_life": -1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_values_that_no_run_could_have_are_refused(recipe, changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        recipe(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"degradation_weights": (-1.0,)},
        {"degradation_weights": (0.0,)},
        {"degradation_weights": (float("nan"),)},
        {"curriculum": ({"until": 4, "weights": (0.0,)},)},
    ],
)
def test_mixes_that_are_none_are_refused(recipe, changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        recipe(data=recipe().data.model_dump() | changes)


def test_a_place_that_cannot_be_made_is_told(recipe, monkeypatch):
    config = recipe()

    def refuses(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("panini.training.run.Path.mkdir", refuses)
    with pytest.raises(TrainingError, match=r"out: .*: cannot be made \(Permission denied\); name"):
        fit(OneNumber(config), config)


def test_a_negative_seed_is_refused(recipe, shard):
    with pytest.raises(ValidationError, match=r"seed\s+Input should be greater than or equal to 0"):
        recipe(seed=-1)
    source = {"kind": "shards", "paths": [shard]}
    with pytest.raises(ValidationError, match=r"validation\.seed\s+Input should be greater than"):
        recipe(validation={"source": source, "every": 8, "seed": -1})


def refused(stage: Stage, config: RunConfig) -> None:
    path = newest(config)
    with pytest.raises(TrainingError) as caught:
        fit(stage, config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: not a state of this configuration (")
    assert message.endswith("or remove it to go on from the checkpoint before it")


def test_a_state_of_another_configuration_is_refused(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    refused(OneNumber(config, size=2), config)
    stage = OneNumber(config)
    stage.modules["other"] = nn.Linear(1, 1)
    refused(stage, config)
    stage = OneNumber(config)
    stage.engine.add_optimizer("net", ([], 1.0), (list(stage.net.parameters()), 1.0))
    refused(stage, config)


def test_a_damaged_state_is_refused(recipe):
    config = recipe()
    fit(OneNumber(config), config)
    path = newest(config)
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[:-10], b"not a state at all"):
        path.write_bytes(content)
        refused(OneNumber(config), config)
    save_tensors({"x": torch.zeros(1)}, path, kind=KIND, meta={})
    refused(OneNumber(config), config)
    save_tensors({"x": torch.zeros(1)}, path, kind="panini-net", meta={})
    refused(OneNumber(config), config)


def test_a_grad_scaler_is_resumed(kit, recipe):
    config = recipe(precision="float16")
    stage = OneNumber(config)
    stage.engine.scalers["net"].scale(torch.ones(1))  # it begins when it is first used
    stage.engine.scalers["net"].update(8.0)
    fit(stage, config)
    assert kit.state(config)["meta"]["scalers"]["net"]["scale"] == 8.0
    again = OneNumber(config)
    fit(again, config)
    assert again.engine.scalers["net"].get_scale() == 8.0
