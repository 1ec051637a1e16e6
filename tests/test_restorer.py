"""Photos through the Restorer, with a network that gives back what it gets, and the tiny one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor, nn

from panini.errors import CheckpointError, ConfigError, ImageError
from panini.faces.align import TEMPLATE, apply
from panini.images import MAX_PIXELS
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet, PaniniOutput
from panini.restorer import PNG_KEY, Restorer
from panini.runtime import keep_memory, resolve_device


@dataclass(frozen=True)
class Sizes:
    in_size: int
    out_size: int


class Echo(nn.Module):
    """Enlarges the face it gets, in a given tint; θ is the face's number in its batch."""

    def __init__(self, tint: float = 0.0) -> None:
        super().__init__()
        self.config = Sizes(128, 256)
        self.tint = tint
        self.batches: list[int] = []
        self.controls: list[FusionControl | None] = []

    def forward(self, lq: Tensor, control: FusionControl | None = None) -> PaniniOutput:
        assert lq.shape[1:] == (3, 128, 128)
        assert -1 <= lq.min() < lq.max() <= 1
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(lq))
        self.controls.append(control)
        image = nn.functional.interpolate(lq, scale_factor=2, mode="bilinear") + self.tint
        theta = torch.arange(len(lq)) / 10
        return PaniniOutput(image, {}, theta, torch.zeros(1), torch.zeros(1))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def crowd(astronaut: np.ndarray) -> np.ndarray:
    """Six heads in two rows, 480 x 320 px."""
    head = Image.fromarray(astronaut[:256, 97:353]).resize((160, 160), Image.Resampling.BOX)
    return np.tile(np.asarray(head), (2, 3, 1))


def test_only_the_face_changes(astronaut: np.ndarray) -> None:
    before = astronaut.copy()
    result = Restorer(Echo(tint=0.5), device="cpu").restore(astronaut)
    assert np.array_equal(astronaut, before)
    assert result.image.size == (512, 512)
    (face,) = result.faces
    change = np.asarray(result.image).astype(int) - astronaut
    left, top, right, bottom = (round(edge) for edge in face.box)
    skin = change[(top + bottom) // 2 :, left:right][:20]
    assert 50 < skin.mean() < 70  # the tint is 64 levels
    margin = 60
    outside = np.ones((512, 512), bool)
    outside[top - margin : bottom + margin, left - margin : right + margin] = False
    assert not change[outside].any()


def test_echo_changes_little(astronaut: np.ndarray) -> None:
    result = Restorer(Echo(), device="cpu").restore(astronaut)
    change = np.abs(np.asarray(result.image).astype(int) - astronaut)
    assert 0 < change[60:180, 180:270].mean() < 4


def test_faces_tell_how_they_were_made(astronaut: np.ndarray) -> None:
    (face,) = Restorer(Echo(), device="cpu").restore(Image.fromarray(astronaut)).faces
    assert face.lq.size == (128, 128)
    assert face.restored.size == (256, 256)
    assert face.theta == 0
    found = apply(face.matrix, face.landmarks) / 256
    assert np.abs(found - TEMPLATE).max() < 0.06
    assert face.box[0] < face.landmarks[:, 0].min() < face.landmarks[:, 0].max() < face.box[2]


def test_batches_of_four(crowd: np.ndarray) -> None:
    net = Echo()
    result = Restorer(net, device="cpu").restore(crowd)
    assert net.batches == [4, 2]
    assert net.controls == [None, None]
    assert [round(face.theta, 1) for face in result.faces] == [0, 0.1, 0.2, 0.3, 0, 0.1]


def test_upscale(astronaut: np.ndarray) -> None:
    restorer = Restorer(Echo(tint=0.5), device="cpu")
    one, two = (restorer.restore(astronaut, upscale=factor) for factor in (1, 2))
    assert two.image.size == (1024, 1024)
    assert two.faces[0].box == one.faces[0].box
    lanczos = Image.fromarray(astronaut).resize((1024, 1024), Image.Resampling.LANCZOS)
    change = np.asarray(two.image).astype(int) - np.asarray(lanczos)
    assert not change[600:].any()
    y, x = np.nonzero(np.abs(change).max(axis=2) > 30)
    centre = (
        apply(
            np.linalg.inv(np.vstack([one.faces[0].matrix, (0, 0, 1)]))[:2],
            np.array([[128.0, 128.0]]),
        )
        * 2
    )[0]
    np.testing.assert_allclose((x.mean(), y.mean()), centre, atol=6)


def test_no_face_leaves_the_photo(tmp_path: Path) -> None:
    photo = np.full((90, 120, 3), 77, np.uint8)
    net = Echo()
    result = Restorer(net, device="cpu").restore(photo)
    assert result.faces == []
    assert net.batches == []
    assert np.array_equal(np.asarray(result.image), photo)


@pytest.mark.parametrize("side", [40, 128, 500])
def test_aligned(side: int, astronaut: np.ndarray) -> None:
    net = Echo()
    crop = Image.fromarray(astronaut).resize((side, side), Image.Resampling.BOX)
    result = Restorer(net, device="cpu").restore_aligned(crop, prior_bias=1.5)
    assert result.image.size == (256, 256)
    assert net.controls == [FusionControl(bias=1.5)]
    (face,) = result.faces
    assert face.box == (0, 0, side, side)
    np.testing.assert_allclose(apply(face.matrix, face.landmarks), TEMPLATE * 256, rtol=1e-5)
    # Enlarged as Eq. 10 does, shrunk by the mean; nothing dark at the borders.
    method = cv2.INTER_LINEAR if side <= 128 else cv2.INTER_AREA
    expected = cv2.resize(np.asarray(crop), (128, 128), interpolation=method)
    change = np.abs(np.asarray(face.lq).astype(int) - expected)
    assert change.mean() < 4
    assert change[0].mean() < 6


def test_saved_with_metadata_and_a_record(astronaut: np.ndarray, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(astronaut).save(tmp_path / "in.png", icc_profile=profile)
    result = Restorer(Echo(), device="cpu").restore(tmp_path / "in.png")
    assert result.image.info["icc_profile"] == profile
    result.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.info["icc_profile"] == profile
        (record,) = json.loads(saved.text[PNG_KEY])
        assert record["theta"] == 0
        np.testing.assert_allclose(record["box"], result.faces[0].box, atol=0.1)
        assert np.array_equal(np.asarray(saved), np.asarray(result.image))
    with pytest.raises(ImageError, match="exists already"):
        result.save(tmp_path / "out.png")


def test_tiny_network(astronaut: np.ndarray) -> None:
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    restorer = Restorer(net, device="cpu")
    (face,) = restorer.restore(astronaut).faces
    assert 0 < face.theta < 1
    assert face.restored.size == (net.config.out_size,) * 2
    (trusting,) = restorer.restore(astronaut, prior_bias=4.0).faces
    assert trusting.theta > face.theta + 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"upscale": 3}, "upscale: expected 1, 2 or 4, got 3"),
        ({"prior_bias": float("nan")}, "prior_bias: expected a finite number, got nan"),
        ({"min_face": 3}, "min_face: expected at least 12 px, got 3"),
    ],
)
def test_bad_options(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Restorer(Echo(), device="cpu").restore(np.zeros((9, 9, 3), np.uint8), **options)


def test_bad_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer(Echo(), device="cpu")
    with pytest.raises(ImageError, match=r"missing\.png: does not exist"):
        restorer.restore(tmp_path / "missing.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: expected a square aligned face, got 30x40 px"):
        restorer.restore_aligned(tmp_path / "a.png")
    assert MAX_PIXELS > 1000
    monkeypatch.setattr("panini.restorer.MAX_PIXELS", 10_000)
    with pytest.raises(ImageError, match="upscale 4: 120x160 px is more than"):
        restorer.restore(tmp_path / "a.png", upscale=4)


def test_unknown_model_and_device() -> None:
    with pytest.raises(CheckpointError, match="no-such-model: unknown model; known:"):
        Restorer.from_pretrained("no-such-model", device="cpu")
    with pytest.raises(ConfigError, match="device tpu: not available here; use auto or"):
        Restorer.from_pretrained("no-such-model", device="tpu")


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in {"cpu", "cuda", "mps"}
    for name in ("cuda:99", "cpu:x", ""):
        with pytest.raises(ConfigError):
            resolve_device(name)


def test_memory_is_kept_or_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep_memory() in {True, False}
    monkeypatch.setattr("platform.system", lambda: "Windows")
    keep_memory.cache_clear()
    assert keep_memory() is False
    keep_memory.cache_clear()
