"""Write dlib_identity.npz: what dlib's own network says of the astronaut, as we cut her chip.

    pip install dlib-bin
    pip download --no-deps --no-binary :all: face_recognition_models  # and unpack it
    python tests/golden/dlib_identity.py dlib_face_recognition_resnet_model_v1.dat \
        shape_predictor_5_face_landmarks.dat

`chip` is ours, `descriptor` is dlib's of it, and `own` is dlib's all the way: its detector, its
landmarks, its chip.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dlib
import numpy as np

from panini.faces.align import align
from panini.faces.detect import FaceDetector
from panini.features.identity import ffhq_to_chip
from panini.images import read_rgb, to_tensor, to_uint8

ROOT = Path(__file__).parents[2]


def main(network: str, landmarks: str) -> None:
    photo = read_rgb(ROOT / "examples" / "astronaut.png")
    (face,) = FaceDetector().detect(photo)
    aligned, _ = align(photo, face.landmarks, 256)
    (chip,) = to_uint8(ffhq_to_chip(to_tensor(aligned)))
    model = dlib.face_recognition_model_v1(network)
    (box,) = dlib.get_frontal_face_detector()(photo)
    shape = dlib.shape_predictor(landmarks)(photo, box)
    np.savez_compressed(
        Path(__file__).with_suffix(".npz"),
        chip=chip,
        descriptor=np.array(model.compute_face_descriptor(np.ascontiguousarray(chip))),
        own=np.array(model.compute_face_descriptor(photo, shape)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
