"""Numbers of a report: groups, intervals, verdicts, tables."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from panini.degradations import DegradationParams
from panini.evaluation import FaceRow, Plan, Report, ThetaResult, verdicts
from panini.evaluation.cases import THETA_RATES
from panini.evaluation.report import SetDistance
from panini.evaluation.tables import markdown, summarise, summary_csv, to_csv, to_dict
from panini.metrics.bootstrap import Interval, mean_interval

MFR = ("psnr", "ssim", "lpips", "identity", "grid", "theta")
SR16 = ("psnr", "lpips", "identity", "psnr_full", "faithfulness")


def row(key="a", low_side=60, theta=0.5, task="mfr", **scores) -> FaceRow:
    names = {
        "mfr": {"psnr": 20.0, "ssim": 0.5, "lpips": 0.4, "identity": 0.4, "grid": 0.1},
        "sr16": dict(zip(SR16, (20.0, 0.6, 0.8, 25.0, 40.0), strict=True)),
    }
    params = DegradationParams(rate=512 / low_side).to_dict() if task == "mfr" else {}
    rates = (0.1, 0.2, 0.3, 0.4) if task == "mfr" else ()
    return FaceRow(
        key=key,
        mark="",
        params=params,
        theta=theta,
        scores=names[task] | scores,
        rates=rates,
        gt_sharpness=0.1,
    )


def report(task="mfr", thetas=None, sets=None, **systems) -> Report:
    """Systems by name, each a list of rows; the input is put before them."""
    count = max(map(len, systems.values()))
    keys = [one.key for one in next(iter(systems.values()))]
    lows = [one.low_side or 60 for one in next(iter(systems.values()))]
    first = {"mfr": "input", "sr16": "bicubic"}[task]
    before = [row(keys[i], lows[i], math.nan, task) for i in range(count)]
    theta = {
        name: ThetaResult(rates=THETA_RATES, thetas=thetas or {r.key: list(r.rates) for r in rows})
        for name, rows in systems.items()
        if task == "mfr"
    }
    return Report(
        plan=Plan(
            data=Path("faces.tar"), task=task, out=Path("o"), metrics=MFR if task == "mfr" else SR16
        ),
        systems=[first, *systems],
        rows={first: before, **systems},
        theta=theta,
        set_distances=sets or {},
        names={"lpips": "lpips_vgg_caffe"},
    )


@pytest.mark.parametrize(
    ("scores", "thetas", "missed"),
    [
        ({"lpips": 0.2, "identity": 0.2}, None, []),
        ({"lpips": 0.31, "identity": 0.31}, None, [0]),
        ({"lpips": 0.45, "identity": 0.45}, None, [0, 1]),
        ({"lpips": 0.2, "identity": 0.2, "psnr": 19.4}, None, [2]),
        ({"lpips": 0.2, "identity": 0.2, "grid": 1.2}, None, [4]),
        ({"lpips": 0.2, "identity": 0.2}, {"a": [0.4, 0.3, 0.2, 0.1]}, [3]),
        ({"lpips": math.nan, "identity": 0.2, "grid": math.nan}, None, [0, 4]),
    ],
)
def test_the_floor_is_decided_demand_by_demand(scores, thetas, missed) -> None:
    found = verdicts(report(thetas=thetas, ours=[row(**scores)]), "ours")
    assert [index for index, verdict in enumerate(found) if not verdict.passed] == missed
    assert len(found) == 5
    assert found[0].demand == "lpips_vgg_caffe at least 25 % below the input's"


@pytest.mark.parametrize(
    ("scores", "missed"),
    [
        ({"lpips": 0.29, "identity": 0.39}, []),
        ({"lpips": 0.31, "identity": 0.39}, [1]),
        ({"lpips": 0.29, "identity": 0.41}, [2]),
        ({"lpips": 0.29, "identity": 0.39, "psnr_full": 24.9}, [0]),
        ({"lpips": math.nan, "identity": 0.8, "psnr_full": math.nan}, [0, 1, 2]),
    ],
)
def test_the_target_of_sr16_is_decided_demand_by_demand(scores, missed) -> None:
    found = verdicts(report("sr16", ours=[row(task="sr16", **scores)]), "ours")
    assert [index for index, verdict in enumerate(found) if not verdict.passed] == missed


def test_a_face_without_a_number_misses_the_floor_but_not_the_mean() -> None:
    faces = [row("a", lpips=0.2), row("b", lpips=math.nan)]
    found = report(ours=faces)
    assert found.mean("ours", "lpips").mean == pytest.approx(0.2)
    assert found.mean("ours", "lpips").count == 1
    assert not verdicts(found, "ours")[0].passed


def test_what_was_not_measured_is_not_decided() -> None:
    whole = report(ours=[row()])
    plan = Plan(data=Path("d"), task="mfr", out=Path("o"), metrics=("psnr",))
    part = Report(plan=plan, systems=whole.systems, rows=whole.rows)
    assert [verdict.demand[:4] for verdict in verdicts(part, "ours")] == ["PSNR"]


def test_mild_and_severe_faces_and_their_doubt() -> None:
    faces = [row(str(i), low_side=20 + 10 * i, lpips=0.1 + 0.02 * i) for i in range(8)]
    found = report(ours=faces)
    assert found.groups == ["all", "mild", "severe"]
    counts = [found.mean("ours", "lpips", group).count for group in found.groups]
    assert counts == [8, 5, 3]
    ratio = found.ratio("ours", "lpips")
    assert ratio.mean == pytest.approx(0.17 / 0.4)
    assert 0.1 / 0.4 < ratio.low < ratio.mean < ratio.high < 0.24 / 0.4
    change = found.change("ours", "lpips")
    assert change.mean == pytest.approx(-0.23)
    assert change.low < change.mean < change.high < 0
    assert report("sr16", ours=[row(task="sr16")]).groups == ["all"]


def test_theta_over_the_rates() -> None:
    falling = {"a": [0.1, 0.2, 0.3, 0.4], "b": [0.1, 0.2, 0.2, 0.4]}
    test = ThetaResult(rates=THETA_RATES, thetas=falling)
    assert test.rising == 0.5
    assert test.rising_interval == mean_interval([1.0, 0.0])
    assert (test.rising_interval.low, test.rising_interval.high) == (0, 1)
    assert test.means == pytest.approx([0.1, 0.2, 0.25, 0.4])
    assert test.deviations == pytest.approx([0, 0, 0.05, 0])
    assert test.intervals[2] == mean_interval([0.3, 0.2])
    assert test.intervals[2].low < 0.25 < test.intervals[2].high
    nothing = ThetaResult(rates=THETA_RATES, thetas={"a": [math.nan] * 4})
    assert [interval.count for interval in nothing.intervals] == [0] * 4


def test_theta_is_a_total_where_a_system_tells_it() -> None:
    faces = [row("a", 80, theta=0.3), row("b", 20, theta=0.5)]
    found = report(ours=faces, peer=[row("a", 80, theta=math.nan), row("b", 20, theta=math.nan)])
    assert found.metrics == MFR[:-1]
    assert found.totals == MFR
    assert found.mean("ours", "theta") == mean_interval([0.3, 0.5])
    assert found.mean("input", "theta").count == 0
    text = markdown(found, summarise(found))
    assert "| all (2) | θ | – | 0.4000 [0.3000, 0.5000] | – |" in text
    assert "| severe (1) | θ | – | 0.5000 [0.5000, 0.5000] | – |" in text
    assert text.count("| θ |") == 3
    silent = report("sr16", ours=[row(task="sr16", theta=math.nan)])
    assert silent.totals == silent.metrics
    assert "θ" not in markdown(silent, summarise(silent))


def test_other_degradations_have_no_floor() -> None:
    whole = report(ours=[row()])
    plan = replace(whole.plan, degradations="paper")
    found = replace(whole, plan=plan)
    assert verdicts(whole, "ours")
    assert verdicts(found, "ours") == []
    text = markdown(found, summarise(found))
    assert "Degraded as the paper prints it: rate 10 to 200" in text
    assert "floor" not in text
    assert to_dict(found, [], {})["degradations"] == "paper"
    assert "Degraded as shipped weights are judged" in markdown(whole, summarise(whole))
    for plan in (replace(whole.plan, lq=Path("lq")), replace(whole.plan, task="sr16", metrics=())):
        pairs = replace(whole, plan=plan)
        assert not (plan.lq and verdicts(pairs, "ours"))
        assert to_dict(pairs, [], {})["degradations"] is None
        assert "Degraded" not in markdown(pairs, summarise(pairs))


def test_markdown_tells_everything_side_by_side() -> None:
    unsure = SetDistance(interval=Interval(12.345, math.nan, math.nan, 2))
    sure = SetDistance(interval=Interval(12.345, 10.0, 14.7, 9))
    known = {"input": unsure, "ours": unsure, "peer": sure}
    sets = {name: {"fid_vgg16_caffe": distance} for name, distance in known.items()}
    faces = [row("a", 80), row("b", 20)]
    better = [row("a", 80, psnr=21.0, lpips=0.2, identity=0.2), row("b", 20, lpips=0.2)]
    found = report(sets=sets, ours=better, peer=faces)
    text = markdown(found, summarise(found))
    assert "| faces | metric | input | ours | peer |" in text
    assert "| all (2) | PSNR, dB ↑ | 20.00 [20.00, 20.00] | 20.50 [20.00, 21.00] |" in text
    assert "| severe (1) | LPIPS (Caffe's VGG-16) | -50.0 % [-50.0, -50.0] | +0.0 %" in text
    assert "| faces | metric | ours against input | peer against input |" in text
    assert "| +0.50 dB [+0.00, +1.00] | +0.00 dB [+0.00, +0.00] |" in text
    assert "Sharpness of the truth: 0.1000 [0.1000, 0.1000]. Degraded as shipped" in text
    assert "Mild: low side of the resize at least 50 px" in text
    assert "| ours | 12.35 |" in text
    assert "| peer | 12.35 [10, 14.7] |" in text
    assert "| ours | 0.100 [0.100, 0.100] ± 0.000 | 0.200 [0.200, 0.200] ± 0.000 |" in text
    assert "| 100.0 % [100.0, 100.0] of faces |" in text
    assert "| ours | lpips_vgg_caffe at least 25 % below the input's | -50.0 % | met |" in text
    assert (
        "| peer | lpips_vgg_caffe at least 25 % below the input's | +0.0 % | **missed** |" in text
    )


def test_a_mean_says_where_it_lacks_faces() -> None:
    faces = [row("a", 80, lpips=0.2), row("b", 20, lpips=math.nan)]
    found = report(ours=faces)
    found.rows["input"][0].scores["psnr"] = math.nan
    text = markdown(found, summarise(found))
    name = "LPIPS (Caffe's VGG-16)"
    assert (
        f"| all (2) | {name} ↓ | 0.4000 [0.4000, 0.4000] | 0.2000 [0.2000, 0.2000] (1 of 2) |"
        in (text)
    )
    assert f"| all (2) | {name} | -50.0 % [-50.0, -50.0] (1 of 2) |" in text
    assert f"| severe (1) | {name} ↓ | 0.4000 [0.4000, 0.4000] | – |" in text
    assert "| all (2) | PSNR, dB ↑ | 20.00 [20.00, 20.00] (1 of 2) | 20.00 [20.00, 20.00] |" in text
    assert "| all (2) | SSIM ↑ | 0.5000 [0.5000, 0.5000] | 0.5000 [0.5000, 0.5000] |" in text


def test_json_holds_everything_and_no_nan() -> None:
    found = report(ours=[row(lpips=math.nan, theta=math.nan)])
    text = json.dumps(to_dict(found, summarise(found), {"device": "cpu"}), allow_nan=False)
    data = json.loads(text)
    assert (data["device"], data["task"], data["count"]) == ("cpu", "mfr", 1)
    assert data["faces"]["ours"][0]["scores"]["lpips"] is None
    lines = [line for line in data["summary"] if line["metric"] == "psnr"]
    assert [(line["group"], line["system"]) for line in lines] == [
        (group, system) for group in ("all", "mild") for system in ("input", "ours")
    ]
    assert lines[0]["change"] is None
    assert lines[1]["mean"] == {"mean": 20.0, "low": 20.0, "high": 20.0, "count": 1}
    assert len(data["verdicts"]["ours"]) == 5
    assert data["gt_sharpness"] == {"mean": 0.1, "low": 0.1, "high": 0.1, "count": 1}
    assert data["degradations"] == "floor"
    assert [one["mean"] for one in data["theta"]["ours"]["intervals"]] == [0.1, 0.2, 0.3, 0.4]
    assert data["theta"]["ours"]["rising"] == 1
    assert data["theta"]["ours"]["rising_interval"] == {"mean": 1, "low": 1, "high": 1, "count": 1}


def test_totals_are_a_csv_as_well() -> None:
    found = report(ours=[row("a", 80, lpips=0.2, theta=0.3), row("b", 20, lpips=math.nan)])
    interval = Interval(2.5, 2.0, 3.0, 2)
    sets = {"ours": {"kid_vgg16_caffe": SetDistance(interval=interval, subsets=0.1)}}
    found = replace(found, set_distances=sets)
    rows = list(csv.DictReader(StringIO(summary_csv(found, summarise(found)))))
    assert list(rows[0]) == ["system", "stratum", "metric", "mean", "low", "high", "n"]
    lines = {(one["system"], one["stratum"], one["metric"]): one for one in rows}
    assert len(lines) == len(rows)
    best = lines["ours", "all", "lpips_vgg_caffe"]
    assert (best["mean"], best["low"], best["high"], best["n"]) == ("0.2", "0.2", "0.2", "1")
    assert lines["ours", "severe", "lpips_vgg_caffe"]["mean"] == ""
    assert lines["ours", "severe", "lpips_vgg_caffe"]["n"] == "0"
    assert lines["ours", "mild", "theta"]["mean"] == "0.3"
    assert ("input", "all", "theta") not in lines
    assert lines["ours", "all", "theta_64"]["mean"] == "0.3"
    assert (lines["ours", "all", "kid_vgg16_caffe"]["low"]) == "2.0"


def test_csv_has_a_line_for_every_face_and_system() -> None:
    found = report(ours=[row("a,b", 64, lpips=math.nan), row("c", 32)])
    rows = list(csv.DictReader(StringIO(to_csv(found))))
    assert [(line["system"], line["key"]) for line in rows] == [
        ("input", "a,b"),
        ("input", "c"),
        ("ours", "a,b"),
        ("ours", "c"),
    ]
    assert (rows[2]["lpips"], rows[2]["low_side"], rows[2]["theta_128"]) == ("", "64", "0.4")
    assert rows[0]["theta"] == ""
    small = list(csv.DictReader(StringIO(to_csv(report("sr16", ours=[row(task="sr16")])))))
    assert "theta_16" not in small[0]
    assert small[0]["sigma"] == ""


def test_super_resolved_pairs_have_no_floor_either() -> None:
    whole = report("sr16", ours=[row(task="sr16")])
    assert verdicts(whole, "ours")
    assert verdicts(replace(whole, plan=replace(whole.plan, lq=Path("lq"))), "ours") == []


def test_the_metrics_of_sets_are_told_with_their_network() -> None:
    distance = SetDistance(interval=Interval(12.3, 10.0, 14.7, 9))
    sets = {name: {"fid_vgg16_caffe": distance} for name in ("input", "ours")}
    whole = report(sets=sets, ours=[row()])
    found = replace(whole, plan=replace(whole.plan, metrics=(*MFR, "fid")))
    assert to_dict(found, [], {})["metrics"] == [*MFR, "fid_vgg16_caffe"]
    told = "Distances of sets need at least two faces, so there are none."
    assert told not in markdown(found, summarise(found))
    alone = replace(found, set_distances={})
    assert to_dict(alone, [], {})["metrics"] == [*MFR]
    assert told in markdown(alone, summarise(alone))
    assert told not in markdown(whole, summarise(whole))
