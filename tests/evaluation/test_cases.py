from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from panini.errors import ConfigError, DataError, ImageError
from panini.evaluation import Plan, read_faces
from panini.evaluation.cases import THETA_RATES, Case, Cases

MakePlan = Callable[..., Plan]


def made(plan: Plan, keys: set[str] | None = None, **options: bool) -> list[Case]:
    cases = Cases(plan)
    return [make() for make in cases.jobs(set(cases.keys) if keys is None else keys, **options)]


def save(folder: Path, name: str, image: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / name)
    return folder


def shard(path: Path, **members: np.ndarray) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, image in members.items():
            content = BytesIO()
            Image.fromarray(image).save(content, "PNG")
            info = tarfile.TarInfo(name.replace("__", "/") + ".png")
            info.size = content.tell()
            content.seek(0)
            archive.addfile(info, content)
    return path


def test_a_face_is_degraded_alike_in_any_company(plan: MakePlan) -> None:
    together = made(plan())
    (alone,) = made(plan(), {"face2"})
    np.testing.assert_array_equal(alone.lq, together[2].lq)
    assert alone.lq.shape == alone.gt.shape == (512, 512, 3)
    (other,) = made(plan(seed=1), {"face2"})
    assert other.params != alone.params


def test_degradations_are_those_of_every_version(plan: MakePlan) -> None:
    (case,) = made(plan(), {"face2"})
    assert case.params is not None
    assert case.params.sigma == pytest.approx(3.5916130088278155)
    assert case.params.low_side(512) == 92
    assert case.params.noise == pytest.approx(5.486168628626355)
    assert case.params.jpeg == 69
    # Blur, noise and JPEG of other versions of the libraries differ by far less.
    assert (case.lq.mean(), case.lq.std()) == pytest.approx((129.83, 46.86), abs=0.05)
    assert Cases(plan()).params("face2") == case.params


def test_the_papers_degradations_are_drawn_where_they_are_asked_for(plan: MakePlan) -> None:
    cases = Cases(plan(degradations="paper"))
    drawn = [cases.params(str(number)) for number in range(200)]
    assert all(params is not None and 5 <= params.jpeg <= 50 for params in drawn)
    rates = [params.rate for params in drawn if params is not None]
    assert 10 <= min(rates) < 20
    assert 190 < max(rates) <= 200
    paper, floor = made(plan(degradations="paper"))[1], made(plan())[1]
    assert paper.params == cases.params("face1") != floor.params
    worse, better = (np.abs(one.lq.astype(float) - one.gt).mean() for one in (paper, floor))
    assert worse > better
    np.testing.assert_array_equal(paper.gt, floor.gt)


def test_degradations_are_chosen_only_where_faces_are_degraded(plan: MakePlan, faces) -> None:
    with pytest.raises(ConfigError, match="degradations: expected floor or paper, got 'mild'"):
        plan(degradations="mild")
    with pytest.raises(ConfigError, match=r"paper is for faces of task mfr.*not for task sr16"):
        plan(degradations="paper", task="sr16")
    with pytest.raises(ConfigError, match=r"not for the ready inputs .*leave it out"):
        plan(degradations="paper", lq=faces)


def test_only_the_rate_differs_over_the_rates(plan: MakePlan) -> None:
    (case,) = made(plan(metrics=("theta",)), {"face0"})
    errors = [np.abs(face.astype(float) - case.gt).mean() for face in case.rates]
    assert len(errors) == len(THETA_RATES)
    assert errors == sorted(errors)
    assert made(plan(metrics=("theta",)), {"face0"}, rates=False)[0].rates == ()
    assert made(plan(metrics=("psnr",)), {"face0"})[0].rates == ()


def test_inputs_of_sr16_are_pillows_reduction(plan: MakePlan, tmp_path: Path, face) -> None:
    data = save(tmp_path / "sr", "a.png", face(1, 320))
    save(data, "huge.png", np.zeros((1040, 1040, 3), np.uint8))
    case, huge = made(plan(data=data, task="sr16"))
    reduced = Image.fromarray(case.gt).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(case.lq, np.asarray(reduced))
    assert case.gt.shape == (320, 320, 3)
    assert huge.gt.shape == (1024, 1024, 3)
    assert (case.params, case.rates) == (None, ())


def test_faces_come_from_folders_shards_and_folders_of_shards(
    faces: Path, tmp_path: Path, face
) -> None:
    found = dict(read_faces(faces))
    assert list(found) == ["face0", "face1", "face2"]
    np.testing.assert_array_equal(found["face1"], face(1))
    (tmp_path / "shards").mkdir()
    one = shard(tmp_path / "shards" / "0.tar", a=face(0), in__b=face(1))
    shard(tmp_path / "shards" / "1.tar", c=face(2))
    assert [key for key, _ in read_faces(one)] == ["a", "in/b"]
    assert [key for key, _ in read_faces(tmp_path / "shards")] == ["a", "in/b", "c"]
    assert [key for key, _ in read_faces(faces / "face2.png")] == ["face2"]


def test_bad_data_is_named(plan: MakePlan, tmp_path: Path, face) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        Cases(plan(data=tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere\.tar: no such file; expected a tar shard"):
        Cases(plan(data=tmp_path / "nowhere.tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the folder holds no image and no tar shard"):
        Cases(plan(data=tmp_path / "empty"))
    wide = save(tmp_path / "wide", "w.png", np.zeros((256, 300, 3), np.uint8))
    with pytest.raises(DataError, match=r"w\.png: expected an aligned square face.*300x256; crop"):
        Cases(plan(data=wide))
    small = save(tmp_path / "small", "s.png", np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(DataError, match=r"s\.png: .* at least 256 px, got 128x128"):
        Cases(plan(data=small, task="sr16"))
    twice = save(tmp_path / "twice", "a.png", face(0))
    save(twice, "a.jpg", face(0))
    with pytest.raises(DataError, match=r"a\.png: .*a\.jpg has the same name; rename one"):
        Cases(plan(data=twice))


def test_a_name_that_is_no_text_is_refused(plan: MakePlan, tmp_path: Path, face) -> None:
    data = save(tmp_path / "data", "a.png", face(0))
    try:
        (data / "a.png").rename(data / os.fsdecode(b"jos\xe9.png"))
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"jos\\udce9\.png': its name is no text in UTF-8; rename"):
        Cases(plan(data=data))


def test_a_folder_and_its_shard_are_the_same_faces(tmp_path: Path, face) -> None:
    folder = save(tmp_path / "folder", "plain.png", face(0))
    deep = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(deep, (256, 1))).save(folder / "deep.png")
    hidden = np.dstack([face(1), np.full((256, 256), 40, np.uint8)])
    Image.fromarray(hidden, "RGBA").save(folder / "hidden.png")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 3
    Image.fromarray(face(2)).save(folder / "turned.jpg", exif=turned)
    for mode, name in (("w", "a.tar"), ("w:gz", "b.tar")):
        with tarfile.open(tmp_path / name, mode) as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)
        known = dict(read_faces(folder))
        for key, image in read_faces(tmp_path / name):
            np.testing.assert_array_equal(image, known.pop(key))
        assert not known


def test_a_face_s_mark_follows_its_files(plan: MakePlan, tmp_path: Path, face) -> None:
    data = save(tmp_path / "data", "a.png", face(0))
    before = Cases(plan(data=data)).marks
    assert before == Cases(plan(data=data, seed=3)).marks
    save(data, "b.png", face(0))
    more = Cases(plan(data=data)).marks
    assert (list(more), more["a"]) == (["a", "b"], before["a"])
    save(data, "a.png", face(1, 300))
    changed = Cases(plan(data=data)).marks
    assert (changed["a"] == before["a"], changed["b"] == more["b"]) == (False, True)
    # Another face of as many bytes.
    same = [save(tmp_path / str(seed), "a.bmp", face(seed)) for seed in (0, 1)]
    one, other = (Cases(plan(data=folder)).marks["a"] for folder in same)
    assert one != other
    assert Cases(plan(data=data, limit=1)).keys == ["a"]


def test_a_mark_sees_all_of_a_file(plan: MakePlan, tmp_path: Path) -> None:
    painted = (np.arange(512 * 512 * 3) % 251).astype(np.uint8).reshape(512, 512, 3)
    data = save(tmp_path / "data", "a.bmp", painted)
    before = Cases(plan(data=data))
    painted[150:200, 100:140] = (255, 0, 0)
    save(data, "a.bmp", painted)
    after = Cases(plan(data=data))
    assert after.marks != before.marks
    # By this one, which is of every version, results of earlier ones are found.
    assert after.earlier_marks == before.earlier_marks == {"a": "69dff07d4717"}


def test_a_pair_s_mark_follows_both(plan: MakePlan, tmp_path: Path, face) -> None:
    data, lq = (save(tmp_path / name, "a.png", face(0, 512)) for name in ("gt", "lq"))
    before = Cases(plan(data=data, lq=lq)).marks
    save(lq, "a.png", face(1, 512))
    assert Cases(plan(data=data, lq=lq)).marks != before


def test_ready_pairs_meet_by_file_stem(plan: MakePlan, tmp_path: Path, faces, face) -> None:
    lq = tmp_path / "lq"
    for index, side in enumerate((512, 256, 512)):
        save(lq, f"face{index}.jpg", np.full((side, side, 3), 40 * index, np.uint8))
    first, second, third = made(plan(lq=lq, metrics=("psnr",)))
    assert [case.lq.shape for case in (first, second, third)] == [(512, 512, 3)] * 3
    assert [round(case.lq.mean()) for case in (first, second, third)] == [0, 40, 80]
    np.testing.assert_array_equal(third.gt, made(plan())[2].gt)
    assert third.params is None
    assert [case.key for case in made(plan(lq=lq, limit=2))] == ["face0", "face1"]


def test_pairs_of_a_shard_with_folders_meet_by_their_stems(
    plan: MakePlan, tmp_path: Path, face
) -> None:
    data = shard(tmp_path / "sub.tar", faces__a=face(0), faces__b=face(1))
    lq = save(tmp_path / "lq", "a.jpg", np.zeros((512, 512, 3), np.uint8))
    save(lq, "b.jpg", np.full((512, 512, 3), 40, np.uint8))
    first, second = made(plan(data=data, lq=lq))
    assert [first.key, second.key] == ["faces/a", "faces/b"]
    assert [round(case.lq.mean()) for case in (first, second)] == [0, 40]
    # Two of one stem are told by their folders.
    data = shard(tmp_path / "two.tar", one__a=face(0), two__a=face(1))
    with pytest.raises(
        DataError, match=r"a\.jpg: has no truth .*; one/a and two/a have one stem, so"
    ):
        Cases(plan(data=data, lq=lq))
    assert Cases(plan(data=data, lq=data)).keys == ["one/a", "two/a"]


def test_wrong_pairs_are_named(plan: MakePlan, tmp_path: Path, face) -> None:
    data = save(tmp_path / "gt", "a.png", face(0))
    save(data, "b.png", face(1))
    lq = save(tmp_path / "lq", "a.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"gt/b\.png: has no input of the same name in .*lq; pairs"):
        Cases(plan(data=data, lq=lq))
    save(lq, "b.png", np.zeros((64, 64, 3), np.uint8))
    assert made(plan(data=data, lq=lq, task="sr16"))[1].lq.shape == (64, 64, 3)
    with pytest.raises(DataError, match=r"lq/a\.png: is 64x64 px, expected 512x512 or 256x256 px"):
        Cases(plan(data=data, lq=lq))
    save(lq, "a.png", np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"is 32x64 px, expected 64x64 px for task sr16.*resize"):
        Cases(plan(data=data, lq=lq, task="sr16"))
    save(lq, "c.png", np.zeros((64, 64, 3), np.uint8))
    save(lq, "d.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"lq/c\.png: has no truth of the .*gt \(and 1 more\)"):
        Cases(plan(data=data, lq=lq))
    with pytest.raises(DataError, match=r"lq/c\.png: has no truth"):
        Cases(plan(data=data, lq=lq, limit=1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the folder holds no image"):
        Cases(plan(data=data, lq=tmp_path / "empty"))


def test_every_head_is_read_at_once_and_no_face_decoded(
    plan: MakePlan, faces: Path, tmp_path: Path, face, monkeypatch
) -> None:
    data = shard(tmp_path / "good.tar", a=face(0), b=face(1))
    bad = shard(tmp_path / "bad.tar", a=face(0), b=face(1)[:, :200])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert Cases(plan(data=data)).keys == ["a", "b"]
    assert Cases(plan(lq=faces)).keys == ["face0", "face1", "face2"]
    with pytest.raises(DataError, match=r"bad\.tar:b\.png: expected .* got 200x256; crop"):
        Cases(plan(data=bad))
    assert Cases(plan(data=bad, limit=1)).keys == ["a"]


def test_what_is_no_image_is_named_at_once(plan: MakePlan, tmp_path: Path, face) -> None:
    data = save(tmp_path / "data", "a.png", face(0))
    (data / "b.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"b\.png: not an image; replace it, or leave it out"):
        Cases(plan(data=data))
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        archive.add(data / "a.png", "a.png")
        archive.add(data / "b.png", "b.png")
    with pytest.raises(DataError, match=r"c\.tar:b\.png: not a readable image .*; replace it, or"):
        Cases(plan(data=tmp_path / "c.tar"))


def test_a_compressed_archive_of_another_name_is_no_image(
    plan: MakePlan, tmp_path: Path, faces: Path
) -> None:
    with tarfile.open(tmp_path / "faces.tar.gz", "w:gz") as archive:
        archive.add(faces, "faces")
    with pytest.raises(DataError, match=r"faces\.tar\.gz: is compressed.*; unpack it to a \.tar"):
        Cases(plan(data=tmp_path / "faces.tar.gz"))


def test_a_folder_of_shards_and_images_is_refused(plan: MakePlan, tmp_path: Path, face) -> None:
    data = save(tmp_path / "both", "a.png", face(0))
    shard(data / "0.tar", b=face(1))
    with pytest.raises(DataError, match=r"both: holds tar shards \(0\.tar\) and images \(a\.png\)"):
        Cases(plan(data=data))
