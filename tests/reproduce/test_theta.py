"""Table 4: θ over the rates, rank correlations, and the plot."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from panini.evaluation.cases import THETA_RATES
from panini.evaluation.plots import Axes, Point, scatter
from panini.models.panini_net import PaniniNet
from panini.reproduce.plot import plot_sheet
from panini.reproduce.theta import measure, rank_correlation, rank_interval, ranks, rising

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
    assert rising(np.array([[1, 2, 3], [1, 3, 2], [1, 1, 2], [0, 5, 9]])) == 0.5


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
