from __future__ import annotations

import json
import logging
import math
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from panini.data import resize_batch
from panini.errors import CheckpointError, ConfigError, DataError, ImageError
from panini.evaluation import Plan, run, verdicts
from panini.evaluation.cases import Cases
from panini.evaluation.output import FILES
from panini.images import to_tensor, write_whole
from panini.metrics.distribution import FeatureNetwork
from panini.metrics.judge import load_judge
from panini.metrics.psnr import psnr

MakePlan = Callable[..., Plan]


def unchanged(lq: torch.Tensor) -> torch.Tensor:
    return lq


def oracle(plan: Plan, *, blur: float = 0.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Knows the truth of every input: it is looked up."""
    cases = Cases(plan)
    known = {}
    for make in cases.jobs(cases.keys, rates=False):
        case = make()
        known[F.avg_pool2d(to_tensor(case.lq), 64).sum().item()] = to_tensor(case.gt)

    def draw(lq: torch.Tensor) -> torch.Tensor:
        keys = [F.avg_pool2d(one[None], 64).sum().item() for one in lq]
        return torch.cat([known[key] for key in keys]) + blur

    return draw


def lines(out: Path, system: str) -> list[dict]:
    text = (out / "faces" / f"{system}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def photos(folder: Path, face: Callable[..., Any], count: int) -> Path:
    """A folder of different faces, 0.png and on."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(face(number)).save(folder / f"{number}.png")
    return folder


def test_the_truth_beats_the_input_that_comes_back_unchanged(
    plan: MakePlan, judge, drawing, weighing
) -> None:
    wish = plan(metrics=(*plan().metrics, "theta", "grid"), batch=2)
    systems = [weighing("same", unchanged), drawing("truth known", oracle(wish))]
    seen: list[tuple[int, int]] = []
    report = run(wish, systems, judge=judge, progress=lambda *n: seen.append(n))
    assert report.systems == ["input", "same", "truth known"]
    assert seen == [(0, 3), (2, 3), (3, 3)]
    for before, same, best in zip(*report.rows.values(), strict=True):
        assert same.scores == before.scores
        assert best.scores["psnr"] == 100
        assert best.scores["lpips"] < 0.02 * before.scores["lpips"]
        assert best.scores["identity"] < before.scores["identity"]
        assert best.scores["sharpness"] == pytest.approx(best.gt_sharpness, rel=1e-3)
        assert before.params == best.params
        assert 16 <= (before.low_side or 0) <= 100
        assert math.isnan(best.theta)
        assert 0 < same.theta < 1
    assert list(report.theta) == ["same"]
    assert set(report.theta["same"].thetas) == {"face0", "face1", "face2"}
    assert len(set(report.theta["same"].means)) == 4
    assert report.change("same", "lpips").mean == 0
    assert report.names["lpips"] == "lpips_vgg_caffe"
    case = next(iter(Cases(wish).jobs({"face1"})))()
    with Image.open(wish.out / "restored" / "truth known" / "face1.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), case.gt)
    with Image.open(wish.out / "restored" / "input" / "face1.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), case.lq)
    assert {path.name for path in wish.out.iterdir()} >= {*FILES, "plan.json"}
    assert set(report.seconds) >= {"faces", "restore", "theta", "score", "files"}


def test_super_resolution_is_scored_at_full_size_and_by_its_input(
    plan: MakePlan, judge, drawing
) -> None:
    wish = plan(task="sr16", metrics=(*plan().metrics, "psnr_full", "faithfulness"))
    known = oracle(wish)
    systems = [drawing("truth known", known), drawing("pale", oracle(wish, blur=0.25))]
    report = run(wish, systems, judge=judge)
    assert report.systems == ["bicubic", "truth known", "pale"]
    assert report.theta == {}
    for bicubic, best, pale in zip(*report.rows.values(), strict=True):
        assert best.scores["psnr_full"] == best.scores["faithfulness"] == best.scores["psnr"] == 100
        assert best.scores["identity"] == best.scores["lpips"] == 0
        assert bicubic.scores["faithfulness"] > 20
        assert pale.scores["faithfulness"] < 20
        assert (best.params, best.low_side) == ({}, None)
    assert report.groups == ["all"]


def test_restoration_is_compared_at_full_size_if_that_is_asked_for(
    plan: MakePlan, judge, drawing, tmp_path, face
) -> None:
    (tmp_path / "large").mkdir()
    Image.fromarray(face(0, 512)).save(tmp_path / "large" / "a.png")
    wish = plan(data=tmp_path / "large", metrics=("psnr_full",))
    assert wish.wanted == wish.per_face == ("psnr_full",)
    assert "psnr_full" not in plan(metrics=None).wanted
    report = run(wish, [drawing("truth known", oracle(wish))], judge=load_judge(None, metrics=()))
    (before,), (best,) = report.rows.values()
    assert set(before.scores) == {"psnr_full"}
    assert best.scores["psnr_full"] == 100
    case = next(iter(Cases(wish).jobs({"a"})))()
    assert before.scores["psnr_full"] == pytest.approx(
        psnr(to_tensor(case.lq), to_tensor(case.gt)).item()
    )
    assert "Full size: 512 px." in (wish.out / "report.md").read_text()


def test_an_evaluation_goes_on_where_it_was_stopped(plan: MakePlan, judge, drawing) -> None:
    wish = plan(batch=1)

    def fails_late(lq: torch.Tensor) -> torch.Tensor:
        if failing.seen == 3:
            raise RuntimeError("no power")
        return lq

    failing = drawing("one", fails_late)
    with pytest.raises(RuntimeError, match="no power"):
        run(wish, [failing], judge=judge)
    assert len(lines(wish.out, "one")) == 2
    assert not (wish.out / "report.json").exists()
    # A killed run may leave half a line.
    with (wish.out / "faces" / "one.jsonl").open("a") as file:
        file.write('{"key": "face2", "par')
    seen: list[tuple[int, int]] = []
    one = drawing("one", unchanged)
    report = run(wish, [one], judge=judge, progress=lambda *n: seen.append(n))
    assert (one.seen, seen) == (1, [(2, 3), (3, 3)])
    assert [row.key for row in report.rows["one"]] == ["face0", "face1", "face2"]
    assert len(lines(wish.out, "one")) == 3
    # Another system comes later: only it works.
    one, two = drawing("one", unchanged), drawing("two", unchanged)
    again = run(wish, [one, two], judge=judge)
    assert (one.seen, two.seen) == (0, 3)
    assert again.rows["one"] == again.rows["two"] == report.rows["one"]


def test_another_plan_is_refused_unless_it_starts_afresh(plan: MakePlan, judge, drawing) -> None:
    one = drawing("one", unchanged)
    wish = plan(limit=1)
    run(wish, [one], judge=judge)
    with pytest.raises(ConfigError, match=r"out: was made with seed 0, now it is 1; choose"):
        run(plan(limit=1, seed=1), [one], judge=judge)
    elsewhere = shutil.copytree(wish.data, wish.out.parent / "others")
    with pytest.raises(ConfigError, match=r"was made with data .*, now it is others; choose"):
        run(plan(limit=1, data=elsewhere), [one], judge=judge)
    with pytest.raises(ConfigError, match="was made with metrics psnr, ssim"):
        run(plan(limit=1, metrics=("psnr",)), [one], judge=judge)
    with pytest.raises(ConfigError, match="was made with degradations floor, now it is paper"):
        run(plan(limit=1, degradations="paper"), [one], judge=judge)
    # Folders that do not tell were made before there was a choice.
    told = json.loads((wish.out / "plan.json").read_text())
    del told["plan"]["degradations"]
    (wish.out / "plan.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="was made with degradations floor, now it is paper"):
        run(plan(limit=1, degradations="paper"), [one], judge=judge)
    run(wish, [one], judge=judge)
    other = drawing("one", unchanged)
    other.identity = "other weights"
    with pytest.raises(ConfigError, match=r"holds results of another 'one'.*--overwrite"):
        run(wish, [other], judge=judge)
    afresh = drawing("one", unchanged)
    report = run(plan(limit=2, seed=1, overwrite=True), [afresh], judge=judge)
    assert afresh.seen == 2
    assert len(report.rows["one"]) == 2


def test_only_faces_that_are_new_or_have_changed_are_restored(
    plan: MakePlan, judge, drawing, tmp_path: Path, face
) -> None:
    data = photos(tmp_path / "photos", face, 3)
    run(plan(data=data, limit=2), [drawing("one", unchanged)], judge=judge)
    Image.fromarray(face(7)).save(data / "0.png")
    one = drawing("one", unchanged)
    report = run(plan(data=data), [one], judge=judge)
    afresh = run(plan(data=data, out=tmp_path / "afresh"), [drawing("one", unchanged)], judge=judge)
    assert one.seen == 2
    for again, row in zip(report.rows["one"], afresh.rows["one"], strict=True):
        assert (again.mark, again.params) == (row.mark, row.params)
        assert again.scores == pytest.approx(row.scores, rel=1e-4)  # batches differ
    fewer = drawing("one", unchanged)
    assert len(run(plan(data=data, limit=1), [fewer], judge=judge).rows["one"]) == 1
    assert fewer.seen == 0


def test_a_face_that_changes_back_is_restored_again(
    plan: MakePlan, judge, drawing, tmp_path: Path, face
) -> None:
    data = photos(tmp_path / "photos", face, 2)
    first = (data / "0.png").read_bytes()
    wish = plan(data=data)
    before = run(wish, [drawing("one", unchanged)], judge=judge)
    picture = (wish.out / "restored" / "one" / "0.png").read_bytes()
    Image.fromarray(face(7)).save(data / "0.png")
    run(wish, [drawing("one", unchanged)], judge=judge)
    (data / "0.png").write_bytes(first)
    after = run(wish, [drawing("one", unchanged)], judge=judge)
    for again, row in zip(after.rows["one"], before.rows["one"], strict=True):
        assert again.scores == pytest.approx(row.scores, rel=1e-4)
    assert (wish.out / "restored" / "one" / "0.png").read_bytes() == picture


@pytest.mark.parametrize("shard", [False, True])
def test_an_evaluation_goes_on_once_a_damaged_file_is_mended(
    plan: MakePlan, judge, drawing, tmp_path: Path, face, shard: bool
) -> None:
    folder = photos(tmp_path / "photos", face, 4)
    data = tmp_path / "photos.tar" if shard else folder

    def put(content: bytes) -> None:
        (folder / "3.png").write_bytes(content)
        if shard:
            with tarfile.open(data, "w") as archive:
                for path in sorted(folder.iterdir()):
                    archive.add(path, path.name)

    whole = (folder / "3.png").read_bytes()
    put(whole[: len(whole) // 2])
    wish = plan(data=data, batch=1)
    remedy = "(copy the file again|replace it, or leave it out)"
    told = rf"3\.png: .*truncated.*; {remedy}; what is done stays, and the same command goes on"
    with pytest.raises(DataError, match=told):
        run(wish, [drawing("one", unchanged)], judge=judge)
    put(whole)
    one = drawing("one", unchanged)
    assert len(run(wish, [one], judge=judge).rows["one"]) == 4
    assert one.seen < 4


def test_distances_of_sets_follow_a_face_that_has_changed(
    plan: MakePlan, drawing, metrics_dir: Path, tmp_path: Path, face
) -> None:
    data = photos(tmp_path / "photos", face, 3)
    wish = plan(data=data, metrics=("fid",), metrics_dir=metrics_dir)
    before = run(wish, [drawing("one", unchanged)]).sets
    Image.fromarray(face(7)).save(data / "0.png")
    after = run(wish, [drawing("one", unchanged)]).sets
    afresh = run(replace(wish, out=tmp_path / "afresh"), [drawing("one", unchanged)]).sets
    assert after == afresh
    assert after != before


def test_a_strangers_folder_is_left_alone(plan: MakePlan, judge, drawing) -> None:
    wish = plan(overwrite=True)
    (wish.out / "faces").mkdir(parents=True)
    (wish.out / "faces" / "me.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"faces: is there already, but no plan\.json"):
        run(wish, [drawing("one", unchanged)], judge=judge)
    assert (wish.out / "faces" / "me.png").read_bytes() == b"mine"
    wish = plan(out=wish.out / "faces" / "me.png")
    with pytest.raises(ConfigError, match=r"me\.png: is a file, expected a folder"):
        run(wish, [drawing("one", unchanged)], judge=judge)


def test_damaged_results_are_named(plan: MakePlan, judge, drawing) -> None:
    wish = plan(limit=1)
    run(wish, [drawing("one", unchanged)], judge=judge)
    path = wish.out / "faces" / "one.jsonl"
    row = json.loads(path.read_text())
    for damaged in (
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        json.dumps(row | {"scores": {}}).encode() + b"\n",
        json.dumps(row | {"scores": [1]}).encode() + b"\n",
        json.dumps(row | {"params": {"sigma": 1}}).encode() + b"\n",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"one\.jsonl: not lines of faces .*--overwrite"):
            run(wish, [drawing("one", unchanged)], judge=judge)
    (wish.out / "plan.json").write_text("[]")
    with pytest.raises(DataError, match=r"plan\.json: cannot be read"):
        run(wish, [drawing("one", unchanged)], judge=judge)


def test_a_face_whose_picture_is_gone_is_restored_again(plan: MakePlan, judge, drawing) -> None:
    wish = plan(metrics=("psnr",))
    one = drawing("one", unchanged)
    first = run(wish, [one], judge=judge)
    picture = wish.out / "restored" / "one" / "face1.png"
    picture.unlink()
    again = run(wish, [one], judge=judge)
    assert picture.is_file()
    for before, after in zip(first.rows["one"], again.rows["one"], strict=True):
        assert before.scores == pytest.approx(after.scores, rel=1e-4)  # batches differ


def test_a_face_whose_picture_was_cut_short_is_restored_again(
    plan: MakePlan, judge, drawing
) -> None:
    wish = plan(metrics=("psnr",))
    one = drawing("one", unchanged)
    run(wish, [one], judge=judge)
    pictures = [wish.out / "restored" / "one" / f"face{number}.png" for number in range(3)]
    whole = [picture.read_bytes() for picture in pictures]
    pictures[0].write_bytes(whole[0][: len(whole[0]) // 2])
    pictures[1].write_bytes(b"")
    again = drawing("one", unchanged)
    run(wish, [again], judge=judge)
    assert again.seen == 2
    assert [picture.read_bytes() for picture in pictures] == whole
    # Damage in the middle is seen when the picture is wanted.
    half = len(whole[2]) // 2
    pictures[2].write_bytes(whole[2][:half] + bytes(99) + whole[2][half + 99 :])
    with pytest.raises(DataError, match=r"face2\.png: is damaged or gone; delete it, and run"):
        run(wish, [again], judge=judge)
    pictures[2].unlink()
    run(wish, [again], judge=judge)
    assert pictures[2].read_bytes() == whole[2]


def test_results_of_earlier_versions_stay(plan: MakePlan, judge, drawing) -> None:
    wish = plan(metrics=("psnr",), limit=1)
    run(wish, [drawing("one", unchanged)], judge=judge)
    cases = Cases(wish)
    for path in (wish.out / "faces").iterdir():
        path.write_text(
            path.read_text().replace(cases.marks["face0"], cases.earlier_marks["face0"])
        )
    again = drawing("one", unchanged)
    run(wish, [again], judge=judge)
    assert again.seen == 0


def test_a_report_among_the_faces_is_refused(
    plan: MakePlan, judge, drawing, tmp_path: Path, face
) -> None:
    data = photos(tmp_path / "photos", face, 2)
    one = drawing("one", unchanged)
    refused = r"would be taken for faces of .*photos.*; choose another folder for the report"
    with pytest.raises(ConfigError, match=refused):
        run(plan(data=data, out=tmp_path / "." / "photos"), [one], judge=judge)
    with pytest.raises(ConfigError, match=refused):
        run(plan(data=tmp_path / "gt", lq=data, out=data), [one], judge=judge)
    assert len(list(data.iterdir())) == 2
    wish = plan(data=data, out=data / "report", metrics=("psnr",))
    run(wish, [one], judge=judge)
    for faces in (wish.out / "restored" / "one", wish.out / "sheet.png"):
        # To delete what is there would not do: the faces are.
        inside = replace(wish, data=faces, overwrite=True, remedy="delete it")
        with pytest.raises(ConfigError, match="or replace them; choose another folder"):
            run(inside, [one], judge=judge)
        assert faces.exists()


def test_faces_are_compared_at_the_side_that_is_asked_for(
    plan: MakePlan, drawing, tmp_path, face
) -> None:
    (tmp_path / "large").mkdir()
    Image.fromarray(face(0, 1024)).save(tmp_path / "large" / "a.png")
    wish = plan(data=tmp_path / "large", metrics=("psnr", "psnr_full"), size=1024)
    (case,) = [job() for job in Cases(wish).jobs({"a"})]
    assert case.gt.shape == (1024, 1024, 3)
    report = run(wish, [drawing("one", unchanged)], judge=load_judge(None, metrics=("psnr",)))
    (before, _) = report.rows.values()
    enlarged = resize_batch(to_tensor(case.lq), 1024)
    expected = psnr(enlarged, to_tensor(case.gt)).item()
    assert before[0].scores["psnr"] == pytest.approx(expected, abs=0.01)
    assert before[0].scores["psnr"] == pytest.approx(before[0].scores["psnr_full"], abs=0.01)
    assert "compared at 1024 px. " in (wish.out / "report.md").read_text()
    # What a face is degraded to does not hang on it.
    (small,) = [job() for job in Cases(replace(wish, size=256)).jobs({"a"})]
    np.testing.assert_array_equal(small.lq, case.lq)
    with pytest.raises(ConfigError, match="was made with size 1024, now it is 256"):
        run(
            replace(wish, size=256),
            [drawing("one", unchanged)],
            judge=load_judge(None, metrics=("psnr",)),
        )


def test_a_side_that_cannot_be_compared_at_is_refused(plan: MakePlan, faces) -> None:
    for size in (128, 2048):
        with pytest.raises(ConfigError, match=rf"size: expected a side from 256 to 1024 .* {size}"):
            plan(size=size)
    with pytest.raises(DataError, match=r"face0\.png: expected .* of at least 512 px, got 256x256"):
        Cases(plan(size=512))


def test_systems_that_cannot_be_compared_are_refused(plan: MakePlan, judge, drawing) -> None:
    one = drawing("one", unchanged)
    with pytest.raises(ConfigError, match="no system to evaluate"):
        run(plan(), [], judge=judge)
    with pytest.raises(ConfigError, match="one: two systems of that name"):
        run(plan(), [one, one], judge=judge)
    for task, name in (("mfr", "input"), ("sr16", "bicubic")):
        with pytest.raises(ConfigError, match=rf"{name}: .*without a restorer; rename the model"):
            run(plan(task=task, metrics=("psnr",)), [drawing(name, unchanged)], judge=judge)
    one.task = "sr16"
    with pytest.raises(ConfigError, match="one: is for task sr16, the evaluation for mfr"):
        run(plan(), [one], judge=judge)


def test_metrics_are_chosen_and_their_weights_named(
    plan: MakePlan, drawing, metrics_dir: Path
) -> None:
    one = drawing("one", unchanged)
    report = run(plan(metrics=("ssim", "psnr"), limit=1), [one])
    assert list(report.rows["one"][0].scores) == ["psnr", "ssim"]
    with pytest.raises(ConfigError, match=r"metric 'psnrr': not known for task mfr; known: psnr,"):
        plan(metrics=("psnrr",))
    with pytest.raises(ConfigError, match="'faithfulness': not known for task mfr"):
        plan(metrics=("faithfulness",))
    with pytest.raises(CheckpointError, match=r"no folder to look in.*--metrics-dir"):
        run(plan(metrics=("lpips",), out=plan().out / "a"), [one])
    wish = plan(metrics=("lpips_vgg_caffe",), metrics_dir=metrics_dir, out=plan().out / "b")
    report = run(wish, [one])
    assert report.names["lpips"] == "lpips_vgg_caffe"
    assert list(report.rows["one"][0].scores) == ["lpips"]


def test_sets_are_compared_by_the_network_at_hand(
    plan: MakePlan, drawing, metrics_dir: Path, monkeypatch
) -> None:
    wish = plan(metrics=("fid", "kid"), metrics_dir=metrics_dir)
    one = drawing("truth known", oracle(wish))
    report = run(wish, [one])
    before, best = report.sets["input"], report.sets["truth known"]
    assert list(best) == ["fid_vgg16_caffe", "kid_vgg16_caffe"]
    assert best["fid_vgg16_caffe"] < 1e-3 * before["fid_vgg16_caffe"]
    # A second call reads the features that were kept.
    monkeypatch.setattr(
        "panini.metrics.distribution.FeatureNetwork.__call__", lambda *_: pytest.fail("drawn")
    )
    assert run(wish, [one]).sets == report.sets
    # Of so few faces no interval is known; KID's subsets tell theirs.
    kept = report.set_distances["input"]
    assert {name: one.interval.mean for name, one in kept.items()} == before
    assert math.isnan(kept["fid_vgg16_caffe"].interval.low)
    assert kept["fid_vgg16_caffe"].subsets is None
    assert kept["kid_vgg16_caffe"].subsets is not None
    told = json.loads((wish.out / "report.json").read_text())["set_distances"]["input"]
    assert told["kid_vgg16_caffe"]["subsets"] == kept["kid_vgg16_caffe"].subsets
    with pytest.raises(DataError, match="fid needs at least two faces, found one; name more"):
        run(plan(metrics=("fid",), limit=1, metrics_dir=metrics_dir), [one])


class Sampling(torch.nn.Module):
    """Reduces without averaging, as the official Inception does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.interpolate(images, (8, 8), mode="nearest").flatten(1)


def larger(draw: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same faces at twice the side, with detail that only this side can show."""
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])

    def draw_twice(lq: torch.Tensor) -> torch.Tensor:
        faces = F.interpolate(draw(lq), scale_factor=2, mode="nearest")
        half = faces.shape[-1] // 2
        return faces + 26 / 127.5 * signs.tile(half, half)

    return draw_twice


@pytest.mark.parametrize("task", ["mfr", "sr16"])
def test_sets_are_compared_at_the_truths_own_side(
    plan: MakePlan, drawing, monkeypatch, caplog, task
) -> None:
    network = FeatureNetwork("inception", Sampling())
    monkeypatch.setattr("panini.evaluation.sets.load_feature_network", lambda *_: network)
    wish = plan(metrics=("fid", "kid"), task=task)
    known = oracle(wish)

    def pale(lq: torch.Tensor) -> torch.Tensor:
        return 0.7 * known(lq)

    systems = [drawing("own", pale), drawing("twice", larger(pale))]
    with caplog.at_level(logging.INFO, "panini.evaluation"):
        sets = run(wish, systems).sets
    assert sets["own"]["fid_inception"] > 0.1
    assert sets["twice"] == pytest.approx(sets["own"], rel=1e-4)
    told = [record.message for record in caplog.records]
    assert told == [f"distances of sets: {name}" for name in ("the truth", *sets)]


def test_features_of_earlier_versions_are_computed_anew(
    plan: MakePlan, drawing, metrics_dir: Path, caplog
) -> None:
    wish = plan(metrics=("fid",), metrics_dir=metrics_dir)
    systems = [drawing("own", unchanged)]
    report = run(wish, systems)
    for path in wish.out.glob("features/*.npz"):
        with np.load(path) as kept:
            keys, features = kept["keys"], kept["features"]
        np.savez(path, keys=keys, features=features * (2 if "own" in path.name else 1))
    assert run(wish, systems).sets == report.sets
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other", "short"])
def test_damaged_features_are_computed_anew(
    plan: MakePlan, drawing, metrics_dir: Path, damage: str
) -> None:
    wish = plan(metrics=("fid",), metrics_dir=metrics_dir)
    one = drawing("one", unchanged)
    report = run(wish, [one])
    (path,) = wish.out.glob("features/truth*.npz")
    whole = path.read_bytes()
    if damage in ("other", "short"):
        keys = [f"face{number}" for number in range(3)]
        parts = {"other": {"keys": keys}, "short": {"keys": keys, "features": np.zeros((2, 2))}}
        np.savez(path, **parts[damage])
    else:
        content = {"cut": whole[: len(whole) // 2], "text": b"nothing", "empty": b""}
        path.write_bytes(content[damage])
    assert run(wish, [one]).sets == report.sets
    assert path.read_bytes() == whole


def test_intervals_of_sets_of_more_faces(
    plan: MakePlan, drawing, metrics_dir: Path, tmp_path, face
) -> None:
    (tmp_path / "more").mkdir()
    for number in range(6):
        Image.fromarray(face(number)).save(tmp_path / "more" / f"{number}.png")
    wish = plan(data=tmp_path / "more", metrics=("fid", "kid"), metrics_dir=metrics_dir)
    report = run(wish, [drawing("truth known", oracle(wish))])
    for found in report.set_distances["input"].values():
        assert found.interval.low < found.interval.mean < found.interval.high
        assert found.interval.count == 6
    best = report.set_distances["truth known"]["fid_vgg16_caffe"].interval
    assert 0 <= best.low <= best.mean < report.sets["input"]["fid_vgg16_caffe"]
    assert "1.96 deviations over random halves" in (wish.out / "report.md").read_text()


def test_hostile_names_stay_in_the_folder(plan: MakePlan, judge, drawing, tmp_path, face) -> None:
    Image.fromarray(face(0)).save(tmp_path / "x.png")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "x.png", "../../over.png")
    wish = plan(data=tmp_path / "x.tar")
    report = run(wish, [drawing("../one", unchanged)], judge=judge)
    assert report.rows["../one"][0].key == "../../over"
    pictures = [path for path in wish.out.rglob("*.png") if path.name != "sheet.png"]
    assert sorted(path.parent.parent for path in pictures) == [wish.out / "restored"] * 2
    assert [path.name for path in pictures] == ["..%2F..%2Fover.png"] * 2


def test_one_bad_face_stops_everything_before_it_begins(
    plan: MakePlan, judge, drawing, tmp_path, face
) -> None:
    (tmp_path / "data").mkdir()
    for name, side in (("a", 256), ("b", 200)):
        Image.fromarray(face(0, side)).save(tmp_path / "data" / f"{name}.png")
    wish = plan(data=tmp_path / "data", batch=1)
    one = drawing("one", unchanged)
    with pytest.raises(DataError, match=r"b\.png: expected an aligned square face.*200x200"):
        run(wish, [one], judge=judge)
    assert one.seen == 0
    assert not wish.out.exists()


def test_theta_is_not_tested_where_nothing_is_weighed(plan: MakePlan, weighing) -> None:
    class Unmasked(weighing):
        def theta(self, lq: torch.Tensor) -> torch.Tensor:
            return torch.full((len(lq),), math.nan)

    wish = plan(metrics=("psnr", "theta"), limit=2)
    systems = [Unmasked("concat", unchanged), weighing("masks", unchanged)]
    report = run(wish, systems, judge=load_judge(None, metrics=("psnr",)))
    assert list(report.theta) == ["masks"]
    assert ["θ" in one.demand for one in verdicts(report, "concat")] == [False]
    assert ["θ" in one.demand for one in verdicts(report, "masks")] == [False, True]
    text = (wish.out / "report.md").read_text()
    assert "| masks | 0" in text
    assert "of faces" in text
    assert not re.search(r"\| concat \|.*of faces", text)


def test_other_weights_of_a_metric_are_refused(
    plan: MakePlan, drawing, metrics_dir: Path, tmp_path
) -> None:
    one = drawing("one", unchanged)
    wish = plan(metrics=("psnr", "identity"), metrics_dir=metrics_dir, limit=1)
    run(wish, [one])
    other = Path(shutil.copytree(metrics_dir, tmp_path / "other"))
    run(replace(wish, metrics_dir=other), [one])
    path = other / "face_identity.safetensors"
    save_file({name: 1.1 * value for name, value in load_file(path).items()}, path)
    with pytest.raises(
        ConfigError, match=r"made with metrics' weights identity \w{16}, now it is identity \w{16};"
    ):
        run(replace(wish, metrics_dir=other), [one])
    assert one.seen == 1


def test_features_of_another_network_of_the_name_are_computed_anew(
    plan: MakePlan, drawing, metrics_dir: Path, tmp_path
) -> None:
    wish = plan(metrics=("fid",), metrics_dir=metrics_dir)
    one = drawing("one", unchanged)
    first = run(wish, [one]).sets
    other = Path(shutil.copytree(metrics_dir, tmp_path / "other"))
    path = other / "vgg16_caffe.safetensors"
    tensors = {name: 1.1 * value for name, value in load_file(path).items()}
    save_file(tensors, path, {"preprocess": "caffe"})
    second = run(replace(wish, metrics_dir=other), [one]).sets
    alone = run(replace(wish, metrics_dir=other, out=tmp_path / "alone"), [one]).sets
    assert second == alone != first


def test_long_names_have_files_of_their_own(plan: MakePlan, judge, drawing, tmp_path, face) -> None:
    Image.fromarray(face(0)).save(tmp_path / "x.png")
    keys = ["顔" * 80 + end for end in "あいう"] + ["k" * 236]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for key in keys:
            archive.add(tmp_path / "x.png", f"{key}.png")
    wish = plan(data=tmp_path / "x.tar", metrics=("psnr",))
    name = "模" * 90
    run(wish, [drawing(name, unchanged)], judge=judge)
    again = drawing(name, unchanged)
    report = run(wish, [again], judge=judge)
    assert again.seen == 0
    assert [row.key for row in report.rows[name]] == keys
    for folder in (wish.out / "restored").iterdir():
        names = [path.name for path in folder.iterdir()]
        assert len(names) == 4
        # Names that fit stay as they are: by them earlier results are found.
        assert "k" * 236 + ".png" in names


def test_results_that_cannot_be_written_are_named(plan: MakePlan, judge, drawing) -> None:
    wish = plan(metrics=("psnr",), limit=1)

    def pull(lq: torch.Tensor) -> torch.Tensor:
        shutil.rmtree(wish.out / "faces")
        return lq

    with pytest.raises(DataError, match=r"\.jsonl: cannot be written \(No such file.*goes on"):
        run(wish, [drawing("one", pull)], judge=judge)


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, line: bytes) -> None:
        self.path.write_bytes(line[:9])
        raise OSError(28, "No space left on device")


def _fails_on_pictures(path: Path, content: bytes | memoryview) -> None:
    if path.suffix == ".png":
        raise ImageError(f"{path}: cannot be written (No space left on device)")
    write_whole(path, content)


def test_a_full_disk_leaves_no_half_line(plan: MakePlan, judge, drawing, monkeypatch) -> None:
    wish = plan(metrics=("psnr",))
    one = drawing("one", unchanged)
    run(wish, [one], judge=judge)
    opened = Path.open
    two = drawing("two", unchanged)

    def open_full(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return Full(path) if mode == "ab" else opened(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(DataError, match=r"two\.jsonl: cannot be written \(No space left on"):
            run(wish, [one, two], judge=judge)
    assert (wish.out / "faces" / "two.jsonl").read_bytes() == b""
    with monkeypatch.context() as patch:
        patch.setattr("panini.evaluation.results.write_whole", _fails_on_pictures)
        with pytest.raises(DataError, match=r"png: cannot be written .*; make room there, and run"):
            run(wish, [one, two], judge=judge)
    run(wish, [one, two], judge=judge)
    assert len(lines(wish.out, "two")) == 3


def test_an_old_report_does_not_outlive_its_results(plan: MakePlan, judge, drawing) -> None:
    run(plan(metrics=("psnr",), limit=1), [drawing("one", unchanged)], judge=judge)
    wish = plan(metrics=("psnr",), limit=1, overwrite=True)
    assert all((wish.out / name).is_file() for name in FILES)

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no power")

    (wish.out / "notes.txt").write_text("mine")
    with pytest.raises(RuntimeError, match="no power"):
        run(wish, [drawing("one", fails)], judge=judge)
    files = {path.name for path in wish.out.iterdir() if path.is_file()}
    assert files == {"plan.json", "notes.txt"}
