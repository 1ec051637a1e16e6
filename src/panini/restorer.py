"""Photo in, photo out: find faces, align, restore, paste back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from panini.checkpoints import load_model
from panini.errors import ConfigError, ImageError
from panini.faces.align import TEMPLATE, Matrix, align, rescale, warp
from panini.faces.detect import Face, FaceDetector
from panini.faces.paste import PasteOptions, paste_into
from panini.faces.select import choose, parse_choice
from panini.images import ImageSource, RgbImage, to_tensor, to_uint8
from panini.models.fusion import FusionControl, PerLevel
from panini.models.panini_net import PaniniNet
from panini.photos import Mark, Photo, WriteOptions, enlarge, load_photo, repaint, write_photo
from panini.runtime import keep_memory, resolve_device

UPSCALES = (1, 2, 4)
"""Factors by which the rest of the photo can be enlarged."""

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


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What was asked for."""

    model: str
    """Name of the model, or of its file."""
    aligned: bool = False
    """The photo is one aligned face."""
    upscale: int = 1
    """Factor by which the photo was enlarged."""
    prior_bias: PerLevel = 0.0
    """Added to the logits of the fusion masks."""
    min_face: float = 24.0
    """Least largest side of a face, px."""
    faces: str | int = "all"
    """Which faces, see `panini.faces.select`."""
    keep_colour: bool = False
    """Faces of a grey photo keep the colours that the network gives them."""
    consistent: bool = False
    """The face was brought to agree with its input, see `panini.upscaler`."""
    paste: PasteOptions = field(default_factory=PasteOptions)
    """How the faces went back."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Restoration:
    """A restored photo."""

    photo: Photo
    """The whole photo, restored, with the depth, alpha and metadata of the one given."""
    source: Photo
    """The photo as it was given."""
    faces: list[RestoredFace]
    """Its restored faces, the largest first; empty when none was found."""
    options: RestoreOptions
    """How they were made."""

    @cached_property
    def image(self) -> Image.Image:
        """The whole photo with 8 bits, in its own mode (L, LA, RGB or RGBA) and colour profile."""
        return self.photo.to_image()

    @property
    def settings(self) -> dict[str, Any]:
        """`options` in JSON's types."""
        settings = asdict(self.options)
        if isinstance(self.options.prior_bias, Mapping):
            levels = self.options.prior_bias.items()
            settings["prior_bias"] = {str(level): bias for level, bias in levels}
        return settings

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        quality: int | None = None,
        mark: bool = True,
    ) -> None:
        """Write the photo with its metadata, whole or not at all.

        Args:
            path: Its suffix says the format.
            overwrite: Replace a file that is there.
            quality: 1 to 100, for JPEG, WebP, HEIC and AVIF.
            mark: Say in the XMP that an algorithm drew faces of the photo, with the model, θ,
                boxes and settings; a photo without restored faces is not marked.

        Raises:
            ImageError: The file exists and `overwrite` is false, or it cannot be written.
            ConfigError: A bad quality.
        """
        marked = self.mark if mark and self.faces else None
        write_photo(
            path, self.photo, WriteOptions(quality=quality, mark=marked, overwrite=overwrite)
        )

    @property
    def mark(self) -> Mark:
        """What `save` says in the file."""
        boxes = [[round(edge, 1) for edge in face.box] for face in self.faces]
        return Mark(
            model=self.options.model,
            thetas=tuple(face.theta for face in self.faces),
            settings={**self.settings, "boxes": boxes},
        )


class Restorer:
    """Restores the faces of photos.

        >>> restorer = Restorer.from_pretrained("mobile-mfr")
        >>> restorer.restore("old_photo.jpg").save("restored.png")

    Not for several threads at once: the detector holds state.

    Args:
        model: A trained network; it is moved to the device, and set to eval mode.
        device: "auto" (the first of cuda, mps, cpu that is there), or one of them.
        name: Of the model: it is written into the photos.

    Raises:
        ConfigError: No such device here.
    """

    def __init__(self, model: PaniniNet, device: str = "auto", *, name: str = "unnamed") -> None:
        keep_memory()
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.name = name

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str] = "mobile-mfr", device: str = "auto"
    ) -> Restorer:
        """Load a shipped model by its name, or a file of weights.

        Raises:
            CheckpointError: Unknown name; missing, damaged or foreign file.
            ConfigError: No such device here.
        """
        device = resolve_device(device)
        keep_memory()
        path = Path(name_or_path)
        # Where a file lies is nobody's business who gets the photo.
        name = path.name if path.exists() else os.fspath(name_or_path)
        return cls(load_model(name_or_path), device, name=name)

    @cached_property
    def detector(self) -> FaceDetector:
        """Finds the faces; loaded when first used, for aligned crops need none."""
        return FaceDetector()

    def restore(
        self,
        image: ImageSource | Photo,
        *,
        upscale: int = 1,
        prior_bias: PerLevel = 0.0,
        min_face: float = 24.0,
        faces: str | int = "all",
        keep_colour: bool = False,
        paste: PasteOptions | None = None,
    ) -> Restoration:
        """Restore faces of a photo, and leave the rest as it is.

        Args:
            image: Path, PIL image, uint8 (H, W, 3) RGB array, or what `load_photo` gave.
            upscale: 1, 2 or 4: enlarges the rest of the photo (Lanczos).
            prior_bias: Above 0 trusts the face generator more, below 0 the photo: added to the
                logits of the fusion masks, overall or by level (px).
            min_face: Least largest side of a face, px.
            faces: "all", "largest", "center", or the number of a face, 1 for the largest.
            keep_colour: Give back a grey photo in colour, as the network drew its faces.
            paste: How faces go back; None is `PasteOptions()`.

        Returns:
            The photo, and its faces; without any, the photo is as it was (but enlarged).

        Raises:
            ImageError: The image cannot be read, or would be too large.
            ConfigError: A bad option.
        """
        options = RestoreOptions(
            model=self.name,
            upscale=upscale,
            prior_bias=prior_bias,
            min_face=min_face,
            faces=parse_choice(faces),
            keep_colour=keep_colour,
            paste=paste or PasteOptions(),
        )
        self._check(options)
        photo = _load(image)
        found = choose(
            self.detector.detect(photo.rgb, min_face=min_face), options.faces, photo.size
        )
        restored: list[RestoredFace] = []
        for start in range(0, len(found), _BATCH):
            restored += self._restore_batch(photo.rgb, found[start : start + _BATCH], prior_bias)
        return _assemble(photo, restored, options)

    def restore_aligned(
        self,
        image: ImageSource | Photo,
        *,
        prior_bias: PerLevel = 0.0,
        keep_colour: bool = False,
    ) -> Restoration:
        """Restore a face that is aligned to the FFHQ template already.

        Args:
            image: Square crop of any size: what `restore` takes.
            prior_bias: As in `restore`.
            keep_colour: As in `restore`.

        Returns:
            The face at the network's output size, opaque and with 8 bits, as `photo` and as the
            one entry of `faces`.

        Raises:
            ImageError: The image cannot be read, or is not square.
            ConfigError: A bad `prior_bias`.
        """
        options = RestoreOptions(
            model=self.name, aligned=True, prior_bias=prior_bias, keep_colour=keep_colour
        )
        self._check(options)
        photo = _load(image)
        width, height = photo.size
        if height != width:
            name = f"{image}: " if isinstance(image, str | os.PathLike) else ""
            raise ImageError(
                f"{name}expected a square aligned face, got {width}x{height} px; "
                "a whole photo is restored without --aligned"
            )
        size = self.model.config.in_size
        identity = np.eye(2, 3)
        lq = warp(photo.rgb, rescale(identity, target=size / width), (size, size))
        restored, thetas = self._forward([lq], prior_bias)
        face = RestoredFace(
            box=(0.0, 0.0, float(width), float(height)),
            landmarks=(TEMPLATE * width).astype(np.float32),
            theta=thetas[0],
            lq=Image.fromarray(lq),
            restored=Image.fromarray(restored[0]),
            matrix=rescale(identity, target=restored[0].shape[0] / width),
        )
        return _assemble(photo, [face], options)

    def redraw(self, restoration: Restoration, faces: Sequence[RestoredFace]) -> Restoration:
        """Paste other faces into the photo of a restoration, as its own were pasted.

        Args:
            restoration: What `restore` or `restore_aligned` gave.
            faces: Faces with boxes and matrices of that photo: drawn anew with another bias,
                variations, or only some of its own.

        Raises:
            ConfigError: An aligned face is to be redrawn with none or several.
        """
        if restoration.options.aligned and len(faces) != 1:
            raise ConfigError(f"faces: expected the one aligned face, got {len(faces)}")
        return _assemble(restoration.source, list(faces), restoration.options)

    def _check(self, options: RestoreOptions) -> None:
        if options.upscale not in UPSCALES:
            raise ConfigError(f"upscale: expected 1, 2 or 4, got {options.upscale}")
        if not (math.isfinite(options.min_face) and options.min_face >= 12):
            raise ConfigError(f"min_face: expected at least 12 px, got {options.min_face}")
        bias = options.prior_bias
        for value in bias.values() if isinstance(bias, Mapping) else [bias]:
            if not math.isfinite(value):
                raise ConfigError(f"prior_bias: expected a finite number, got {value}")
        if isinstance(bias, Mapping):
            known = set(self.model.config.fusion.prior_channels)
            if unknown := sorted(set(bias) - known):
                levels = ", ".join(map(str, sorted(known)))
                raise ConfigError(f"prior_bias: no level {unknown[0]}; this model has {levels}")

    def _restore_batch(
        self, photo: RgbImage, found: list[Face], prior_bias: PerLevel
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

    def _forward(self, crops: list[RgbImage], bias: PerLevel) -> tuple[list[RgbImage], list[float]]:
        """Restored faces and θ of aligned ones."""
        control = FusionControl(bias=bias) if bias else None
        lq = torch.cat([to_tensor(crop) for crop in crops]).to(self.device)
        with torch.inference_mode():
            output = self.model(lq, control=control)
        return to_uint8(output.image), output.theta.float().tolist()


def _load(image: ImageSource | Photo) -> Photo:
    return image if isinstance(image, Photo) else load_photo(image)


def _assemble(source: Photo, faces: list[RestoredFace], options: RestoreOptions) -> Restoration:
    """The photo with these faces in it."""
    if not options.keep_colour and (source.grey or _is_colourless(source.rgb)):
        faces = [replace(face, restored=_without_colour(face.restored)) for face in faces]
    if options.aligned:
        photo = replace(source, rgb=np.asarray(faces[0].restored), deep=None, alpha=None)
    else:
        photo = _paste(enlarge(source, options.upscale), faces, options)
    if options.keep_colour and faces:
        photo = replace(photo, grey=False)
    return Restoration(photo=photo, source=source, faces=faces, options=options)


def _paste(photo: Photo, faces: list[RestoredFace], options: RestoreOptions) -> Photo:
    """Where no face covers it, the photo stays what it is, in every one of its bits."""
    if not faces:
        return photo
    canvas = photo.rgb.copy()
    coverage = None if photo.deep is None else np.zeros(canvas.shape[:2], dtype=np.float32)
    for face in faces:
        matrix = rescale(face.matrix, source=options.upscale)
        paste_into(
            canvas, np.asarray(face.restored), matrix, coverage=coverage, options=options.paste
        )
    return repaint(photo, canvas, coverage)


def _is_colourless(rgb: RgbImage) -> bool:
    """A grey photo in a file for colours."""
    first = rgb[..., 0]
    return np.array_equal(first, rgb[..., 1]) and np.array_equal(first, rgb[..., 2])


def _without_colour(face: Image.Image) -> Image.Image:
    grey = cv2.cvtColor(np.asarray(face), cv2.COLOR_RGB2GRAY)
    return Image.fromarray(np.repeat(np.asarray(grey, dtype=np.uint8)[..., None], 3, axis=2))
