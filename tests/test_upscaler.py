"""Small faces through a network for super-resolution, from Python."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from panini.degradations import bilinear_antialias
from panini.errors import ConfigError, ImageError, NoFaceError
from panini.faces.align import TEMPLATE
from panini.faces.detect import Face
from panini.images import to_tensor
from panini.metrics.psnr import psnr
from panini.models.panini_net import PaniniNet, named_config
from panini.photos import load_photo
from panini.restorer import Restorer
from panini.upscaler import upscale


def tiny_sr16():
    tiny = named_config("tiny")
    encoder = replace(tiny.encoder, in_size=64, unshuffle=1)
    return replace(tiny, task="sr16", encoder=encoder, degradation_encoder=None)


class Filling:
    """Takes every photo for a face that fills two thirds of it, but those that are flat."""

    def detect(self, photo, *, min_face):
        side = 2 / 3 * photo.shape[0]
        if not np.ptp(photo, axis=(0, 1)).any() or side < min_face:
            return []
        box = (0.0, 0.0, side, side)
        return [Face(box=box, landmarks=(TEMPLATE * side).astype(np.float32), score=1.0)]


@pytest.fixture(scope="module")
def restorer():
    torch.manual_seed(0)
    made = Restorer(PaniniNet(tiny_sr16()), "cpu", name="tiny-sr16")
    made.detector = Filling()  # pyright: ignore[reportAttributeAccessIssue]
    return made


@pytest.fixture(scope="module")
def face():
    """Smooth colours, 64 px."""
    coarse = np.random.default_rng(0).integers(40, 216, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def faithfulness(result, lq):
    again = bilinear_antialias(np.asarray(result.image), 64)
    return psnr(to_tensor(again), to_tensor(lq)).item()


def test_a_face_of_the_networks_size_goes_in_as_it_is(restorer, face, caplog):
    result = upscale(restorer, face)
    assert result.photo.size == (128, 128)
    np.testing.assert_array_equal(np.asarray(result.faces[0].lq), face)
    np.testing.assert_array_equal(result.photo.rgb, restorer.restore_aligned(face).photo.rgb)
    assert caplog.records == []


@pytest.mark.parametrize("side", [200, 48])
def test_another_side_is_resized_and_said(restorer, face, side, tmp_path, caplog):
    other = np.asarray(Image.fromarray(face).resize((side, side)))
    path = tmp_path / "face.png"
    Image.fromarray(other).save(path)
    with caplog.at_level(logging.WARNING):
        result = upscale(restorer, path)
    assert caplog.messages == [f"{path}: resized from {side} to 64 px, which the network takes"]
    lq = np.asarray(result.faces[0].lq)
    np.testing.assert_array_equal(lq, bilinear_antialias(other, 64))


@pytest.mark.parametrize("side", [200, 48])
def test_restoring_an_aligned_face_does_the_same(restorer, face, side, tmp_path, caplog):
    path = tmp_path / "face.png"
    Image.fromarray(face).resize((side, side)).save(path)
    upscaled = upscale(restorer, path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        restored = restorer.restore_aligned(path)
    assert caplog.messages == [f"{path}: resized from {side} to 64 px, which the network takes"]
    np.testing.assert_array_equal(restored.photo.rgb, upscaled.photo.rgb)
    np.testing.assert_array_equal(restored.faces[0].lq, upscaled.faces[0].lq)
    caplog.clear()
    restorer.restore_aligned(load_photo(path), name="mine")
    assert caplog.messages == [f"mine: resized from {side} to 64 px, which the network takes"]
    other = Restorer(PaniniNet.named("tiny"), "cpu", name="tiny")
    caplog.clear()
    other.restore_aligned(path)
    assert caplog.messages == []


def test_what_is_no_aligned_face_is_refused(restorer, face, tmp_path):
    path = tmp_path / "wide.png"
    Image.fromarray(face[:40]).save(path)
    with pytest.raises(ImageError, match=r"wide\.png: expected a square aligned face, got 64x40"):
        upscale(restorer, path)
    other = Restorer(PaniniNet.named("tiny"), "cpu", name="tiny")
    with pytest.raises(
        ConfigError, match="tiny: is for task mfr, upscaling takes a network for sr"
    ):
        upscale(other, face)


def test_what_shows_no_face_is_refused(restorer, tmp_path, caplog):
    path = tmp_path / "wall.png"
    Image.new("RGB", (128, 128), (90, 80, 70)).save(path)
    with pytest.raises(NoFaceError, match=r"wall\.png: expected an aligned face, found none") as no:
        upscale(restorer, path)
    # The model that each command takes by itself would be the wrong one.
    assert "panini restore --model auto, and" in str(no.value)
    assert "panini restore --aligned --model mobile-sr16 draws" in str(no.value)
    assert caplog.records == []


def test_theta_is_the_same_for_every_face(restorer, face):
    faces = [upscale(restorer, picture).faces[0] for picture in (face, face[::-1].copy())]
    assert faces[0].theta == pytest.approx(faces[1].theta, abs=1e-6)
    assert [each.theta_fixed for each in faces] == [True, True]


def test_a_consistent_face_agrees_with_its_input(restorer, face):
    plain, consistent = upscale(restorer, face), upscale(restorer, face, consistent=True)
    assert faithfulness(plain, face) < 30
    assert faithfulness(consistent, face) > 35
    assert consistent.faces[0].theta == plain.faces[0].theta
    assert [r.mark.settings["consistent"] for r in (plain, consistent)] == [False, True]
    np.testing.assert_array_equal(consistent.photo.rgb, np.asarray(consistent.faces[0].restored))
