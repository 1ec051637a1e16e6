"""Nothing is trained before all that a study reads has been opened."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from panini.checkpoints import save_model
from panini.errors import CheckpointError, ConfigError, DataError, PaniniError
from panini.models.panini_net import PaniniNet, named_config
from panini.reproduce import Budget, Study, load_budget, reproduce
from panini.reproduce.beyond import pairs
from panini.reproduce.figure import figure
from panini.reproduce.fusion import table_needs
from panini.reproduce.inputs import check_needs
from panini.reproduce.theta import theta_table
from panini.training import degradation, restoration
from panini.training.network import TransferConfig


@pytest.fixture(autouse=True)
def trained(monkeypatch) -> list[Path]:
    """Folders of the runs that would be trained; none is in earnest."""
    runs: list[Path] = []

    def spy(config) -> bool:
        runs.append(config.out)
        return False

    monkeypatch.setattr(restoration, "train", spy)
    monkeypatch.setattr(degradation, "train", spy)
    return runs


def measuring(*metrics: str) -> Budget:
    """The budget smoke with other metrics."""
    budget = load_budget("smoke")
    evaluation = budget.config.evaluation.model_copy(update={"metrics": metrics})
    return replace(budget, config=budget.config.model_copy(update={"evaluation": evaluation}))


def starting(budget: Budget, **start: object) -> Budget:
    """A budget whose recipes start elsewhere."""
    recipes = {}
    for task, recipe in budget.restoration.items():
        assert recipe.start is not None
        changed = recipe.start.model_copy(update=start)
        recipes[task] = recipe.model_copy(update={"start": changed})
    return replace(budget, restoration=recipes)


def test_it_gets_as_far_as_training_where_nothing_is_missing(options, trained):
    with pytest.raises(PaniniError, match="not at its end"):
        reproduce("table3", options())
    assert [run.name for run in trained] == ["sr16-dafi"]


@pytest.mark.parametrize("part", ["table1", "table3", "table4", "beyond", "all"])
def test_faces_are_asked_for_first(part, options, trained, tmp_path):
    laptop = load_budget("laptop")
    with pytest.raises(ConfigError, match="--data: this part compares faces"):
        reproduce(part, options(budget=laptop, data=None))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty: the folder holds no image and no tar shard"):
        reproduce(part, options(data=empty))
    assert trained == []


def test_faces_must_do(options, trained, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    Image.new("RGB", (200, 200)).save(few / "small.png")
    with pytest.raises(DataError, match="expected an aligned square face of at least 256 px"):
        reproduce("table3", options(data=few))
    message = (
        "few: expected at least 20 faces for the part pairs of beyond, found 1; name more faces "
        "with --data, or leave that part out: --only"
    )
    with pytest.raises(DataError, match=message):
        reproduce("beyond", options(data=few, only=("pairs",)))
    assert trained == []


@pytest.fixture
def wide(tmp_path) -> Path:
    """A folder of 20 faces, of which one of the last is not square."""
    folder = tmp_path / "wide"
    folder.mkdir()
    for index in range(20):
        side = (300, 260) if index == 18 else (256, 256)
        Image.new("RGB", side).save(folder / f"{index:02}.png")
    return folder


def test_faces_that_a_part_needs_are_square(wide, options, trained):
    with pytest.raises(DataError, match=r"18\.png: expected an aligned square face .* 300x260"):
        reproduce("beyond", options(data=wide, only=("pairs",)))
    for index in range(18):
        (wide / f"{index:02}.png").unlink()
    for part in ("table4", "figure7"):
        with pytest.raises(DataError, match=r"18\.png: expected an aligned square face"):
            reproduce(part, options(data=wide))
    Image.new("RGB", (256, 256)).save(wide / "00.png")
    with pytest.raises(DataError, match=r"18\.png: expected an aligned square face"):
        reproduce("table4", options(data=wide))
    assert trained == []


@pytest.mark.parametrize("make", [theta_table, figure, pairs])
def test_a_face_that_is_not_square_is_not_squashed(make, wide, options, monkeypatch):
    # Those of the data alone, as far as figure 7.
    monkeypatch.setattr("panini.reproduce.figure.prior_faces", lambda *_: iter(()))
    torch.manual_seed(0)
    net = PaniniNet.named("tiny").eval()
    study = Study(options(data=wide))
    monkeypatch.setattr(study, "masked_network", lambda: (net, "tiny"))
    many = study.config.model_copy(update={"theta_faces": 20, "figure_faces": 20})
    monkeypatch.setattr(study, "config", many)
    for index in range(17):
        (wide / f"{index:02}.png").unlink()
    with pytest.raises(DataError, match=r"18\.png: expected an aligned square face .* 300x260"):
        make(study)


@pytest.mark.parametrize(
    ("metric", "missing"),
    [
        ("identity", r"face_identity\.safetensors"),
        ("lpips_alex", "alexnet"),
        ("fid", "vgg16|inception"),
    ],
)
def test_networks_of_the_metrics_are_there(metric, missing, options, trained, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    asked = options(budget=measuring("psnr", metric), metrics_dir=nothing)
    with pytest.raises(CheckpointError, match=missing):
        reproduce("table3", asked)
    assert trained == []


def test_without_a_folder_for_them_it_is_asked_for(options, trained):
    with pytest.raises(ConfigError, match="--metrics-dir: this part needs the folder"):
        reproduce("table3", options(budget=load_budget("laptop"), metrics_dir=None))
    assert trained == []


@pytest.mark.parametrize(("part", "only"), [("table3", ()), ("beyond", ("pairs",))])
def test_train_shards_are_there_or_named(part, only, options, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the recipes' paths lead nowhere
    laptop, budget = load_budget("laptop"), measuring("psnr")
    budget = replace(budget, restoration=laptop.restoration, degradation=laptop.degradation)
    with pytest.raises(DataError, match=r"celeba-train.*no such file or folder; .* with --train"):
        reproduce(part, options(budget=budget, only=only))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty"):
        reproduce(part, options(budget=budget, only=only, train=(empty,)))
    shard = tmp_path / "cut.tar"
    shard.write_bytes(b"no tar file")
    with pytest.raises(DataError, match=r"cut\.tar: not a whole tar file"):
        reproduce(part, options(budget=budget, only=only, train=(shard,)))
    assert trained == []


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"prior": Path("gone.safetensors")}, "gone.*no such file; .* name it as their prior"),
        ({"degradation_encoder": Path("gone.pth")}, "gone.* as their degradation encoder"),
        ({"size": "gone.safetensors"}, r"gone\.safetensors: no such file"),
        (
            {"transfer": TransferConfig(source=Path("gone.safetensors"))},
            r"gone\.safetensors: no such file",
        ),
    ],
)
def test_what_runs_start_from_is_there(start, message, options, trained):
    asked = options(budget=starting(load_budget("smoke"), **start))
    with pytest.raises(CheckpointError, match=message):
        reproduce("table1", asked)
    assert trained == []


def test_what_runs_learn_by_is_there(options, trained, tmp_path):
    budget = load_budget("smoke")
    recipe = budget.restoration["sr16"]
    gone = recipe.perceptual.model_copy(update={"vgg": tmp_path / "gone.safetensors"})
    recipes = {"sr16": recipe.model_copy(update={"perceptual": gone})}
    asked = options(budget=replace(budget, restoration=budget.restoration | recipes))
    with pytest.raises(CheckpointError, match=r"gone.*the runs learn by it: .* --metrics-dir"):
        reproduce("table3", asked)
    assert trained == []


def test_a_run_that_is_done_asks_for_nothing(options):
    study = Study(options(budget=starting(load_budget("smoke"), size="gone.safetensors")))
    for method in ("dafi", "concat"):
        with pytest.raises(CheckpointError, match="gone"):
            check_needs(study, table_needs(study, "table3"))
        study.folder(f"sr16-{method}").mkdir(parents=True)
        (study.folder(f"sr16-{method}") / "done.json").touch()
    check_needs(study, table_needs(study, "table3"))


def test_a_mistake_leaves_the_folder_to_another_budget(options):
    with pytest.raises(ConfigError, match="--data"):
        reproduce("table3", options(budget=load_budget("laptop"), data=None))
    with pytest.raises(PaniniError, match="not at its end"):
        reproduce("table3", options())


@pytest.fixture
def sr16(tmp_path) -> str:
    torch.manual_seed(0)
    config = replace(named_config("tiny"), task="sr16", degradation_encoder=None)
    path = tmp_path / "authors.safetensors"
    save_model(PaniniNet(config), path, provenance={})
    return str(path)


@pytest.mark.parametrize("part", ["table1", "table3", "table4", "figure7", "beyond"])
def test_a_network_that_nothing_takes_is_refused(part, sr16, options, trained):
    with pytest.raises(ConfigError, match=r"authors.*is for task sr16, and nothing that is asked"):
        reproduce(part, options(model=(sr16,)))
    assert trained == []


@pytest.mark.parametrize("part", ["table4", "figure7"])
def test_the_run_that_stands_in_for_a_network_is_told_first(part, options, trained, caplog):
    with (
        caplog.at_level(logging.WARNING, "panini.reproduce"),
        pytest.raises(PaniniError, match="not at its end"),
    ):
        reproduce(part, options())
    (record,) = caplog.records
    assert "the study's own run of DAFI comes first, 4 images; --model NAME|PATH" in record.message
    assert [run.name for run in trained] == ["mfr-dafi"]


@pytest.mark.parametrize("part", ["table4", "figure7"])
def test_the_paper_budget_says_what_it_needs(part, options, trained, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PaniniError, match=r"ffhq-1024: .* with --train"):
        reproduce(part, options(budget=load_budget("paper")))
    assert "DAFI comes first, 4,800,000 images; --model NAME|PATH takes a trained" in caplog.text
    faces = options().data
    with pytest.raises(CheckpointError, match=r"stylegan2-ffhq.*no such file; .* as their prior"):
        reproduce(part, options(budget=load_budget("paper"), train=(faces,)))
    assert trained == []
