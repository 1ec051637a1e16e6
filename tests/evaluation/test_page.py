"""Plots, sheets and the page."""

from __future__ import annotations

import math
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from panini.evaluation import run
from panini.evaluation.cases import Cases
from panini.evaluation.output import FILES
from panini.evaluation.plots import COLOURS, Axes, Point, bars, legend, line_plot, scatter
from panini.evaluation.sheet import caption, picture_table, titles
from panini.metrics.bootstrap import Interval, mean_interval

NUMBERS = {"input": 0, "ours": 1, "peer": 2}


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in drawn(svg).iter("text")]


def test_bars_begin_at_zero_and_show_their_doubt() -> None:
    nothing = mean_interval([])
    svg = bars("LPIPS ↓", [("in<put", Interval(4.0, 3.0, 5.0, 9)), ("none", nothing)])
    (bar,) = drawn(svg).iter("rect")
    left, width = float(bar.attrib["x"]), float(bar.attrib["width"])
    (whisker,) = [p for p in drawn(svg).iter("path") if p.attrib.get("class") == "whisker"]
    low, high = (float(n) for n in re.match(r"M(\S+) \S+H([\d.]+)", whisker.attrib["d"]).groups())
    assert left == 8
    assert (low + high) / 2 == pytest.approx(left + width, abs=0.2)
    assert low - left == pytest.approx(3 / 4 * width, abs=0.2)
    assert texts(svg) == ["LPIPS ↓", "in<put", "4", "none"]
    assert bar.attrib["fill"] == COLOURS[0]
    assert bars("x", [("none", nothing)]) == ""
    negative = bars("change", [("a", Interval(-2.0, -3.0, -1.0, 5))])
    (bar,) = drawn(negative).iter("rect")
    assert float(bar.attrib["x"]) + float(bar.attrib["width"]) == pytest.approx(288, abs=0.2)


def test_a_scatter_leaves_out_what_is_no_number() -> None:
    axes = Axes(title="θ", x="noise", y="θ", diagonal=True)
    points = [Point(0.0, 1.0, "a&b"), Point(math.nan, 1.0), Point(1.0, math.inf), Point(1.0, 2.0)]
    svg = scatter(axes, {"ours": points, "peer": [Point(0.5, 0.5)]}, NUMBERS)
    marks = [path for path in drawn(svg).iter("path") if "stroke-linecap" in path.attrib]
    assert [path.attrib["stroke"] for path in marks] == [COLOURS[1]] * 2 + [COLOURS[2]]
    assert [element.text for element in drawn(svg).iter("title")] == ["a&b"]
    assert any(path.attrib.get("class") == "equal" for path in drawn(svg).iter("path"))
    assert scatter(axes, {"ours": points[1:3]}, NUMBERS) == ""
    many = [Point(i, i, "x") for i in range(400)]
    marks = list(drawn(scatter(axes, {"ours": many}, NUMBERS)).iter("title"))
    assert not marks


def test_axes_have_round_marks() -> None:
    axes = Axes(title="t", x="x", y="y")
    svg = scatter(axes, {"ours": [Point(0.0, 0.31), Point(100.0, 0.72)]}, NUMBERS)
    assert {"0", "20", "40", "60", "80", "100", "0.3", "0.4", "0.5", "0.6", "0.7"} <= {*texts(svg)}
    flat = texts(scatter(axes, {"ours": [Point(5.0, 0.0)]}, NUMBERS))
    assert "0" in flat
    assert "-0" not in flat


def test_lines_join_means_and_space_rates_evenly() -> None:
    axes = Axes(title="t", x="rate", y="θ")
    values = [(16.0, 0.1, 0.01), (32.0, 0.2, 0.01), (128.0, 0.3, 0.02)]
    svg = line_plot(axes, {"ours": values, "none": [(16.0, math.nan, 0.0)]}, {**NUMBERS, "none": 3})
    assert [t for t in texts(svg) if t in ("16", "32", "128")] == ["16", "32", "128"]
    path = next(p.attrib["d"] for p in drawn(svg).iter("path") if "L" in p.attrib["d"])
    xs = [float(pair.split()[0]) for pair in path[1:].split("L")]
    assert np.diff(xs)[0] == pytest.approx(np.diff(xs)[1], abs=0.2)
    assert line_plot(axes, {"none": [(16.0, math.nan, 0.0)]}, {"none": 0}) == ""


def test_systems_differ_by_shape_as_well() -> None:
    entries = re.findall(
        r'd="(M8 8[^"]*)".*?stroke="(#\w+)"', legend({str(n): n for n in range(28)})
    )
    shapes = [shape for shape, _ in entries]
    assert len(set(shapes[:7])) == 7
    assert len(set(entries)) == len(entries) == 28


def test_the_sheet_is_a_grid_of_pictures(face) -> None:
    rows = [("first", [face(0), face(1, 512)]), ("second", [face(2), face(3)])]
    sheet = picture_table(("input", "truth"), rows, side=64)
    assert sheet.size == (2 * 64 + 4, 22 + 2 * (64 + 22))
    expected = Image.fromarray(face(0)).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(sheet)[44:108, :64], np.asarray(expected))


class Addresses(HTMLParser):
    """What a page would load, and how its tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.sources += [values[n] or "" for n in ("src", "href") if n in values]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_the_page_needs_nothing_else(plan, judge, weighing, drawing) -> None:
    wish = plan(metrics=(*plan().metrics, "theta", "grid"))
    systems = [weighing("ours <b>", lambda lq: lq), drawing("peer", lambda lq: lq * 0.9)]
    run(wish, systems, judge=judge, about={"device": "cpu"})
    assert sorted(path.name for path in wish.out.iterdir() if path.is_file()) == sorted(
        [*FILES, "plan.json"]
    )
    text = (wish.out / "report.html").read_text()
    page = Addresses()
    page.feed(text)
    assert page.open == []
    assert len(page.sources) == 3 * 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert "ours &lt;b&gt;" in text
    assert "<b>" not in text
    assert "width=device-width" in text
    assert "Pictures" in page.headings
    assert "Face by face, against the input" in page.headings
    assert "θ against low side, px" in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        drawn(svg)
    report = (wish.out / "report.md").read_text()
    assert report.startswith("# ours <b>, peer on faces")
    with Image.open(wish.out / "sheet.png") as sheet:
        assert sheet.size == (4 * 260 - 4, 22 + 3 * 278)


def test_pictures_run_from_mild_to_severe(plan, judge, drawing) -> None:
    wish = plan(metrics=("psnr",))
    run(wish, [drawing("ours", lambda lq: lq)], judge=judge)
    cases = Cases(wish)
    mildest = max(cases.keys, key=lambda key: cases.params(key).low_side(512))
    (case,) = (make() for make in cases.jobs({mildest}))
    with Image.open(wish.out / "sheet.png") as sheet:
        shown = np.asarray(sheet)[44 : 44 + 256, :256]
    expected = Image.fromarray(case.lq).resize((256, 256), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(shown, np.asarray(expected))
    assert caption(case.params, 0.5).startswith(f"{case.params.low_side(512)} px   blur ")


def test_super_resolution_shows_the_inputs_own_pixels(plan, judge, drawing) -> None:
    wish = plan(task="sr16", metrics=("psnr", "faithfulness"), limit=1)
    report = run(wish, [drawing("ours", lambda lq: lq)], judge=judge)
    assert titles(report) == ["input", "bicubic", "ours", "truth"]
    (case,) = (make() for make in Cases(wish).jobs({"face0"}))
    with Image.open(wish.out / "sheet.png") as sheet:
        shown = np.asarray(sheet)[44 : 44 + 256, :256]
    np.testing.assert_array_equal(shown[::4, ::4], case.lq)
    assert Path(wish.out / "report.html").read_text().count("θ") == 0


@pytest.mark.parametrize("task", ["mfr", "sr16"])
def test_a_hostile_face_stays_text(plan, judge, weighing, tmp_path, face, task) -> None:
    key = "\"><i onload=x>&'<!--"
    (tmp_path / "data").mkdir()
    Image.fromarray(face(0)).save(tmp_path / "data" / f"{key}.png")
    wish = plan(data=tmp_path / "data", task=task, metrics=("psnr",))
    run(wish, [weighing("ours", lambda lq: lq)], judge=judge)
    text = (wish.out / "report.html").read_text()
    assert "<i" not in text.replace("<img", "")
    assert "<!--" not in text
    page = Addresses()
    page.feed(text)
    assert page.open == []
    titles = [
        title.text
        for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        for title in drawn(svg).iter("title")
    ]
    assert key in titles
    if task == "sr16":
        assert escape(key) in text.split("<h3>")[1]
