"""Photos worked through one after another: order, overlap, failures, stops and kills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor, nn

from panini.batch.pipeline import BatchOptions, run
from panini.batch.plan import Job
from panini.batch.report import Outcome, Report
from panini.errors import CheckpointError, ConfigError
from panini.faces.align import TEMPLATE
from panini.faces.detect import Face
from panini.images import TO_REPLACE
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniOutput
from panini.photos import load_photo
from panini.restorer import Restorer


@dataclass(frozen=True)
class Sizes:
    in_size: int = 32
    out_size: int = 32
    task: str = "mfr"
    degradation_encoder: str | None = "there is one"


class Darker(nn.Module):
    """Gives the face back, darker."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Sizes()

    def forward(self, lq: Tensor, control: FusionControl | None = None) -> PaniniOutput:
        theta = torch.full((len(lq),), 0.5)
        return PaniniOutput(lq - 0.3, {}, theta, torch.zeros(1), torch.zeros(1))


class Middle:
    """Finds one face that fills the photo, if the photo is not green."""

    def detect(self, photo: np.ndarray, *, min_face: float) -> list[Face]:
        if photo[..., 1].mean() > 200:
            return []
        side = float(min(photo.shape[:2]))
        landmarks = (TEMPLATE * side).astype(np.float32)
        return [Face(box=(0.0, 0.0, side, side), landmarks=landmarks, score=1.0)]


@pytest.fixture
def restorer() -> Restorer:
    made = Restorer(Darker(), device="cpu")  # type: ignore[arg-type]
    made.detector = Middle()  # type: ignore[assignment]
    return made


def make_jobs(folder: Path, count: int) -> list[Job]:
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for number in range(count):
        source = folder / f"{number}.png"
        Image.new("RGB", (40, 40), (100 + number, 80, 60)).save(source)
        jobs.append(Job(source=source, target=folder / "out" / f"{number}.png"))
    return jobs


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]


def test_every_photo_in_its_order(restorer: Restorer, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 7)
    outcomes = list(run(jobs, restorer, BatchOptions(match_colour=False)))
    assert [outcome.job for outcome in outcomes] == jobs
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert names(tmp_path / "out") == [f"{number}.png" for number in range(7)]
    for number, job in enumerate(jobs):
        with Image.open(job.target) as image:
            red = image.getpixel((20, 20))[0]
        assert abs(red - (100 + number - 0.3 * 127.5)) <= 1
    (face,) = outcomes[0].faces
    assert face.theta == 0.5
    assert face.box == (0, 0, 40, 40)


def test_few_photos_are_in_memory(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the caller is, and however many photos there are."""
    loaded: list[Any] = []
    load = load_photo
    monkeypatch.setattr(
        "panini.batch.pipeline.load_photo", lambda path: (loaded.append(path), load(path))[1]
    )
    pulled: list[Job] = []

    def jobs() -> Iterator[Job]:
        for job in make_jobs(tmp_path, 20):
            pulled.append(job)
            yield job

    for told, _ in enumerate(run(jobs(), restorer, BatchOptions())):
        assert len(loaded) - told <= 7
        assert len(pulled) - told <= 7
    assert len(loaded) == 20


def test_failures_do_not_stop_the_others(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(tmp_path, 6)
    jobs[0].source.unlink()
    jobs[1].source.write_bytes(b"")
    jobs[2].source.write_text("hello")
    jobs[3].source.write_bytes(jobs[4].source.read_bytes()[:80])
    restore = restorer.restore

    def hungry(photo: Any, **words: Any) -> Any:
        if photo.rgb[0, 0, 0] == 104:
            raise MemoryError
        return restore(photo, **words)

    monkeypatch.setattr(restorer, "restore", hungry)
    with Report(tmp_path / "out", {}) as report:
        outcomes = list(run(jobs, restorer, BatchOptions(), report=report))
    assert [outcome.state for outcome in outcomes] == ["failed"] * 5 + ["done"]
    expected = ["does not exist", "is empty", "not an image", "truncated", "not enough memory"]
    lines = entries(tmp_path / "out")
    errors = {line["input"]: line["error"] for line in lines}
    for job, outcome, words in zip(jobs, outcomes, expected, strict=False):
        assert outcome.error is not None
        assert outcome.error.startswith(f"{job.source}: ")
        assert words in outcome.error
        assert errors[str(job.source)] == outcome.error
    assert names(tmp_path / "out") == ["5.png", "report.jsonl"]


def test_report_line_of_a_restored_photo(restorer: Restorer, tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    with Report(tmp_path / "out", {"seed": 1}) as report:
        list(run([job], restorer, BatchOptions(), report=report))
    (line,) = entries(tmp_path / "out")
    assert line["faces"] == [
        {"box": [0.0, 0.0, 40.0, 40.0], "model": "unnamed", "theta": 0.5, "theta_fixed": False}
    ]
    assert line["state"] == "done"
    assert line["error"] is None
    assert line["output_bytes"] == job.target.stat().st_size
    assert line["input_mtime_ns"] == job.source.stat().st_mtime_ns
    assert set(line["seconds"]) == {"decode", "detect", "restore", "encode"}
    assert all(value >= 0 for value in line["seconds"].values())


def test_stop_lets_the_photo_at_hand_be_written(restorer: Restorer, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 9)
    told: list[Outcome] = []
    for outcome in run(jobs, restorer, BatchOptions(), stop=lambda: len(told) >= 2):
        told.append(outcome)
    assert 2 <= len(told) <= 5  # two and those that were restored meanwhile
    assert [outcome.job for outcome in told] == jobs[: len(told)]
    assert names(tmp_path / "out") == [f"{number}.png" for number in range(len(told))]
    assert list(run(jobs, restorer, BatchOptions(), stop=lambda: True)) == []


@pytest.mark.parametrize("moment", ["before the name", "in the middle of the file"])
def test_killed_run_is_resumed(
    moment: str, restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves whole files, and the next run does what is missing and nothing else."""
    out = tmp_path / "out"
    jobs = make_jobs(tmp_path, 3)
    killed = jobs[1].target
    replace = Path.replace

    def kill(part: Path, target: Path) -> Path:
        early = target.name.startswith(".") and jobs[0].target.exists()
        if target == killed or (early and moment == "in the middle of the file"):
            raise KeyboardInterrupt
        return replace(part, target)

    def work() -> None:
        with Report(out, {}) as report:
            for job in jobs:  # one at a time, so that the kill is where it is wanted
                list(run([job], restorer, BatchOptions(), report=report))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            work()
    assert [name for name in names(out) if not name.startswith(".")] == ["0.png", "report.jsonl"]
    assert any(name.startswith(".") for name in names(out))
    first = jobs[0].target.stat().st_mtime_ns
    with Report(out, {}) as report:
        todo = [job for job in jobs if not report.is_done(job)]
        assert todo == jobs[1:]
        report.sweep(jobs)
        states = [outcome.state for outcome in run(todo, restorer, BatchOptions(), report=report)]
    assert states == ["done", "done"]
    assert names(out) == ["0.png", "1.png", "2.png", "report.jsonl"]
    assert jobs[0].target.stat().st_mtime_ns == first
    with Report(out, {}) as report:
        assert all(report.is_done(job) for job in jobs)


def test_existing_results(restorer: Restorer, tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    job.target.parent.mkdir()
    job.target.write_bytes(b"mine")
    (outcome,) = run([job], restorer, BatchOptions())
    assert outcome.error == f"{job.target}: exists already; {TO_REPLACE}"
    with Report(job.target.parent, {}) as report:
        (outcome,) = run([job], restorer, BatchOptions(), report=report)
    assert outcome.error is not None
    assert "exists already, of another photo or with other settings" in outcome.error
    assert job.target.read_bytes() == b"mine"
    (outcome,) = run([job], restorer, BatchOptions(overwrite=True))
    assert outcome.state == "done"
    itself = Job(source=job.source, target=job.source)
    (outcome,) = run([itself], restorer, BatchOptions(overwrite=True))
    assert outcome.error == f"{job.source}: is the photo itself; choose another output"
    job.target.unlink()
    job.target.mkdir()
    (outcome,) = run([job], restorer, BatchOptions(overwrite=True))
    assert outcome.error == f"{job.target}: is a folder, expected a file"


def test_faces_left_by_a_kill_are_replaced(restorer: Restorer, tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    options = BatchOptions(save_faces=True)

    def work() -> Outcome:
        with Report(tmp_path / "out", {}) as report:
            assert not report.is_done(job)
            return next(iter(run([job], restorer, options, report=report)))

    assert work().state == "done"
    assert names(tmp_path / "out" / "faces") == ["0_1_lq.png", "0_1_restored.png"]
    path = tmp_path / "out" / "report.jsonl"
    begun, done = path.read_text().splitlines(keepends=True)
    assert (json.loads(begun)["state"], json.loads(done)["state"]) == ("begun", "done")
    job.target.unlink()
    path.write_text(begun)
    assert work().state == "done"


def test_only_files_that_were_announced_are_ours(restorer: Restorer, tmp_path: Path) -> None:
    """A result without saved faces says nothing about a face beside it."""
    (job,) = make_jobs(tmp_path, 1)
    theirs = tmp_path / "out" / "faces" / "0_1_lq.png"

    def work(**options: Any) -> Outcome:
        with Report(tmp_path / "out", {}) as report:
            return next(iter(run([job], restorer, BatchOptions(**options), report=report)))

    assert work().state == "done"
    job.target.unlink()
    theirs.parent.mkdir()
    theirs.write_bytes(b"mine")
    assert "0_1_lq.png: exists already" in (work(save_faces=True).error or "")
    assert theirs.read_bytes() == b"mine"
    assert work(save_faces=True, overwrite=True).state == "done"
    job.target.unlink()
    assert work(save_faces=True).state == "done"  # announced by the run that replaced it


@pytest.mark.parametrize("name", ["faces/0_1_lq.png", "0_v1.png", "0_variations.png"])
def test_what_others_put_beside_a_photo_stays(
    name: str, restorer: Restorer, tmp_path: Path
) -> None:
    (job,) = make_jobs(tmp_path, 1)
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    options = BatchOptions(save_faces=True, variations=1)
    for _ in range(2):  # the first run's line of its failure does not make it ours
        with Report(tmp_path / "out", {}) as report:
            (outcome,) = run([job], restorer, options, report=report)
        assert outcome.error is not None
        assert f"{theirs}: exists already" in outcome.error
        assert theirs.read_bytes() == b"mine"
    assert names(tmp_path / "out") == sorted({"report.jsonl", name.partition("/")[0]})


def test_saved_faces_have_the_photos_profile_and_the_mark(
    restorer: Restorer, tmp_path: Path
) -> None:
    (job,) = make_jobs(tmp_path, 1)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.open(job.source) as image:
        image.save(job.source, icc_profile=profile)
    list(run([job], restorer, BatchOptions(save_faces=True)))
    for kind, marked in (("lq", False), ("restored", True)):
        with Image.open(tmp_path / "out" / "faces" / f"0_1_{kind}.png") as face:
            face.load()
            assert face.info["icc_profile"] == profile
            assert ("xmp" in face.info or "XML:com.adobe.xmp" in face.info) == marked


def test_a_missing_distance_is_told_before_the_work(restorer: Restorer, tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    options = BatchOptions(variations=1, metrics_dir=tmp_path / "none")
    with pytest.raises(CheckpointError, match="none"):
        list(run([job], restorer, options))
    assert not job.target.exists()


@pytest.mark.parametrize(
    ("options", "state", "words"),
    [
        (BatchOptions(), "copied", "no face of at least 24 px found; copied unchanged to"),
        (BatchOptions(upscale=2), "copied", "no face of at least 24 px found; only enlarged to"),
        (BatchOptions(no_face="skip"), "skipped", "no face of at least 24 px found, skipped"),
        (BatchOptions(no_face="fail"), "failed", "no face of at least 24 px found"),
    ],
)
def test_photo_without_a_face(
    options: BatchOptions, state: str, words: str, restorer: Restorer, tmp_path: Path
) -> None:
    (job,) = make_jobs(tmp_path, 1)
    Image.new("RGB", (40, 40), (0, 255, 0)).save(job.source)
    with Report(tmp_path / "out", {}) as report:
        (outcome,) = run([job], restorer, options, report=report)
        assert outcome.state == state
        assert outcome.error is not None
        assert words in outcome.error
    assert job.target.exists() == (state == "copied")
    if words.startswith("no face of at least 24 px found; copied"):
        assert job.target.read_bytes() == job.source.read_bytes()
    with Report(tmp_path / "out", {}) as report:
        assert report.is_done(job) == (state != "failed")


def test_full_disk_names_the_result(
    restorer: Restorer, tmp_path: Path, no_room: AbstractContextManager[None]
) -> None:
    (job,) = make_jobs(tmp_path, 1)
    Image.new("RGB", (40, 40), (0, 255, 0)).save(job.source)
    with no_room:
        (outcome,) = run([job], restorer, BatchOptions())
    assert outcome.error is not None
    assert outcome.error.startswith(f"{job.target}: cannot be written (")
    assert names(tmp_path / "out") == []


def test_full_disk_under_the_report_ends_the_run(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from panini.errors import ImageError

    def full(_outcome: Outcome, _output: Path | None = None) -> None:
        raise ImageError("report.jsonl: cannot be written (No space left on device)")

    jobs = make_jobs(tmp_path, 3)
    with Report(tmp_path / "out", {}) as report:
        monkeypatch.setattr(report, "append", full)
        with pytest.raises(ImageError, match="No space left"):
            list(run(jobs, restorer, BatchOptions(), report=report))
    assert names(tmp_path / "out") == ["report.jsonl"]


def test_consistency_is_refused_once(restorer: Restorer, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 2)
    with pytest.raises(ConfigError, match="consistent: is for faces drawn by a network for sr16"):
        list(run(jobs, restorer, BatchOptions(consistent=True)))
    assert not (tmp_path / "out").exists()


def test_settings_are_all_that_a_result_depends_on() -> None:
    options = BatchOptions(prior_bias={64: 1.0}, overwrite=True)
    settings = options.settings()
    assert settings["prior_bias"] == {"64": 1.0}
    assert "overwrite" not in settings
    assert json.loads(json.dumps(settings)) == settings
    assert set(settings) | {"overwrite", "metrics_dir"} == set(BatchOptions.__dataclass_fields__)
