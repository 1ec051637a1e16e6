"""Rows of others' official weights, with a stand-in for spandrel."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from panini.reproduce import reproduce
from panini.reproduce.others import official_rows
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
    assert set(absent) == {"GLEAN", "pSp"}


def test_the_table_has_their_rows_beside_the_input(options, models):
    reproduce("table1", options(models=models, only=("official",)))
    found = json.loads((options().out / "table1.json").read_text())
    assert [row["system"] for row in found["rows"]] == ["input", "GFPGANv1.4"]
    degraded, darker = (row["scores"]["psnr"]["mean"] for row in found["rows"])
    assert darker < degraded
    assert "GPEN-512.pth" in found["absent"]
