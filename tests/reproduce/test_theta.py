"""Table 4: θ over the rates, rank correlations, and the plot."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from panini.evaluation import Plan
from panini.evaluation.cases import THETA_RATES, Cases
from panini.evaluation.plots import Axes, Point, scatter
from panini.evaluation.report import rises
from panini.models.panini_net import PaniniNet
from panini.reproduce.plot import plot_sheet
from panini.reproduce.theta import (
    Thetas,
    _numbers,
    _rates,
    measure,
    rank_correlation,
    rank_interval,
    ranks,
)

SVG = "{http://www.w3.org/2000/svg}"


def test_equal_values_share_their_rank():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_rank_correlation_is_spearmans():
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=50), generator.integers(0, 5, 50).astype(float)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, np.ones(50)) == 0


def test_its_interval_holds_it():
    generator = np.random.default_rng(1)
    a = generator.normal(size=100)
    found = rank_interval(a, a + generator.normal(size=100))
    assert found.low < found.mean < found.high
    assert found.count == 100
    assert found.low > 0.4
    assert found.high < 0.9


def test_rising_counts_faces_that_rise_at_every_step():
    over_rates = np.array([[1, 2, 3], [1, 3, 2], [1, 1, 2], [0, 5, 9]])
    assert rises(over_rates).tolist() == [True, False, False, True]


def test_the_share_of_rising_faces_has_an_interval():
    over_rates = np.tile([0.1, 0.2, 0.3, 0.4], (20, 1))
    over_rates[0] = [0.1, 0.3, 0.2, 0.4]  # rises from the first to the last alone
    found = Thetas(over_rates=over_rates, drawn=np.zeros(20), numbers=np.zeros((20, 4)))
    told = _numbers(found, {})
    interval = told["rising_interval"]
    assert told["rising"] == interval["mean"] == 0.95
    assert 0.8 < interval["low"] < 0.95 < interval["high"] == 1
    assert interval["count"] == 20
    text = _rates(found)
    assert f"at every step for 95 % [{100 * interval['low']:.0f}, 100] of the faces; " in text
    assert text.endswith("from the first to the last for 100 % [100, 100].")


def test_theta_of_a_set_hangs_on_the_seed_alone():
    torch.manual_seed(0)
    net = PaniniNet.named("tiny").eval()
    gradient = np.linspace(0, 255, 256).astype(np.uint8)
    image = np.broadcast_to(gradient[:, None, None], (256, 256, 3)).copy()
    faces = [("a", image), ("b", image[::-1].copy())]
    found = measure(net, faces, seed=3)
    assert found.over_rates.shape == (2, len(THETA_RATES))
    assert found.numbers.shape == (2, 4)
    low, sigma, noise, jpeg = found.numbers.T
    assert ((low >= 16) & (low <= 100) & (sigma >= 0.5) & (noise <= 15) & (jpeg >= 50)).all()
    assert np.array_equal(measure(net, faces, seed=3).drawn, found.drawn)
    assert not np.array_equal(measure(net, faces, seed=4).drawn, found.drawn)
    papers = measure(net, faces, seed=3, degradations="paper")
    assert (papers.numbers[:, 3] <= 50).all()  # its JPEG quality
    assert np.array_equal(papers.over_rates, found.over_rates)


def test_a_face_is_degraded_by_its_name_wherever_it_stands(tmp_path):
    torch.manual_seed(0)
    net = PaniniNet.named("tiny").eval()
    generator = np.random.default_rng(0)
    faces = {name: generator.integers(0, 256, (512, 512, 3), np.uint8) for name in "ab"}
    found = measure(net, faces.items(), seed=3)
    turned = measure(net, reversed(faces.items()), seed=3)
    np.testing.assert_array_equal(turned.numbers, found.numbers[::-1])
    np.testing.assert_allclose(turned.drawn, found.drawn[::-1], rtol=1e-5)
    alone = measure(net, [("b", faces["b"])], seed=3)
    np.testing.assert_array_equal(alone.numbers, found.numbers[1:])
    for name, image in faces.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    cases = Cases(Plan(data=tmp_path, task="mfr", out=tmp_path / "out", metrics=("psnr",), seed=3))
    sigmas = [cases.params(key).sigma for key in cases.keys]
    assert found.numbers[:, 1].tolist() == sigmas  # as `panini evaluate` has it


def test_the_plots_are_one_svg():
    points = [Point(x, 1 - x / 10) for x in range(5)]
    plot = scatter(Axes(title="a < b", x="x", y="θ"), {"": points}, {"": 1})
    root = ElementTree.fromstring(plot_sheet([plot] * 3))
    assert root.attrib["viewBox"] == "0 0 720 520"
    tiles = root.findall(f"{SVG}svg")
    assert [(tile.attrib["x"], tile.attrib["y"]) for tile in tiles] == [
        *(("0", "0"), ("360", "0"), ("0", "260"))
    ]


def test_the_table_is_written(study):
    found = json.loads((study / "table4.json").read_text())
    assert found["rates"] == list(THETA_RATES)
    assert len(found["faces"]) == 4
    assert set(found["rank_correlations"]) == {
        *("low side, px", "σ, px", "noise, levels", "JPEG quality")
    }
    text = (study / "table4.md").read_text()
    assert "| rate r | 16 | 32 | 64 | 128 |" in text
    assert "![θ](table4.svg)" in text
    ElementTree.parse(study / "table4.svg")
