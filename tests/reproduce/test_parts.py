"""A whole study at the smallest budget."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from panini.checkpoints import load_model
from panini.cli.main import app
from panini.errors import ConfigError
from panini.models.bands import BandsConfig
from panini.models.panini_net import PaniniNet, named_config
from panini.reproduce import figure, parts, reproduce
from panini.reproduce.fusion import METHODS
from panini.reproduce.sheets import prior_faces
from panini.training import degradation, restoration

TABLES = ("table1", "table2", "table3", "table4")
BEYOND = ("beyond-levels", "beyond-pairs", "beyond-masks", "beyond-dre")
RUNS = {
    *(f"{task}-{method}" for task in ("mfr", "sr16") for method in METHODS),
    *("mfr-constant", "mfr-dre", "pairs-udrl", "pairs-dasr"),
}


def table(study, name: str) -> dict:
    return json.loads((study / f"{name}.json").read_text())


@pytest.fixture
def untrainable(monkeypatch) -> None:
    """Nothing may be trained any more."""

    def refuse(config) -> bool:
        raise AssertionError(config.out)

    monkeypatch.setattr(restoration, "train", refuse)
    monkeypatch.setattr(degradation, "train", refuse)


def test_everything_is_written(study):
    for name in (*TABLES, *BEYOND):
        assert table(study, name)["about"]["command"] == "panini reproduce all"
        assert (study / f"{name}.md").read_text().startswith(f"# {table(study, name)['title']}\n")
    assert {path.name for path in (study / "runs").iterdir()} == RUNS
    for name in ("table1", "table2", "table3", "beyond-levels"):
        assert (study / f"{name}.png").is_file()


def test_tables_have_every_method_beside_the_input(study):
    for name, first in (("table1", "input"), ("table2", "bicubic")):
        found = table(study, name)
        systems = [row["system"] for row in found["rows"]]
        assert systems[:6] == [first, *METHODS]
        assert systems[6:] == ["pulse"]
        for row in found["rows"][1:6]:
            assert row["images"] == 4
            assert row["scores"]["psnr"]["count"] == 2
            assert "lpips_vgg_caffe" in row["scores"]
            assert ("psnr" in row["against"]) == (row["system"] != "dafi")
    sizes = {row["system"]: row["parameters"] for row in table(study, "table1")["rows"]}
    assert sizes["latent"] < sizes["dafi"]
    assert table(study, "table1")["absent"].keys() == {"GFP-GAN", "GPEN"}
    third = table(study, "table3")["rows"]
    assert [row["system"] for row in third] == ["bicubic", "dafi", "concat"]


def test_parts_differ_in_what_they_say(study):
    constant = load_model(study / "runs" / "mfr-constant" / "panini.safetensors")
    assert constant.config.degradation_encoder is None
    assert (constant.config.task, constant.config.bands) == ("mfr", None)
    masks = table(study, "beyond-masks")
    assert masks["theta"]["constant"]["deviation"] == pytest.approx(0, abs=1e-6)
    frozen, trained = (
        load_model(study / "runs" / name / "panini.safetensors").degradation_encoder.state_dict()
        for name in ("mfr-dafi", "mfr-dre")
    )
    assert not frozen["pointwise.weight"].equal(trained["pointwise.weight"])
    levels = [row["system"] for row in table(study, "beyond-levels")["rows"]]
    assert levels[:4] == ["input", "whole", "4 px prior", "4 px image"]
    assert len(levels) == 2 + 2 * 5
    assert set(table(study, "beyond-pairs")["probes"]) == {"udrl", "dasr"}


def test_figure_7_has_a_row_for_each_rate(study):
    for name in ("figure7", "figure7-data"):
        with Image.open(study / f"{name}.png") as picture:
            # Input, Y, both alone, truth; a title, and four captions.
            assert picture.size == (5 * 196 - 4, 22 + 4 * (192 + 22))


@pytest.mark.parametrize(("name", "columns"), [("table1", 7), ("table2", 8), ("table3", 5)])
def test_tables_have_a_sheet_of_faces_that_nobody_has(study, name, columns):
    # Input, five methods, truth; super-resolution shows the small face as well.
    with Image.open(study / f"{name}-synthetic.png") as picture:
        assert picture.size == (columns * 260 - 4, 22 + 2 * (256 + 22))
    shown = study / "synthetic" / ("mfr" if name == "table1" else "sr16")
    assert sorted(path.name for path in shown.iterdir()) == ["synthetic-0.png", "synthetic-1.png"]


def test_what_is_there_is_not_made_again(study, options, untrainable):
    before = {name: table(study, name)["rows"] for name in ("table1", "beyond-dre")}
    command = "panini reproduce all"
    reproduce("table1", options(out=study, command=command))
    reproduce("beyond", options(out=study, command=command, only=("dre",)))
    for name, rows in before.items():
        assert table(study, name)["rows"] == rows


def test_a_table_grows_row_by_row(options):
    chosen = options(only=("latent",))
    reproduce("table3", options(only=("concat",)))
    systems = [row["system"] for row in table(chosen.out, "table3")["rows"]]
    assert systems == ["bicubic", "concat"]
    reproduce("table2", chosen)
    found = table(chosen.out, "table2")
    assert [row["system"] for row in found["rows"]] == ["bicubic", "concat", "latent"]
    assert found["reference"] is None


def test_mistakes_are_told(options):
    with pytest.raises(ConfigError, match="table5: unknown; expected one of table4, figure7, tab"):
        reproduce("table5", options())
    with pytest.raises(ConfigError, match="--only levels: unknown here; expected one of dafi"):
        reproduce("table3", options(only=("levels",)))
    with pytest.raises(ConfigError, match="--only dafi: unknown here; expected one of none"):
        reproduce("table4", options(only=("dafi",)))
    assert not options().out.exists()


def run(*arguments: object):
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def test_the_command_hands_everything_on(monkeypatch, tmp_path, faces, networks):
    calls = []
    monkeypatch.setattr("sys.argv", ["/bin/panini", "reproduce", "table1"])
    monkeypatch.setattr(
        "panini.reproduce.reproduce", lambda what, options: calls.append((what, options)) or []
    )
    folders = ("--data", faces, "--metrics-dir", networks, "--models", networks)
    more = ("--only", "dafi", "--only", "pulse", "--train", faces, "--images", 7, "--device", "cpu")
    result = run("table1", "--budget", "smoke", "--out", tmp_path / "s", *folders, *more)
    assert result.exit_code == 0, result.output
    ((what, found),) = calls
    assert what == "table1"
    assert (found.budget.name, found.out, found.data) == ("smoke", tmp_path / "s", faces)
    assert (found.metrics_dir, found.models, found.train) == (networks, networks, (faces,))
    assert (found.only, found.images, found.device) == (("dafi", "pulse"), 7, "cpu")
    assert found.command == "panini reproduce table1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table9",), "error: table9: unknown; expected one of table4, figure7, table3, table2,"),
        (("table1", "--budget", "vast"), "error: budget vast: unknown; expected one of smoke, lap"),
        (("table4", "--data", "none.tar"), "error: none.tar: no such file or folder; see --data"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    more = () if "--budget" in arguments else ("--budget", "smoke")
    result = run(*arguments, *more, "--out", tmp_path / "study")
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_every_part_is_offered():
    assert list(parts.PARTS) == ["table4", "figure7", "table3", "table2", "table1", "beyond"]


def test_figure_7_shows_features_without_bands_too():
    torch.manual_seed(0)
    bands = BandsConfig(levels=(128, 64, 32, 16, 8))
    net = PaniniNet(replace(named_config("tiny"), bands=bands)).eval()
    faces = prior_faces(net.prior, 1, seed=0)
    assert figure.sheet(net, faces, seed=0).size == (6 * 196 - 4, 22 + 4 * (192 + 22))
    assert net.bands is not None
