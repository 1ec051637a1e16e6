"""Rows of others' official weights, with a stand-in for spandrel."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from panini.errors import ConfigError, DataError, MissingExtraError
from panini.reproduce import reproduce
from panini.reproduce.fusion import table_needs
from panini.reproduce.inputs import check_needs
from panini.reproduce.others import official_rows
from panini.reproduce.result import Row
from panini.reproduce.study import Study


class Darker:
    """A restorer that makes faces darker, behind spandrel's interface."""

    architecture = SimpleNamespace(id="Standin", name="Standin")
    input_channels = output_channels = 3

    def eval(self) -> Darker:
        return self

    def __call__(self, image: Tensor) -> Tensor:
        return 0.5 * image


class UnsupportedModelError(Exception):
    pass


class ModelLoader:
    def __init__(self, device: torch.device) -> None:
        del device

    def load_from_state_dict(self, state: dict[str, Tensor]) -> Darker:
        if "darker" not in state:
            raise UnsupportedModelError
        return Darker()


@pytest.fixture
def models(monkeypatch, tmp_path):
    """A folder with weights that spandrel knows, some that it does not, and something else."""
    module = ModuleType("spandrel")
    module.UnsupportedModelError = UnsupportedModelError
    module.ModelLoader = ModelLoader
    module.ImageModelDescriptor = Darker
    monkeypatch.setitem(sys.modules, "spandrel", module)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    folder = tmp_path / "models"
    folder.mkdir()
    torch.save({"darker": torch.ones(1)}, folder / "GFPGANv1.4.pth")
    torch.save({"other": torch.ones(1)}, folder / "GPEN-512.pth")
    (folder / "README.txt").write_text("no weights")
    return folder


def test_files_are_rows_and_what_is_not_there_says_why(options, models):
    found, absent = official_rows(Study(options(models=models)), "mfr")
    ((row, system),) = found
    assert (row.label, row.system, row.source) == (
        *("GFPGANv1.4", "GFPGANv1.4", "official weights"),
    )
    assert system(torch.ones(1, 3, 512, 512)).image.mean().item() == pytest.approx(0)
    assert set(absent) == {"GPEN", "GPEN-512.pth"}
    assert "is no network that spandrel knows" in absent["GPEN-512.pth"]


def test_without_files_all_are_absent(options, models):
    assert official_rows(Study(options()), "mfr")[1].keys() == {"GFP-GAN", "GPEN"}
    found, absent = official_rows(Study(options(models=models)), "sr16")
    assert found == []
    assert set(absent) == {"GLEAN", "pSp", "GFPGANv1.4.pth", "GPEN-512.pth"}
    assert "not read for 16× super-resolution" in absent["GFPGANv1.4.pth"]


def test_files_are_opened_before_anything_is_trained(options, models, tmp_path, caplog):
    study = Study(options(models=models, only=("official",)))
    check_needs(study, table_needs(study, "table1"))
    (record,) = caplog.records
    assert "GPEN-512.pth: is no network that spandrel knows" in record.message
    assert record.message.endswith("it will have no row")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    study = Study(options(models=nothing))
    with pytest.raises(DataError, match=r"nothing: expected official weights \(.*\), found none"):
        check_needs(study, table_needs(study, "table1"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GFPGANv1.4.pt", r"4\.pth: would have the row GFPGANv1\.4, as GFPGANv1\.4\.pt does; ren"),
        *(
            (
                f"{row}.pth",
                rf"{row}\.pth: would have the row {row}, which the study has itself; ren",
            )
            for row in ("dafi", "shipped", "pulse", "dre", "r1", "input")
        ),
    ],
)
def test_rows_of_one_name_are_told_before_anything_is_trained(name, message, options, models):
    shutil.copy(models / "GFPGANv1.4.pth", models / name)
    study = Study(options(models=models))
    with pytest.raises(ConfigError, match=message):
        check_needs(study, table_needs(study, "table1"))


def test_a_file_without_a_row_may_have_any_name(options, models):
    shutil.copy(models / "GPEN-512.pth", models / "dafi.pth")
    study = Study(options(models=models, only=("official",)))
    check_needs(study, table_needs(study, "table1"))


def test_without_spandrel_nothing_is_trained(options, models, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    study = Study(options(models=models))
    with pytest.raises(MissingExtraError, match=r"GFPGANv1\.4\.pth: reading .* the extra peers"):
        check_needs(study, table_needs(study, "table1"))


@pytest.mark.parametrize(("name", "only"), [("table2", ()), ("table3", ()), ("table1", ("dafi",))])
def test_a_folder_that_nothing_reads_is_told(name, only, options, models, caplog):
    study = Study(options(models=models, only=only))
    with caplog.at_level(logging.WARNING, "panini.reproduce"):
        check_needs(study, table_needs(study, name))
    assert "models: is not read; others' weights have rows in table 1 alone" in caplog.text


def test_latent_optimisation_on_fewer_faces_has_no_distance_of_sets(options, models, monkeypatch):
    sets = {"fid_vgg16_caffe": 1.0}
    row = Row(label="PULSE", system="pulse", source="no training", faces=1, sets=sets)
    monkeypatch.setattr("panini.reproduce.fusion.pulse_row", lambda *_: row)
    reproduce("table1", options(models=models, only=("official", "pulse")))
    found = json.loads((options().out / "table1.json").read_text())["rows"]
    assert [(row["system"], row["faces"]) for row in found] == [
        *(("input", 2), ("GFPGANv1.4", 2), ("pulse", 1))
    ]
    assert found[-1]["sets"] == {}
    reproduce("table1", options(only=("pulse",)))
    (alone,) = json.loads((options().out / "table1.json").read_text())["rows"]
    assert alone["sets"] == sets


def test_rows_that_were_measured_stay(options, models):
    reproduce("table1", options(models=models, only=("official",)))
    # Asked for by nobody, and not measured yet.
    shutil.copy(models / "GFPGANv1.4.pth", models / "RestoreFormer.pth")
    reproduce("table1", options(models=models, only=("noise",)))
    found = json.loads((options().out / "table1.json").read_text())
    systems = [row["system"] for row in found["rows"]]
    assert systems == ["input", "noise", "GFPGANv1.4"]


def test_the_table_has_their_rows_beside_the_input(options, models):
    reproduce("table1", options(models=models, only=("official",)))
    found = json.loads((options().out / "table1.json").read_text())
    assert [row["system"] for row in found["rows"]] == ["input", "GFPGANv1.4"]
    degraded, darker = (row["scores"]["psnr"]["mean"] for row in found["rows"])
    assert darker < degraded
    assert "GPEN-512.pth" in found["absent"]
