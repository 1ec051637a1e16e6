"""What a run tells."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from panini.errors import DataError, MissingExtraError
from panini.training.engine import Engine
from panini.training.log import Log, SkippedFaces
from panini.training.run import RunConfig
from panini.training.timing import Timer


@pytest.fixture
def recipe(shard_group, kit, tmp_path):
    def make(**changes) -> RunConfig:
        fields = {"images": 8, "data": kit.data(shard_group), "out": tmp_path}
        return RunConfig.model_validate(fields | changes)

    return make


def test_skipped_faces_are_named_once_and_counted(caplog):
    skipped = SkippedFaces(total=10, most=0.2)
    with caplog.at_level(logging.WARNING, logger="panini"):
        skipped.add(["a.png: broken", "b.png: broken"])
        skipped.add(["a.png: broken"])
    assert [record.getMessage() for record in caplog.records] == [
        "skipped a face, 1 so far: a.png: broken",
        "skipped a face, 2 so far: b.png: broken",
    ]
    with pytest.raises(
        DataError, match=r"3 of 10 faces cannot be read, more than data.max_corrupt "
    ):
        skipped.add(["c.png: broken"])


@pytest.mark.filterwarnings("ignore")
def test_curves_and_sheets_go_to_tensorboard_too(recipe, tmp_path):
    pytest.importorskip("tensorboard")
    config = recipe(tensorboard=True, log_every_s=-1.0)
    log = Log(config, Engine(config), 0)
    log.add({"loss": torch.tensor(2.0)}, 4)
    log.sheet([torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)], 4)
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"loss" in content
    assert b"images_per_s" in content
    assert b"samples" in content


@pytest.mark.filterwarnings("ignore")
def test_curves_keep_the_checkpoints_own_points_on_a_resume(recipe, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = recipe(tensorboard=True)
    for start, images in ((0, (2, 4, 6)), (4, (6,))):
        log = Log(config, Engine(config), start)
        for nimg in images:
            log.write({"loss": float(start)}, nimg)
        log.close()
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    points = [(point.step, point.value) for point in curves.Scalars("loss")]
    assert points == [(2, 0.0), (4, 0.0), (6, 4.0)]


def test_tensorboard_that_is_not_installed_is_told(recipe, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = recipe(tensorboard=True)
    with pytest.raises(MissingExtraError, match="tensorboard: true needs the extra train"):
        Log(config, Engine(config), 0)


def test_of_nested_sections_the_outermost_counts():
    timer = Timer(torch.device("cpu"))
    with timer.section("discriminator"), timer.section("backward"):
        pass
    with timer.section("backward"):
        pass
    timer.add("data", 2.0)
    seconds = timer.collect()
    assert seconds.keys() == {"discriminator", "backward", "data"}
    assert seconds["data"] == 2.0
    assert timer.collect() == {}


def test_a_section_that_fails_does_not_stay_open():
    timer = Timer(torch.device("cpu"))
    with pytest.raises(ZeroDivisionError), timer.section("forward"):
        _ = 1 / 0
    with timer.section("backward"):
        pass
    assert timer.collect().keys() == {"backward"}


def test_the_last_line_tells_what_a_short_run_saw(recipe):
    config = recipe(log_every_s=1e6)
    log = Log(config, Engine(config), 0)
    for nimg, loss in ((2, 1.0), (4, 3.0)):
        log.add({"loss": torch.tensor(loss), "off": torch.tensor(torch.nan)}, nimg)
    assert not log.path.exists()
    log.flush()
    log.flush()
    (line,) = log.path.read_text().splitlines()
    found = json.loads(line)
    assert (found["nimg"], found["loss"], found["off"]) == (4, 2.0, None)
