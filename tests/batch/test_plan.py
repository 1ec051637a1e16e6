"""Which photos are found, and where their results go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from panini.batch.plan import Plan, make_plan
from panini.errors import ConfigError, ImageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def targets(plan: Plan, out: Path) -> list[str]:
    return [job.target.relative_to(out).as_posix() for job in plan.jobs]


def test_recursion_keeps_the_tree(folder: Path, tmp_path: Path) -> None:
    touch(folder / "b.JPG", folder / "sub" / "a.png", folder / "sub" / "deep" / "a.png")
    touch(folder / "note.txt", folder / ".hidden.png", folder / ".cache" / "a.png")
    plan = make_plan([folder], tmp_path / "out", recursive=True)
    assert targets(plan, tmp_path / "out") == ["b.JPG", "sub/a.png", "sub/deep/a.png"]
    assert plan.jobs[1].source == folder / "sub" / "a.png"
    assert plan.problems == []
    assert list((tmp_path / "out").iterdir()) == []


def test_without_recursion_only_the_folder_itself(folder: Path, tmp_path: Path) -> None:
    touch(folder / "b.jpg", folder / "sub" / "a.png")
    assert targets(make_plan([folder], tmp_path / "out"), tmp_path / "out") == ["b.jpg"]


def test_results_are_not_taken_for_photos(folder: Path) -> None:
    out = folder / "restored"
    touch(folder / "a.jpg", out / "a.jpg", out / "sub" / "b.jpg")
    assert targets(make_plan([folder], out, recursive=True), out) == ["a.jpg"]


def test_output_folder_that_is_the_input(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg")
    (tmp_path / "link").symlink_to(folder)
    plan = make_plan([folder], tmp_path / "link", recursive=True)
    assert plan.jobs == []
    (problem,) = plan.problems
    assert problem.endswith("link: is the folder of the photos itself; choose another output")


def test_links(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg", tmp_path / "elsewhere" / "b.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "z.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (folder / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    os.mkfifo(folder / "pipe.jpg")
    plan = make_plan([folder], tmp_path / "out", recursive=True)
    assert targets(plan, tmp_path / "out") == ["a.jpg", "nowhere.jpg", "z.jpg"]


def test_unreadable_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(folder / "a.jpg", folder / "locked" / "b.jpg")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    plan = make_plan([folder], tmp_path / "out", recursive=True)
    assert targets(plan, tmp_path / "out") == ["a.jpg"]
    locked = folder / "locked"
    assert plan.problems == [f"{locked}: the folder cannot be read (Permission denied)"]


@pytest.mark.parametrize("recursive", [False, True])
def test_folder_without_photos(recursive: bool, folder: Path, tmp_path: Path) -> None:
    plan = make_plan([folder], tmp_path / "out", recursive=recursive)
    assert plan.jobs == []
    assert plan.problems == [f"{folder}: the folder holds no image"]
    assert not (tmp_path / "out").exists()


def test_format_and_names_that_clash(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg", folder / "a.png", folder / "b.JPEG", folder / "c.gif")
    out = tmp_path / "out"
    plan = make_plan([folder], out, recursive=True, suffix=".jpg")
    assert targets(plan, out) == ["a.jpg", "a-2.jpg", "b.JPEG", "c.jpg"]
    plan = make_plan([folder], out, recursive=True)
    assert targets(plan, out) == ["a.jpg", "a.png", "b.JPEG", "c.gif.png"]


def test_names_that_differ_in_case_only(folder: Path, tmp_path: Path) -> None:
    touch(folder / "A.jpg", folder / "a.jpg")
    if len(list(folder.iterdir())) < 2:
        pytest.skip("this disk takes A.jpg and a.jpg for one file")
    out = tmp_path / "out"
    assert targets(make_plan([folder], out, recursive=True), out) == ["A.jpg", "a-2.jpg"]


def test_no_photo_becomes_the_result_of_another(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg", folder / "a.png")
    plan = make_plan([folder], folder, suffix=".png")
    assert targets(plan, folder) == ["a-2.png", "a.png"]  # the second is told that it is itself
    touch(tmp_path / "other" / "a.jpg")
    plan = make_plan([tmp_path / "other" / "a.jpg", folder / "a.jpg"], folder)
    assert targets(plan, folder) == ["a-2.jpg", "a.jpg"]


def test_files_beside_the_results_have_names_of_their_own(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg", folder / "a.png", folder / "b.jpg", folder / "p.jpg")
    touch(folder / "p_v1.jpg")
    out = tmp_path / "out"
    plan = make_plan([folder], out, variations=1)
    names = [job.beside.name for job in plan.jobs]
    assert names == ["a.jpg.jpg", "a.png.png", "b.jpg", "p.jpg.jpg", "p_v1.jpg"]
    assert targets(plan, out) == ["a.jpg", "a.png", "b.jpg", "p.jpg", "p_v1.jpg"]
    assert [job.beside.name for job in make_plan([folder / "p.jpg"], out).jobs] == ["p.jpg"]


def test_earlier_results_are_left_out(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg", folder / "before" / "a.jpg", folder / "before" / "report.jsonl")
    out = folder / "after"
    assert targets(make_plan([folder], out, recursive=True), out) == ["a.jpg"]


def test_a_file_of_a_kind_that_is_not_written_is_no_folder(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg", folder / "b.jpg")
    with pytest.raises(ConfigError, match=r"r\.pdf: cannot write '\.pdf' files; use .*folder"):
        make_plan([folder / "a.jpg"], tmp_path / "r.pdf")
    out = tmp_path / "photos.2024"
    assert targets(make_plan([folder / "a.jpg"], out), out) == ["a.jpg"]


def test_a_photo_named_twice_is_one_job(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg")
    plan = make_plan([folder, folder / "a.jpg", folder], tmp_path / "out", recursive=True)
    assert len(plan.jobs) == 1


def test_name_that_is_not_utf8(folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        touch(folder / name)
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    plan = make_plan([folder], tmp_path / "out", recursive=True, suffix=".jpg")
    assert plan.jobs[0].target == tmp_path / "out" / os.fsdecode(b"caf\xe9.jpg")


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    out = tmp_path / "new" / "a.png"
    (job,) = make_plan([tmp_path / "a.jpg"], out).jobs
    assert job.target == out
    assert out.parent.is_dir()
    with pytest.raises(ImageError, match=r"a\.png: is one file for 2 photos; give a folder"):
        make_plan([tmp_path / "a.jpg", tmp_path / "b.jpg"], out)
    with pytest.raises(ImageError, match=r"a\.png: is a file's name, but -r fills a folder"):
        make_plan([tmp_path / "a.jpg"], out, recursive=True)
    with pytest.raises(ConfigError, match=r"--format webp: but the file .*a\.png says its format"):
        make_plan([tmp_path / "a.jpg"], out, suffix=".webp")
    assert make_plan([tmp_path / "a.jpg"], tmp_path / "b.jpeg", suffix=".jpg").jobs


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format: cannot write 'psd'; use one of avif bmp"):
        make_plan([tmp_path / "a.jpg"], tmp_path / "out", suffix=".psd")


def test_a_photo_that_is_called_like_a_saved_face_keeps_its_place(
    folder: Path, tmp_path: Path
) -> None:
    touch(folder / "x.png", folder / "y.png", folder / "faces" / "x_1_lq.png")
    plan = make_plan([folder], tmp_path / "out", recursive=True)
    assert targets(plan, tmp_path / "out") == ["x.png", "y.png", "faces/x_1_lq.png"]
    assert [job.beside.name for job in plan.jobs] == ["x.png.png", "y.png", "x_1_lq.png"]


def test_what_is_left_out_of_a_folder_is_told(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.png", folder / "b.jp2", folder / "c.JPE", folder / "note.txt")
    touch(folder / "album" / "report.jsonl", folder / "album" / "d.png", folder / ".old" / "e.jp2")
    plan = make_plan([folder], folder / "out", recursive=True)
    assert targets(plan, folder / "out") == ["a.png"]
    assert plan.left_out == [
        f"{folder / 'album'}: holds the results of an earlier run, left out",
        f"{folder}: 2 files left out of kinds that are not read (.jp2, .jpe)",
    ]
