"""What report.jsonl says, and what it takes for done."""

from __future__ import annotations

import json
import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from panini.batch.plan import FACES, Job
from panini.batch.report import FaceRecord, Outcome, Report, Stamp
from panini.errors import ImageError
from panini.images import part_of, write_whole

SETTINGS = {"model": "tiny 123", "prior_bias": {"64": 1.0}, "box": (1, 2)}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "a.jpg").write_bytes(b"photo")
    return Job(source=tmp_path / "a.jpg", target=tmp_path / "out" / "sub" / "a.jpg")


def finish(job: Job, settings: dict[str, Any] | None = None, **words: Any) -> None:
    """Append a line and put the result where it belongs."""
    outcome = Outcome(job=job, stamp=Stamp.of(job.source), **{"state": "done", **words})
    job.target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(job.target)
    part.write_bytes(b"result")
    with Report(job.target.parents[1], settings or SETTINGS) as report:
        report.append(outcome, part)
    part.replace(job.target)


def is_done(job: Job, settings: dict[str, Any] | None = None) -> bool:
    with Report(job.target.parents[1], settings or SETTINGS) as report:
        return report.is_done(job)


def test_line(job: Job) -> None:
    face = FaceRecord(box=(1.04, 2.0, 30.0, 40.0), model="a", theta=0.123456)
    blind = FaceRecord(box=(0, 0, 9, 9), model="b", theta=math.nan, theta_fixed=True)
    finish(job, faces=(face, blind), seconds={"decode": 0.00004, "restore": 1.5})
    (line,) = (job.target.parents[1] / "report.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "input": str(job.source),
        "output": "sub/a.jpg",
        "state": "done",
        "faces": [
            {"box": [1.0, 2.0, 30.0, 40.0], "model": "a", "theta": 0.1235, "theta_fixed": False},
            {"box": [0, 0, 9, 9], "model": "b", "theta": None, "theta_fixed": True},
        ],
        "seconds": {"decode": 0.0, "restore": 1.5},
        "error": None,
        "variations": None,
        "input_bytes": 5,
        "input_mtime_ns": job.source.stat().st_mtime_ns,
        "output_bytes": 6,
        "settings": {**SETTINGS, "box": [1, 2]},
    }


def test_done_until_something_changes(job: Job) -> None:
    assert not is_done(job)
    finish(job)
    assert is_done(job)
    assert not is_done(job, {**SETTINGS, "model": "tiny 456"})
    stat = job.source.stat()
    os.utime(job.source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not is_done(job)
    os.utime(job.source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert is_done(job)
    job.target.write_bytes(b"another result")
    assert not is_done(job)
    job.target.unlink()
    assert not is_done(job)


def test_missing_photo_is_not_done(job: Job) -> None:
    finish(job)
    job.source.unlink()
    assert not is_done(job)


@pytest.mark.parametrize(
    ("state", "kept", "expected"),
    [("copied", True, True), ("skipped", False, True), ("failed", True, False)],
)
def test_states(state: str, kept: bool, expected: bool, job: Job) -> None:
    finish(job, state=state)
    if not kept:
        job.target.unlink()
    assert is_done(job) == expected


def test_last_line_counts(job: Job) -> None:
    finish(job, {"model": "old"})
    finish(job)
    assert is_done(job)
    assert not is_done(job, {"model": "old"})


def test_failure_leaves_the_result_that_is_there(job: Job) -> None:
    finish(job)
    with Report(job.target.parents[1], {"model": "other"}) as report:
        report.append(Outcome(job=job, state="failed", error="exists already"))
    assert is_done(job)


def test_torn_and_foreign_lines_are_ignored(job: Job) -> None:
    finish(job)
    path = job.target.parents[1] / "report.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b'[1]\n{"output": 3}\n\xff\n\n' + whole + whole[: len(whole) // 2])
    assert is_done(job)
    finish(job)
    lines = path.read_bytes().splitlines()
    assert lines[-1] == whole.strip()
    assert lines[-2] == whole[: len(whole) // 2]


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        Report(tmp_path, {}),
        pytest.raises(ImageError, match=r"report\.jsonl: another run is writing to this folder"),
    ):
        Report(tmp_path, {})
    Report(tmp_path, {}).__exit__(None, None, None)


def test_report_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "report.jsonl").mkdir()
    with pytest.raises(ImageError, match=r"report\.jsonl: cannot be written \(Is a directory\)"):
        Report(tmp_path, {})


def test_full_disk_is_told_in_a_line(job: Job, no_room: AbstractContextManager[None]) -> None:
    told = pytest.raises(ImageError, match=r"report\.jsonl: cannot be written \(")
    with no_room, told, Report(job.target.parent, {}) as report:
        report.append(Outcome(job=job, state="done"))


def test_name_that_is_not_utf8(job: Job) -> None:
    odd = Job(source=job.source, target=job.target.with_name(os.fsdecode(b"caf\xe9.jpg")))
    try:
        finish(odd)
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    assert is_done(odd)
    assert not is_done(job)


def test_sweep_takes_only_ours(job: Job, tmp_path: Path) -> None:
    folder = job.target.parent
    (folder / FACES).mkdir(parents=True)
    left = [part_of(job.target), part_of(folder / FACES / "a_1_lq.png"), part_of(folder / "b.JPG")]
    kept = ["a.jpg", ".a.part", ".notes.txt.0123abcd.part", "big.part", ".panini-x.part.png"]
    others = [folder / name for name in kept]
    others.append(part_of(tmp_path / "out" / "elsewhere" / "a.png"))
    others[-1].parent.mkdir()
    for path in left + others:
        path.touch()
    with Report(tmp_path / "out", {}) as report:
        assert report.sweep([job, job]) == len(left)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_sweep_knows_the_parts_of_write_whole(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_part: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    job.target.parent.mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_whole(job.target, b"half")
    assert len(list(job.target.parent.iterdir())) == 1
    with Report(tmp_path / "out", {}) as report:
        assert report.sweep([job]) == 1
