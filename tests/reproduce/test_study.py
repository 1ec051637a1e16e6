"""The folder of a study: its runs are made once, resumed, and never mixed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from panini.checkpoints import load_model, save_model
from panini.config import load_config
from panini.errors import ConfigError, DataError, TrainingError
from panini.evaluation import System, network_system
from panini.models.panini_net import PaniniNet, named_config
from panini.reproduce import load_budget
from panini.reproduce.recipes import first_difference, with_networks_of
from panini.reproduce.study import Study
from panini.training import restoration
from panini.training.restoration import RestorationRunConfig

DAFI = {"fusion_method": "dafi"}


@pytest.fixture
def trained(monkeypatch) -> list[RestorationRunConfig]:
    """Recipes that were trained; none in earnest."""
    calls: list[RestorationRunConfig] = []

    def train(config: RestorationRunConfig) -> bool:
        calls.append(config)
        return config.max_seconds is None

    monkeypatch.setattr(restoration, "train", train)
    return calls


def test_a_run_is_made_once_with_what_the_study_sets(options, trained):
    study = Study(options(images=6))
    assert study.budget.restoration["mfr"].perceptual.vgg.name == "untrained"
    first = study.restoration("mfr", "mfr-dafi", DAFI, train_degradation_encoder=0.5)
    again = Study(options(images=6)).restoration(
        "mfr", "mfr-dafi", DAFI, train_degradation_encoder=0.5
    )
    assert first == again
    assert (first.images, study.is_done("mfr-dafi"), study.is_done("mfr-noise")) == (6, True, False)
    (recipe,) = trained
    assert recipe.out == first.folder == study.out / "runs" / "mfr-dafi"
    assert (recipe.seed, recipe.device, recipe.images) == (1, "cpu", 6)
    assert recipe.train_degradation_encoder == 0.5
    assert recipe.perceptual.vgg == study.out / "start" / "untrained-vgg.safetensors"
    assert recipe.start is not None
    assert load_model(recipe.start.size).config.task == "mfr"
    assert recipe.data.groups[0].source.paths == (recipe.start.prior,)
    written = load_config(first.folder / "recipe.yaml", RestorationRunConfig)
    assert written == recipe


def test_methods_differ_in_nothing_else(options, trained):
    study = Study(options())
    for method in ("dafi", "latent"):
        study.restoration("sr16", f"sr16-{method}", {"fusion_method": method})
    dafi, latent = (recipe.model_dump(mode="json") for recipe in trained)
    for recipe in (dafi, latent):
        del recipe["out"], recipe["start"]["fusion_method"]
    assert dafi == latent


def test_another_recipe_is_not_gone_on_with(options, trained):
    Study(options()).restoration("mfr", "mfr-dafi", DAFI)
    with pytest.raises(ConfigError, match=r"recipe\.yaml: images differs from what is asked for"):
        Study(options(images=9)).restoration("mfr", "mfr-dafi", DAFI)
    path = options().out / "runs" / "mfr-dafi" / "recipe.yaml"
    whole = path.read_text()
    for damaged in ("", "- 1", "{: bad"):
        path.write_text(damaged)
        with pytest.raises(DataError, match=r"recipe\.yaml: is no recipe \(.*\); remove .*dafi to"):
            Study(options()).restoration("mfr", "mfr-dafi", DAFI)
    # A recipe of an earlier version lacks what has been added since.
    earlier = yaml.safe_load(whole)
    del earlier["perceptual"]["signed"]
    path.write_text(yaml.safe_dump(earlier))
    Study(options()).restoration("mfr", "mfr-dafi", DAFI)
    path.write_text(whole)
    moved = yaml.safe_load(path.read_text()) | {"out": "elsewhere", "device": "cuda"}
    path.write_text(yaml.safe_dump(moved))
    Study(options()).restoration("mfr", "mfr-dafi", DAFI)
    assert len(trained) == 1


def test_a_run_that_is_cut_off_is_not_done(options, trained):
    study = Study(options())
    with pytest.raises(TrainingError, match="not at its end; the same command goes on"):
        study.restoration("mfr", "mfr-dafi", DAFI, max_seconds=1.0)
    assert not study.is_done("mfr-dafi")


@pytest.mark.parametrize("content", ["", "[]", '{"images": 4}'])
def test_a_damaged_record_of_a_runs_end_is_told(content, options, trained):
    study = Study(options())
    done = study.restoration("mfr", "mfr-dafi", DAFI).folder / "done.json"
    done.write_text(content)
    message = r"done\.json: does not tell what the run was .*; delete that file, and the same"
    with pytest.raises(DataError, match=message):
        study.restoration("mfr", "mfr-dafi", DAFI)
    done.unlink()
    study.restoration("mfr", "mfr-dafi", DAFI)
    assert study.is_done("mfr-dafi")


def test_real_faces_may_be_others(options, trained, faces, tmp_path):
    study = Study(options(train=(faces,)))
    study.restoration("mfr", "live", DAFI)
    recipe = study.budget.restoration["mfr"]
    (group,) = recipe.data.groups
    real = group.source.model_copy(update={"kind": "shards", "paths": (tmp_path / "a.tar",)})
    data = recipe.data.model_copy(update={"groups": (group.model_copy(update={"source": real}),)})
    study.restoration("mfr", "real", DAFI, data=data)
    kinds = [recipe.data.groups[0].source.kind for recipe in trained]
    assert kinds == ["prior_live", "folder"]
    assert trained[1].data.groups[0].source.paths == (faces,)


def test_a_folder_is_of_one_budget(options):
    study = Study(options())
    study.claim()
    assert Study(options()).out == study.out
    study.out.joinpath("study.json").write_text(json.dumps({"budget": "paper"}))
    with pytest.raises(ConfigError, match=r"study\.json: a study of budget paper, not smoke; choo"):
        Study(options())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"budget'])
def test_a_damaged_record_is_told(content, options):
    study = Study(options())
    study.claim()
    (study.out / "study.json").write_text(content)
    message = r"study\.json: does not tell the study's budget .*; delete that file, and name"
    with pytest.raises(DataError, match=message):
        Study(options())


@pytest.fixture
def network():
    """(seed) → a tiny network as the system "shipped"."""

    def make(seed: int) -> System:
        torch.manual_seed(seed)
        return network_system(PaniniNet.named("tiny").eval(), "shipped")

    return make


def test_an_evaluation_of_something_else_is_to_be_deleted(options, network, tmp_path):
    first = Study(options(metrics_dir=None))
    first.evaluate("mfr", "mfr", [network(0)])
    folder = first.out / "evaluation" / "mfr"
    remedy = rf"; delete {folder} \(no run is lost\), or choose another --out$"
    with pytest.raises(ConfigError, match=f"holds results of another 'shipped' .*{remedy}"):
        first.evaluate("mfr", "mfr", [network(1)])
    others = tmp_path / "others"
    others.mkdir()
    Image.new("RGB", (256, 256)).save(others / "a.png")
    second = Study(options(metrics_dir=None, data=others))
    with pytest.raises(ConfigError, match=f"was made with data faces.*, now .*{remedy}"):
        second.evaluate("mfr", "mfr", [network(0)])
    (folder / "plan.json").write_text("{")
    with pytest.raises(DataError, match=rf"plan\.json: cannot be read .*{remedy}"):
        first.evaluate("mfr", "mfr", [network(0)])
    Image.new("RGB", (300, 260)).save(others / "b.png")
    with pytest.raises(DataError, match=r"got 300x260; crop it as FFHQ does, or leave it out$"):
        second.evaluate("other", "mfr", [network(0)])


@pytest.mark.parametrize("name", ["models", "metrics_dir"])
def test_a_file_is_no_folder(name, options, tmp_path):
    file = tmp_path / "GFPGANv1.4.pth"
    file.touch()
    with pytest.raises(DataError, match=r"pth: is a file, expected the folder of .* with --m"):
        Study(options(**{name: file}))


def test_what_is_missing_is_named(options, tmp_path):
    for name in ("data", "metrics_dir", "models"):
        with pytest.raises(DataError, match=f"none: no such file or folder; see --{name[:5]}"):
            Study(options(**{name: tmp_path / "none"}))
    with pytest.raises(DataError, match="none: no such file or folder; see --train"):
        Study(options(train=(tmp_path / "none",)))
    with pytest.raises(DataError, match="see --data: expected a tar shard, or a folder of faces"):
        Study(options(data=tmp_path / "none"))
    study = Study(options(budget=load_budget("laptop"), data=None, metrics_dir=None))
    with pytest.raises(ConfigError, match="--data: this part compares faces"):
        assert study.data
    with pytest.raises(ConfigError, match="--metrics-dir: this part needs the folder"):
        study.metrics("mfr")


def test_smoke_makes_do_without_faces_and_networks(options):
    study = Study(options(data=None, metrics_dir=None))
    assert len(list(study.data.iterdir())) == 20
    assert study.about()["data"] == "faces-of-the-prior"
    assert study.metrics("sr16") == ("psnr", "ssim")
    assert Study(options()).metrics("sr16") == ("psnr", "ssim", "lpips")


def test_the_papers_degradations_are_those_of_its_task(options):
    study = Study(options(budget=load_budget("paper")))
    assert study.plan("mfr", "mfr").degradations == "paper"
    assert study.plan("sr16", "sr16").degradations == "floor"
    assert study.about("mfr")["degradations"] == study.about()["degradations"] == "paper"
    assert "degradations" not in study.about("sr16")


def test_files_of_the_networks_are_those_of_their_folder(networks, tmp_path):
    fields = {"vgg": Path("a/vgg16_caffe.safetensors"), "more": [Path("b/none.safetensors")]}
    assert with_networks_of(fields, networks) == {
        "vgg": networks / "vgg16_caffe.safetensors",
        "more": [Path("b/none.safetensors")],
    }


def saved(path: Path, task: str = "mfr", method: str = "dafi") -> str:
    """A tiny network's file."""
    config = named_config("tiny")
    fields: dict = {"task": task, "fusion": replace(config.fusion, method=method)}
    if task == "sr16":
        fields["degradation_encoder"] = None
    save_model(PaniniNet(replace(config, **fields)), path, provenance={})
    return str(path)


def test_networks_that_are_given_tell_their_task(options, tmp_path):
    mfr, sr16 = (saved(tmp_path / f"{task}.safetensors", task) for task in ("mfr", "sr16"))
    study = Study(options(model=(sr16, mfr)))
    assert study.given == {"mfr": mfr, "sr16": sr16}
    found = study.shipped_network("sr16")
    assert found is not None
    assert found[0].config.task == "sr16"
    laptop = Study(options(budget=load_budget("laptop"), out=tmp_path / "laptop", model=(sr16,)))
    assert [laptop.shipped(task) for task in ("mfr", "sr16")] == ["mobile-mfr", sr16]
    with pytest.raises(ConfigError, match=r"is for task mfr, and so is .*; name one a task"):
        Study(options(model=(mfr, sr16, mfr)))


def test_a_budgets_network_is_for_its_task(options, tmp_path):
    budget = load_budget("smoke")
    networks = {"sr16": saved(tmp_path / "mfr.safetensors")}
    config = budget.config.model_copy(update={"networks": networks})
    with pytest.raises(ConfigError, match="is for task mfr, expected one for sr16"):
        Study(options(budget=replace(budget, config=config))).shipped_network("sr16")


def test_theta_wants_a_network_with_masks(options, tmp_path):
    study = Study(options(model=(saved(tmp_path / "latent.safetensors", method="latent"),)))
    with pytest.raises(ConfigError, match="expected a network of DAFI, found latent; name another"):
        study.masked_network()


def test_first_difference_is_a_dotted_key():
    a, same, other = ({"x": 1, "data": {"groups": [{"count": count}]}} for count in (2, 2, 3))
    assert first_difference(a, same) is None
    assert first_difference(a, other) == "data.groups.0.count"
    assert first_difference(a, a | {"new": 1}) == "new"
    assert first_difference([1], [1, 2], "list") == "list"
