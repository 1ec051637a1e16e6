"""A whole study at the smallest budget."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from panini.checkpoints import load_model
from panini.cli.main import app
from panini.errors import ConfigError
from panini.models.bands import BandsConfig
from panini.models.panini_net import PaniniNet, named_config
from panini.reproduce import figure, load_budget, parts, reproduce
from panini.reproduce.additions import ADDITIONS, additions, additions_needs
from panini.reproduce.fusion import METHODS
from panini.reproduce.study import Study, Trained
from panini.reproduce.synthetic import prior_faces
from panini.training import degradation, restoration, warmup

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
TABLES = ("table1", "table2", "table3", "table4")
BEYOND = ("beyond-levels", "beyond-pairs", "beyond-masks", "beyond-dre", "beyond-additions")
RUNS = {
    *(f"{task}-{method}" for task in ("mfr", "sr16") for method in METHODS),
    *("mfr-constant", "mfr-dre", "pairs-udrl", "pairs-dasr"),
    *("mfr-no-windows", "mfr-windows", "mfr-growing", "mfr-no-lpips"),
    *("mfr-no-r1", "mfr-r1", "mfr-features", "mfr-no-average", "mfr-curriculum"),
    *("mfr-prior-faces", "mfr-mask-rate", "mfr-warmup", "mfr-warmup-first"),
    *("mfr-jitter", "mfr-no-clip", "mfr-climb"),
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
    monkeypatch.setattr(warmup, "train", refuse)


def test_everything_is_written(study):
    for name in (*TABLES, *BEYOND, "figure7"):
        assert table(study, name)["about"]["command"] == "panini reproduce all"
        assert (study / f"{name}.md").read_text().startswith(f"# {table(study, name)['title']}\n")
    assert {path.name for path in (study / "runs").iterdir()} == RUNS
    for name in ("table1", "table2", "table3", "beyond-levels", "beyond-masks", "beyond-dre"):
        assert (study / f"{name}.png").is_file()
        assert (study / f"{name}-synthetic.png").is_file()


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
    theta = masks["theta"]["constant"]
    assert theta["deviation"] == pytest.approx(0, abs=1e-6)
    assert theta["low"] == pytest.approx(theta["high"])
    assert theta["count"] == 2
    frozen, trained = (
        load_model(study / "runs" / name / "panini.safetensors").degradation_encoder.state_dict()
        for name in ("mfr-dafi", "mfr-dre")
    )
    assert not frozen["pointwise.weight"].equal(trained["pointwise.weight"])
    levels = [row["system"] for row in table(study, "beyond-levels")["rows"]]
    assert levels[:4] == ["input", "whole", "4 px prior", "4 px image"]
    assert len(levels) == 2 + 2 * 5
    pairs = table(study, "beyond-pairs")
    assert set(pairs["probes"]) == {"udrl", "dasr"}
    for report in pairs["probes"].values():
        found = report["contrast"]["intervals"]
        assert found["noise"]["low"] <= report["contrast"]["r2"]["noise"] <= found["noise"]["high"]
        assert found["same_face"]["count"] == 20
    assert "before the projection head" in " ".join(pairs["notes"])
    recipes = [
        yaml.safe_load((study / "runs" / name / "recipe.yaml").read_text())
        for name in ("pairs-udrl", "pairs-dasr")
    ]
    shares = {recipe["warmup_images"] / recipe["images"] for recipe in recipes}
    assert len(shares) == 1, "the rates would differ from step to step"


def test_additions_are_two_runs_that_differ_in_one_thing(study):
    def recipe(name: str) -> dict:
        return yaml.safe_load((study / "runs" / f"mfr-{name}" / "recipe.yaml").read_text())

    pairs = {
        "phases": ("no-windows", "windows"),
        "perceptual": ("no-lpips", "dafi"),
        "adversarial": ("no-r1", "r1"),
        "feature_adversarial": ("dafi", "features"),
        "ema_half_life": ("no-average", "dafi"),
        "mask_rate": ("dafi", "mask-rate"),
    }
    for key, names in pairs.items():
        without, added = (recipe(name) for name in names)
        assert {field for field in without if without[field] != added[field]} == {key, "out"}
    for name in ("curriculum", "prior-faces"):
        found, base = recipe(name), recipe("dafi")
        assert {field for field in base if base[field] != found[field]} == {"data", "out"}
    assert [recipe(name)["adversarial"]["r1_weight"] for name in ("no-r1", "r1")] == [0.0, 0.5]
    second = recipe("warmup-first")
    assert second["init"].endswith("mfr-warmup/panini.safetensors")
    assert second["images"] + recipe("warmup")["images"] == recipe("dafi")["images"]
    config = load_model(study / "runs" / "mfr-warmup-first" / "panini.safetensors").config
    assert config == load_model(study / "runs" / "mfr-dafi" / "panini.safetensors").config


def test_additions_have_a_row_each_but_what_lacks_a_network(study):
    found = table(study, "beyond-additions")
    assert found["absent"] == {
        "identity loss": "needs face_identity.safetensors in --metrics-dir",
        "a start from a trained network": "the budget's recipe names no network to start from",
    }
    run = found["runs"]["warmup-first"]
    assert (run["images"], run["scores"]["psnr"]["count"]) == (4, 2)
    text = (study / "beyond-additions.md").read_text()
    for row in ADDITIONS:
        assert text.count(f"| {row.label} |") == 1
    assert "PSNR with peak 1" not in text


def test_the_base_of_the_additions_may_favour_a_way_of_fusing(options, monkeypatch):
    recipes = {}

    def keep(study, name, recipe):
        recipes[name] = recipe
        return Trained(folder=study.folder(name), images=recipe.images, seconds=None)

    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr(Study, "run", keep)
    monkeypatch.setattr(Study, "evaluate", stop)
    budget = load_budget("smoke")
    config = budget.config.model_copy(update={"additions": {"mask_rate": 5.0}})
    monkeypatch.setattr("panini.reproduce.additions.load_model", stop)
    with pytest.raises(InterruptedError):
        additions(Study(options(budget=replace(budget, config=config))))
    rates = {name: recipe.mask_rate for name, recipe in recipes.items()}
    # The run of tables 1 to 3 is the one without that.
    assert rates.pop("mfr-dafi") == 1
    assert set(rates.values()) == {5.0}
    assert {"mfr-base", "mfr-warmup"} <= rates.keys()
    assert "mfr-mask-rate" not in rates
    assert "mfr-no-mask-rate" not in rates


@pytest.mark.parametrize("budget", ["smoke", "laptop", "paper"])
def test_all_ways_to_fuse_learn_at_one_rate(budget):
    assert {recipe.mask_rate for recipe in load_budget(budget).restoration.values()} == {1.0}


@pytest.mark.parametrize("budget", ["laptop", "paper"])
def test_recipes_of_the_additions_fit_at_every_budget(budget, options):
    study = Study(options(budget=load_budget(budget)))
    assert additions_needs(study).compared == {"mfr"}


def test_the_identity_row_has_no_discriminator_of_whole_faces(options, tmp_path, networks):
    for file in networks.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "face_identity.safetensors").touch()
    study = Study(options(budget=load_budget("paper"), metrics_dir=tmp_path))
    assert additions_needs(study).compared == {"mfr"}


def test_tables_beside_the_papers_say_how_its_psnr_is_measured(study):
    for name in ("table1", "table2", "table3"):
        text = (study / f"{name}.md").read_text()
        before, _, after = text.partition("The paper's own, with its networks")
        assert "peak 1" in after
        assert "peak 1" not in before  # smoke does not measure it; laptop and paper do
        methods = name != "table3"
        assert ("W₂ = W₁ P" in after) == methods
        assert ("start at the prior alone" in after) == methods
        # The smallest budget starts from nothing, and measures no distance of sets.
        assert "head start" not in after
        assert "Distances of sets" not in after
        assert "times the rate" not in after


def test_figure_7_has_a_row_for_each_rate(study):
    for name in ("figure7", "figure7-data"):
        with Image.open(study / f"{name}.png") as picture:
            # Input, Y, both alone, truth; a title, and four captions.
            assert picture.size == (5 * 196 - 4, 22 + 4 * (192 + 22))
    found = table(study, "figure7")
    assert found["columns"][:2] == ["X: input", "Y: both sources"]
    assert (found["columns"][-1], len(found["columns"])) == ("truth", 5)
    assert found["rates"] == [16, 32, 64, 128]
    assert found["about"]["network"] == "dafi"
    text = (study / "figure7.md").read_text()
    assert "![New faces of the prior](figure7.png)" in text
    assert "![Faces of the data](figure7-data.png)" in text


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
    more += ("--model", "mobile-mfr", "--model", "authors.pth")
    result = run("table1", "--budget", "smoke", "--out", tmp_path / "s", *folders, *more)
    assert result.exit_code == 0, result.output
    ((what, found),) = calls
    assert what == "table1"
    assert (found.budget.name, found.out, found.data) == ("smoke", tmp_path / "s", faces)
    assert (found.metrics_dir, found.models, found.train) == (networks, networks, (faces,))
    assert (found.only, found.images, found.device) == (("dafi", "pulse"), 7, "cpu")
    assert found.model == ("mobile-mfr", "authors.pth")
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
    assert result.exit_code == 2  # as of `panini evaluate`
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_debug_has_the_traceback(tmp_path):
    command = ["--debug", "reproduce", "table9", "--budget", "smoke", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)


def test_the_pages_smoke_command_needs_nothing_else(tmp_path, monkeypatch):
    """In an empty folder, as it stands in docs/evaluation.md."""
    text = PAGE.read_text(encoding="utf-8")
    (line,) = re.findall(r"^panini (reproduce .*--budget smoke[^#\n]*)", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == 0, result.output
    words = shlex.split(line)
    out = tmp_path / words[words.index("--out") + 1]
    found = table(out, words[1])
    assert [row["system"] for row in found["rows"]] == ["bicubic", "dafi", "concat"]
    assert set(found["rows"][1]["scores"]) == {"psnr", "ssim"}
    assert found["about"]["data"] == "faces-of-the-prior"


def test_the_page_shows_what_training_needs():
    text = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^panini reproduce all .*--budget (\w+) (.*)", text, re.MULTILINE)
    assert [budget for budget, _ in lines] == ["laptop", "paper"]
    for _, options in lines:
        for name in ("--data", "--metrics-dir", "--train"):
            assert name in options


def test_a_network_that_is_given_is_a_row_of_its_task(study, options, tmp_path):
    weights = study / "runs" / "sr16-latent" / "panini.safetensors"
    asked = options(model=(str(weights),), only=("shipped",))
    reproduce("table2", asked)
    _, given = table(asked.out, "table2")["rows"]
    assert (given["system"], given["label"]) == ("shipped", "panini.safetensors, as given")
    assert given["source"] == "other training"
    assert given["fusion_parameters"] == 0


def test_every_part_is_offered():
    assert list(parts.PARTS) == ["table4", "figure7", "table3", "table2", "table1", "beyond"]


def test_figure_7_shows_features_without_bands_too():
    torch.manual_seed(0)
    bands = BandsConfig(levels=(128, 64, 32, 16, 8))
    net = PaniniNet(replace(named_config("tiny"), bands=bands)).eval()
    faces = prior_faces(net.prior, 1, seed=0)
    assert figure.sheet(net, faces, seed=0).size == (6 * 196 - 4, 22 + 4 * (192 + 22))
    assert net.bands is not None
