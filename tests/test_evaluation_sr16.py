"""16× super-resolution against bicubic interpolation and the truth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from panini.errors import DataError
from panini.evaluation_report import Verdict
from panini.evaluation_sr16 import (
    METRICS,
    SrEvaluation,
    SrFace,
    SrScores,
    contact_sheet,
    evaluate,
    make_cases,
    markdown,
    summarise,
    to_dict,
    verdicts,
    write_report,
)
from panini.features.identity import IdentityNet
from panini.features.vgg16 import VGG16
from panini.images import to_tensor, to_uint8
from panini.metrics.judge import Judge
from panini.metrics.lpips import LPIPS

WIDTHS = (2, 2, 2, 2, 2)


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge(LPIPS(VGG16(WIDTHS), [torch.rand(2) for _ in WIDTHS]), IdentityNet(width=2))


def face(seed, side=256):
    """Smooth colours with some texture."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(30, 226, (12, 12, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return (image.astype(int) + generator.integers(-20, 21, image.shape)).clip(0, 255).astype("u1")


@pytest.fixture(scope="module")
def cases():
    return make_cases([("small", face(0)), ("large", face(1, 320))])


def model(cases, draw):
    """A model that looks its inputs up."""

    def restore(lq):
        (found,) = to_uint8(lq)
        case = next(case for case in cases if np.array_equal(case.lq, found))
        return draw(case), torch.tensor([0.4])

    return restore


def bicubic(case):
    side = case.gt.shape[0]
    return to_tensor(np.asarray(Image.fromarray(case.lq).resize((side, side), 3)))


@pytest.fixture(scope="module")
def perfect(cases, judge):
    return evaluate(model(cases, lambda case: to_tensor(case.gt)), cases, judge)


@pytest.fixture(scope="module")
def pale(cases, judge):
    """The evaluation of a model that interpolates and brightens, and the progress it made."""
    seen = []
    restore = model(cases, lambda case: bicubic(case) + 0.25)
    return evaluate(restore, cases, judge, progress=lambda *n: seen.append(n)), seen


def test_inputs_are_pillows_reduction_to_64_px(cases):
    for case in cases:
        reduced = Image.fromarray(case.gt).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(case.lq, np.asarray(reduced))
    assert [case.gt.shape[0] for case in cases] == [256, 320]
    (huge,) = make_cases([("huge", np.zeros((1040, 1040, 3), np.uint8))])
    assert huge.gt.shape == (1024, 1024, 3)
    assert [c.key for c in make_cases([("a", face(0)), ("b", face(1))], limit=1)] == ["a"]


def test_faces_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match="no faces"):
        make_cases([])
    with pytest.raises(DataError, match=r"wide: expected an aligned square face.*300x256"):
        make_cases([("wide", np.zeros((256, 300, 3), np.uint8))])


def test_the_truth_meets_everything(cases, perfect):
    for found in perfect.faces:
        best = found.ways["restored"]
        assert (best.psnr, best.psnr_full, best.faithfulness) == (100, 100, 100)
        assert best.identity == best.lpips == 0
        assert found.theta == pytest.approx(0.4)
        # The truth agrees with its input but for what Pillow rounds.
        assert found.ways["consistent"].psnr_full > 50
    assert all(verdict.passed for verdict in verdicts(perfect))
    lq, _, restored, truth = perfect.pictures[0]
    np.testing.assert_array_equal(lq, cases[0].lq)
    np.testing.assert_array_equal(restored, truth)


def test_bicubic_is_what_pillow_makes(cases, judge):
    same = evaluate(model(cases, bicubic), cases, judge)
    for found in same.faces:
        assert found.ways["restored"] == found.ways["bicubic"]
    assert {row.ratio for row in summarise(same) if row.group == "restored"} == {1.0}


def test_projection_brings_a_pale_face_back(pale):
    found, seen = pale
    assert seen == [(1, 2), (2, 2)]
    for one in found.faces:
        assert one.ways["restored"].faithfulness < 20
        assert one.ways["consistent"].faithfulness > 40
        assert one.ways["consistent"].psnr > one.ways["restored"].psnr
    rows = {(row.group, row.metric): row for row in summarise(found)}
    assert set(rows) == {(way, m) for way in ("restored", "consistent") for m in METRICS}
    row = rows["restored", "psnr_full"]
    low, high = row.difference_interval
    assert low <= row.difference <= high < 0


def evaluation(**changes):
    plain = SrScores(
        psnr=22, ssim=0.6, lpips=0.6, identity=0.8, sharpness=0.1, psnr_full=25, faithfulness=40
    )
    ways = {"bicubic": plain, "consistent": plain, "restored": replace(plain, **changes)}
    return SrEvaluation(
        lpips_name="lpips_vgg_caffe",
        faces=[SrFace(key="a", theta=float("nan"), ways=ways)],
        pictures=[],
    )


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"lpips": 0.29, "identity": 0.39}, []),
        ({"lpips": 0.31, "identity": 0.39}, [1]),
        ({"lpips": 0.29, "identity": 0.41}, [2]),
        ({"lpips": 0.29, "identity": 0.39, "psnr_full": 24.9}, [0]),
        ({"lpips": float("nan"), "psnr_full": float("nan")}, [0, 1, 2]),
    ],
)
def test_the_target_is_decided_demand_by_demand(changes, missed):
    found = verdicts(evaluation(**changes))
    assert all(isinstance(verdict, Verdict) for verdict in found)
    assert [index for index, verdict in enumerate(found) if not verdict.passed] == missed


def test_tables_name_what_is_measured(pale):
    table = markdown(pale[0])
    assert "| restored (2) | lpips_vgg_caffe |" in table
    assert "| consistent (2) | faithfulness, dB |" in table
    assert "| restored (2) | PSNR at full size, dB |" in table
    assert "**missed**" in table
    assert to_dict(evaluation(), {})["faces"][0]["theta"] is None


def test_reports_are_written(tmp_path, pale):
    files = write_report(pale[0], tmp_path / "out", {"model": "pale", "data": "faces"})
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["faces"][1]["key"] == "large"
    assert report["faces"][0]["ways"]["bicubic"]["faithfulness"] > 20
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith("# pale on faces\n\n2 faces, 16×")


def test_the_sheet_shows_the_inputs_own_pixels(cases, perfect):
    sheet = contact_sheet(perfect)
    assert sheet.size == (4 * 256 + 3 * 4, 22 + 2 * (256 + 22))
    shown = np.asarray(sheet)[44 : 44 + 256, :256]
    np.testing.assert_array_equal(shown[::4, ::4], cases[0].lq)
    assert contact_sheet(perfect, rows=1, side=32).height == 22 + 32 + 22
