"""Two networks behind one restorer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from panini import drawing
from panini.checkpoints import save_model
from panini.degradations import bilinear_antialias
from panini.drawing import SMALL_FACE, Drawer, Drawers, SmallFaces, share_prior
from panini.errors import CheckpointError, ConfigError
from panini.faces.align import TEMPLATE
from panini.faces.detect import Face
from panini.models.panini_net import PaniniNet, named_config
from panini.restorer import Restorer


def tiny_sr16(prior: PaniniNet | None = None) -> PaniniNet:
    tiny = named_config("tiny")
    encoder = replace(tiny.encoder, in_size=64, unshuffle=1)
    net = PaniniNet(replace(tiny, task="sr16", encoder=encoder, degradation_encoder=None))
    if prior is not None:
        net.prior.load_state_dict(prior.prior.state_dict())
    return net


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network for large faces, and one for small ones, around the same prior."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    large = PaniniNet.named("tiny")
    for name, net in (("large", large), ("small", tiny_sr16(large))):
        save_model(net, folder / f"{name}.safetensors", provenance={})
    return folder / "large.safetensors", folder / "small.safetensors"


def face_at(left: float, side: float) -> Face:
    landmarks = (TEMPLATE * side + (left, 0)).astype(np.float32)
    return Face(box=(left, 0.0, left + side, 0.8 * side), landmarks=landmarks, score=1.0)


class Recorded:
    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def detect(self, photo: np.ndarray, *, min_face: float = 24.0) -> list[Face]:
        return self.faces


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(40, 216, (16, 32, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


def knowing(restorer: Restorer, *faces: Face) -> Restorer:
    """The restorer, knowing where the faces are."""
    restorer.detector = Recorded(*faces)  # pyright: ignore[reportAttributeAccessIssue]
    return restorer


def test_both_networks_in_one_photo(files: tuple[Path, Path], photo: np.ndarray) -> None:
    faces = (face_at(0, 120), face_at(130, SMALL_FACE), face_at(230, 90))
    restorer = knowing(Restorer.from_pair(*files, device="cpu"), *faces)
    result = restorer.restore(photo)
    names = ["large.safetensors", "large.safetensors", "small.safetensors"]
    assert [face.model for face in result.faces] == names
    assert [face.theta_fixed for face in result.faces] == [False, False, True]
    assert [face.lq.width for face in result.faces] == [128, 128, 64]
    assert result.options.model == restorer.name == "large.safetensors, small.safetensors"
    assert result.mark.model == restorer.name
    assert result.mark.settings["models"] == names
    alone = knowing(Restorer.from_pretrained(files[1], device="cpu"), faces[2])
    (expected,) = alone.restore(photo).faces
    found = result.faces[2]
    assert np.array_equal(np.asarray(found.restored), np.asarray(expected.restored))
    assert restorer.model_of(result.faces[0]) is restorer.model
    assert restorer.model_of(found).config.task == "sr16"
    again = restorer.draw_again(found, prior_bias=2.0)
    assert again.model == "small.safetensors"
    assert again.theta > found.theta + 0.2


def test_the_second_network_is_loaded_when_it_is_needed(
    files: tuple[Path, Path], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = drawing.load_model
    monkeypatch.setattr(
        "panini.drawing.load_model", lambda path: (loaded.append(Path(path).name), load(path))[1]
    )
    restorer = knowing(Restorer.from_pair(*files, device="cpu"), face_at(0, 120))
    restorer.restore(photo)
    assert loaded == ["large.safetensors"]
    for side in (90, 40):
        knowing(restorer, face_at(0, side)).with_consistency().restore(photo)
    assert loaded == ["large.safetensors", "small.safetensors"]


def test_an_equal_prior_is_shared(files: tuple[Path, Path]) -> None:
    restorer = Restorer.from_pair(*files, device="cpu")
    small = restorer.drawers.of(face_at(0, 50)).model
    assert small.prior is restorer.model.prior
    torch.manual_seed(1)
    other = tiny_sr16()
    before = other.prior
    assert not share_prior(other, restorer.model)
    assert other.prior is before


def test_consistency_changes_the_faces_of_super_resolution(
    files: tuple[Path, Path], photo: np.ndarray
) -> None:
    plain = knowing(Restorer.from_pair(*files, device="cpu"), face_at(0, 120), face_at(130, 90))
    consistent = plain.with_consistency()
    assert consistent.with_consistency() is consistent
    before, after = (each.restore(photo) for each in (plain, consistent))
    assert (before.options.consistent, after.options.consistent) == (False, True)
    pictures = [[np.asarray(face.restored) for face in each.faces] for each in (before, after)]
    assert np.array_equal(pictures[0][0], pictures[1][0])
    lq = np.asarray(after.faces[1].lq).astype(int)
    errors = [np.abs(bilinear_antialias(each[1], 64) - lq).mean() for each in pictures]
    assert errors[1] < 0.3 * errors[0]
    with pytest.raises(ConfigError, match=r"consistent: .* large\.safetensors is for task mfr"):
        Restorer.from_pretrained(files[0], device="cpu").with_consistency()


def test_auto(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panini.drawing.AUTO_LARGE", str(files[0]))
    monkeypatch.setattr("panini.drawing.AUTO_SMALL", str(files[1]))
    restorer = Restorer.from_pretrained("auto", device="cpu")
    assert restorer.name == "auto"
    crop = np.zeros((64, 64, 3), np.uint8)
    assert restorer.restore_aligned(crop).faces[0].model == "small.safetensors"
    crop = np.zeros((128, 128, 3), np.uint8)
    assert restorer.restore_aligned(crop).faces[0].model == "large.safetensors"
    monkeypatch.setattr("panini.drawing.AUTO_SMALL", "mobile-none")
    with pytest.raises(CheckpointError, match="mobile-none: unknown model"):
        Restorer.from_pretrained("auto", device="cpu")


def test_a_missing_file_is_told_before_the_work(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: does not exist"):
        Restorer.from_pair(files[0], tmp_path / "none.safetensors", device="cpu")
    with pytest.raises(CheckpointError, match="no-such: unknown model"):
        Restorer.from_pair(files[0], "no-such", device="cpu")


def test_one_network_draws_faces_of_every_size() -> None:
    drawer = Drawer(PaniniNet.named("tiny"), "cpu", "one")
    assert Drawers(drawer).of(face_at(0, 20)) is drawer

    def unused() -> PaniniNet:
        raise AssertionError("is not needed")

    two = Drawers(drawer, SmallFaces(name="two", load=unused))
    assert two.of(face_at(0, SMALL_FACE)) is drawer
