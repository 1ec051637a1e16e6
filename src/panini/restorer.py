"""Photo in, photo out: find faces, align, restore, paste back."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from panini.checkpoints import load_model
from panini.errors import ConfigError, ImageError
from panini.faces.align import TEMPLATE, Matrix, align, rescale, warp
from panini.faces.detect import Face, FaceDetector
from panini.faces.paste import paste_into
from panini.images import (
    MAX_PIXELS,
    ImageSource,
    Metadata,
    RgbImage,
    load_photo,
    to_tensor,
    to_uint8,
    write_rgb,
)
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet
from panini.runtime import keep_memory, resolve_device

UPSCALES = (1, 2, 4)
"""Factors by which the rest of the photo can be enlarged."""

PNG_KEY = "panini:faces"
"""Keyword of the PNG text chunk that tells what was invented, as JSON: box and θ of each face."""

_BATCH = 4  # Faces per forward.


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredFace:
    """One face of a photo, before and after."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in px of the photo that was given."""
    landmarks: NDArray[np.float32]
    """(5, 2) px of the photo that was given: eye, eye, nose, mouth corner, mouth corner."""
    theta: float
    """θ of Eq. 11, the prior's mean share at the finest fused level: the higher, the more of the
    face was invented."""
    lq: Image.Image
    """The aligned face as the network got it."""
    restored: Image.Image
    """The aligned face as the network drew it."""
    matrix: Matrix
    """(2, 3): from the photo that was given to `restored`, see `panini.faces.align`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Restoration:
    """A restored photo."""

    image: Image.Image
    """The whole photo, RGB; it carries the colour profile of the one that was given."""
    faces: list[RestoredFace]
    """Its faces, the largest first; empty when none was found."""
    metadata: Metadata = field(default_factory=Metadata)
    """Profile and EXIF of the photo that was given; the orientation is in the pixels."""

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the photo with its metadata, whole or not at all.

        A PNG also tells, in its text chunk "panini:faces", where faces were drawn anew and θ.

        Raises:
            ImageError: The file exists and `overwrite` is false, or it cannot be written.
        """
        faces = [
            {"box": [round(edge, 1) for edge in face.box], "theta": round(face.theta, 4)}
            for face in self.faces
        ]
        write_rgb(
            path,
            np.asarray(self.image),
            overwrite=overwrite,
            pnginfo={PNG_KEY: json.dumps(faces)},
            metadata=self.metadata,
        )


class Restorer:
    """Restores the faces of photos.

        >>> restorer = Restorer.from_pretrained("mobile-mfr")
        >>> restorer.restore("old_photo.jpg").save("restored.png")

    Not for several threads at once: the detector holds state.

    Args:
        model: A trained network; it is moved to the device, and set to eval mode.
        device: "auto" (the first of cuda, mps, cpu that is there), or one of them.

    Raises:
        ConfigError: No such device here.
    """

    def __init__(self, model: PaniniNet, device: str = "auto") -> None:
        keep_memory()
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str] = "mobile-mfr", device: str = "auto"
    ) -> Restorer:
        """Load a shipped model by its name, or a .safetensors file of ours.

        Raises:
            CheckpointError: Unknown name; missing, damaged or foreign file.
            ConfigError: No such device here.
        """
        device = resolve_device(device)
        keep_memory()
        return cls(load_model(name_or_path), device)

    @cached_property
    def detector(self) -> FaceDetector:
        """Finds the faces; loaded when first used, for aligned crops need none."""
        return FaceDetector()

    def restore(
        self,
        image: ImageSource,
        *,
        upscale: int = 1,
        prior_bias: float = 0.0,
        min_face: float = 24.0,
    ) -> Restoration:
        """Restore every face of a photo, and leave the rest as it is.

        Args:
            image: Path, PIL image, or uint8 (H, W, 3) RGB array.
            upscale: 1, 2 or 4: enlarges the rest of the photo (Lanczos).
            prior_bias: Above 0 trusts the face generator more, below 0 the photo: added to the
                logits of the fusion masks.
            min_face: Least largest side of a face, px.

        Returns:
            The photo, and its faces; without any, the photo is as it was (but enlarged).

        Raises:
            ImageError: The image cannot be read, or would be too large.
            ConfigError: A bad `upscale`, `prior_bias` or `min_face`.
        """
        _check_options(upscale, prior_bias, min_face)
        photo, metadata = load_photo(image)
        result = _enlarge(photo, upscale)
        found = self.detector.detect(photo, min_face=min_face)
        faces: list[RestoredFace] = []
        for start in range(0, len(found), _BATCH):
            faces += self._restore_batch(photo, found[start : start + _BATCH], prior_bias)
        for face in faces:
            paste_into(result, np.asarray(face.restored), rescale(face.matrix, source=upscale))
        return Restoration(image=_with_profile(result, metadata), faces=faces, metadata=metadata)

    def restore_aligned(self, image: ImageSource, *, prior_bias: float = 0.0) -> Restoration:
        """Restore a face that is aligned to the FFHQ template already.

        Args:
            image: Square crop of any size: path, PIL image, or uint8 (H, W, 3) RGB array.
            prior_bias: As in `restore`.

        Returns:
            The face at the network's output size, as `image` and as the one entry of `faces`.

        Raises:
            ImageError: The image cannot be read, or is not square.
            ConfigError: A bad `prior_bias`.
        """
        _check_options(1, prior_bias, 24.0)
        crop, metadata = load_photo(image)
        height, width = crop.shape[:2]
        if height != width:
            name = f"{image}: " if isinstance(image, str | os.PathLike) else ""
            raise ImageError(
                f"{name}expected a square aligned face, got {width}x{height} px; "
                "a whole photo is restored without --aligned"
            )
        size = self.model.config.in_size
        identity = np.eye(2, 3)
        lq = warp(crop, rescale(identity, target=size / width), (size, size))
        restored, thetas = self._forward([lq], prior_bias)
        face = RestoredFace(
            box=(0.0, 0.0, float(width), float(height)),
            landmarks=(TEMPLATE * width).astype(np.float32),
            theta=thetas[0],
            lq=Image.fromarray(lq),
            restored=Image.fromarray(restored[0]),
            matrix=rescale(identity, target=restored[0].shape[0] / width),
        )
        image_out = _with_profile(restored[0], metadata)
        return Restoration(image=image_out, faces=[face], metadata=metadata)

    def _restore_batch(
        self, photo: RgbImage, found: list[Face], prior_bias: float
    ) -> list[RestoredFace]:
        size = self.model.config.in_size
        crops = [align(photo, face.landmarks, size) for face in found]
        restored, thetas = self._forward([crop for crop, _ in crops], prior_bias)
        return [
            RestoredFace(
                box=face.box,
                landmarks=face.landmarks,
                theta=theta,
                lq=Image.fromarray(crop),
                restored=Image.fromarray(drawn),
                matrix=rescale(matrix, target=drawn.shape[0] / size),
            )
            for face, (crop, matrix), drawn, theta in zip(
                found, crops, restored, thetas, strict=True
            )
        ]

    def _forward(self, crops: list[RgbImage], bias: float) -> tuple[list[RgbImage], list[float]]:
        """Restored faces and θ of aligned ones."""
        control = FusionControl(bias=bias) if bias else None
        lq = torch.cat([to_tensor(crop) for crop in crops]).to(self.device)
        with torch.inference_mode():
            output = self.model(lq, control=control)
        return to_uint8(output.image), output.theta.float().tolist()


def _check_options(upscale: int, prior_bias: float, min_face: float) -> None:
    if upscale not in UPSCALES:
        raise ConfigError(f"upscale: expected 1, 2 or 4, got {upscale}")
    if not math.isfinite(prior_bias):
        raise ConfigError(f"prior_bias: expected a finite number, got {prior_bias}")
    if not (math.isfinite(min_face) and min_face >= 12):
        raise ConfigError(f"min_face: expected at least 12 px, got {min_face}")


def _enlarge(photo: RgbImage, upscale: int) -> RgbImage:
    """A copy, `upscale` times as wide and as high."""
    if upscale == 1:
        return photo.copy()
    height, width = photo.shape[0] * upscale, photo.shape[1] * upscale
    if height * width > MAX_PIXELS:
        limit = f"{MAX_PIXELS / 1e6:.0f} megapixels"
        raise ImageError(f"upscale {upscale}: {width}x{height} px is more than {limit}")
    larger = Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(larger)


def _with_profile(photo: RgbImage, metadata: Metadata) -> Image.Image:
    image = Image.fromarray(photo)
    if metadata.icc_profile:
        image.info["icc_profile"] = metadata.icc_profile
    return image
