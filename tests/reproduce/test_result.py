"""Tables as JSON and Markdown."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from panini.evaluation import FaceRow, Plan, Report
from panini.evaluation.report import SetDistance
from panini.metrics.bootstrap import Interval
from panini.reproduce.result import (
    Row,
    Table,
    markdown,
    measured,
    verdict,
    with_comparable_sets,
    write_table,
)


def rows(psnr: list[float], lpips: list[float]) -> list[FaceRow]:
    return [
        FaceRow(key=str(i), mark="", params={}, theta=math.nan, scores={"psnr": a, "lpips": b})
        for i, (a, b) in enumerate(zip(psnr, lpips, strict=True))
    ]


@pytest.fixture
def report() -> Report:
    return Report(
        plan=Plan(data=Path("faces"), task="mfr", out=Path("out"), metrics=("psnr", "lpips")),
        systems=["input", "dafi", "noise"],
        rows={
            "input": rows([20.0, 22.0], [0.5, 0.5]),
            "dafi": rows([23.0, 25.0], [0.3, 0.2]),
            "noise": rows([22.0, 24.0], [0.2, 0.3]),
        },
        set_distances={
            "dafi": {"fid_vgg16_caffe": SetDistance(interval=Interval(12.345678, 11, 13.7, 2))},
            "noise": {
                "fid_vgg16_caffe": SetDistance(interval=Interval(15.0, math.nan, math.nan, 2))
            },
        },
        names={"lpips": "lpips_vgg_caffe"},
    )


@pytest.fixture
def table(report) -> Table:
    ours = Row(label="DAFI", system="dafi", source="trained here", parameters=1_234_567)
    ours = replace(ours, images=1000)
    theirs = Row(label="noise input", system="noise", source="trained here")
    return Table(
        name="table9",
        title="Table 9",
        about={"command": "panini reproduce table9", "budget": "smoke"},
        rows=[measured(row, report, "dafi") for row in (ours, theirs)],
        reference="dafi",
        published=[("method", "PSNR"), ("theirs", "1.00")],
        absent={"GPEN": "no file"},
        notes=["First.", "Second."],
        more={"extra": math.nan},
    )


def test_a_row_has_means_differences_and_the_networks_names(table):
    ours, theirs = table.rows
    assert ours.scores["psnr"].mean == pytest.approx(24)
    assert set(ours.scores) == {"psnr", "lpips_vgg_caffe"}
    assert ours.sets == {"fid_vgg16_caffe": 12.345678}
    assert ours.against == {}
    assert theirs.against["psnr"] == Interval(1.0, 1.0, 1.0, 2)
    assert theirs.against["lpips_vgg_caffe"].mean == pytest.approx(0)


def test_verdicts_are_said_of_the_reference():
    above, below = Interval(1.0, 0.5, 1.5, 9), Interval(-1.0, -1.5, -0.5, 9)
    assert [verdict("psnr", x) for x in (above, below)] == ["better", "worse"]
    assert [verdict("lpips_vgg_caffe", x) for x in (above, below)] == ["worse", "better"]
    assert verdict("psnr", Interval(1.0, -0.1, 2.0, 9)) == "undecided"
    assert verdict("psnr", Interval(1.0, 1.0, 1.0, 1)) == "undecided"  # of one face


def test_without_faces_there_is_no_verdict(table):
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    assert verdict("psnr", nothing) == verdict("lpips_vgg_caffe", nothing) == ""
    ours, theirs = table.rows
    theirs = replace(theirs, against={"psnr": nothing})
    text = markdown(replace(table, rows=[ours, theirs]))
    assert "| noise input | – |" in text
    assert "better |" not in text
    assert "worse |" not in text


def test_sets_of_other_faces_are_left_out(report):
    few = Report(
        plan=report.plan,
        systems=["input", "pulse"],
        rows={"input": rows([20.0], [0.5]), "pulse": rows([25.0], [0.1])},
        set_distances={"pulse": {"fid_vgg16_caffe": SetDistance(interval=Interval(1, 0, 2, 1))}},
        names=report.names,
    )
    ours = measured(Row(label="DAFI", system="dafi", source="here"), report)
    theirs = measured(Row(label="PULSE", system="pulse", source="there"), few)
    assert (ours.faces, theirs.faces) == (2, 1)
    first, second = with_comparable_sets([ours, theirs])
    assert first == ours
    assert second == replace(theirs, sets={}, set_intervals={})
    assert with_comparable_sets([theirs]) == [theirs]
    table = Table(name="t", title="T", about={"command": "c"}, rows=[first, second])
    assert (
        "| PULSE | there | – | – | – | 1 | 25.00 [25.00, 25.00] | 0.100 [0.100, 0.100] | – |"
        in (markdown(table))
    )


def test_a_mean_of_fewer_faces_says_so(report):
    report.rows["dafi"][0].scores["lpips"] = math.nan
    row = measured(Row(label="DAFI", system="dafi", source="here"), report)
    text = markdown(Table(name="t", title="T", about={"command": "c"}, rows=[row]))
    assert "| 2 | 24.00 [23.00, 25.00] | 0.200 [0.200, 0.200] (1 of 2) |" in text


def test_markdown_says_all_of_it(table):
    text = markdown(table)
    assert text.startswith("# Table 9\n\nbudget smoke.\n\n```\npanini reproduce table9\n```\n\n| m")
    assert "| DAFI | trained here | 1.23 M | – | 1,000 | 2 | 24.00 [23.00, 25.00] | 0.250 " in text
    assert "Fréchet distance (Caffe's VGG-16) ↓ |" in text
    assert "| 12.35 [11, 13.7] |" in text
    assert "| 15 |" in text
    assert "| noise input | +1.00 [+1.00, +1.00] better | +0.000 [-0.100, +0.100] und" in text
    assert "| GPEN | no file |" in text
    assert text.endswith("| GPEN | no file |\n\n- First.\n- Second.\n")


def test_json_has_the_numbers_and_no_nan(table, tmp_path):
    json_file, md_file = write_table(table, tmp_path)
    assert md_file.read_text() == markdown(table)
    found = json.loads(json_file.read_text())
    assert found["rows"][1]["against"]["psnr"]["mean"] == 1.0
    assert found["extra"] is None
    assert "sections" not in found
    assert "more" not in found
