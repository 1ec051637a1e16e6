"""A restored photo and its faces: how they were made, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panini.errors import ConfigError
from panini.faces.align import Matrix, rescale
from panini.faces.paste import PasteOptions, paste_into
from panini.images import RgbImage
from panini.models.fusion import PerLevel
from panini.photos import Mark, Photo, WriteOptions, enlarge, repaint, write_photo

BIAS_LIMIT = 3.0
"""At ±3 a mask of ½ becomes 0.95 or 0.05: beyond it one of the two sources is all but gone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredFace:
    """One face of a photo, before and after."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in px of the photo that was given."""
    landmarks: NDArray[np.float32]
    """(5, 2) px of the photo that was given: eye, eye, nose, mouth corner, mouth corner."""
    model: str
    """Name of the network that drew it."""
    theta: float
    """θ of Eq. 11, the prior's mean share at the finest fused level: the higher, the more of the
    face was invented."""
    theta_fixed: bool
    """θ is the same for all faces of this network, which does not look at their degradation."""
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
    """Added to the logits of the fusion masks, see `check_bias`."""
    min_face: float = 24.0
    """Least largest side of a face, px."""
    faces: str | int = "all"
    """Which faces, see `panini.faces.select`."""
    keep_colour: bool = False
    """Faces of a grey photo keep the colours that the network gives them."""
    consistent: bool = False
    """Faces drawn by super-resolution were brought to agree with their input."""
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
        """The whole photo with 8 bits, in its own mode (L, LA, RGB or RGBA) and colour profile.

        Without EXIF, resolution and the mark that an algorithm altered it: `save` writes those.
        """
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
        """What `save` says in the file; of each face, what drew it and whether θ tells of it."""
        models = [face.model for face in self.faces]
        faces = {
            "boxes": [[round(edge, 1) for edge in face.box] for face in self.faces],
            "models": models,
            "theta_fixed": [face.theta_fixed for face in self.faces],
        }
        return Mark(
            model=", ".join(dict.fromkeys(models)),
            thetas=tuple(face.theta for face in self.faces),
            settings={**self.settings, **faces},
        )


def check_bias(bias: Any) -> PerLevel:
    """A bias of the fusion masks within its bounds, in Python's own numbers.

    Args:
        bias: A number, or level (px) → number; levels may be text, as JSON has them.

    Raises:
        ConfigError: Something else, or a number out of [-3, 3].
    """
    if isinstance(bias, Mapping):
        return {_level(level): _bias(number) for level, number in bias.items()}
    return _bias(bias)


def is_within_limit(number: Any) -> bool:
    """Whether a mask may be biased by so much; any kind of real number."""
    # NaN fails the comparison.
    return bool(abs(number) <= BIAS_LIMIT)


def _bias(number: Any) -> float:
    if not isinstance(number, Real) or isinstance(number, bool):
        expected = "a number, or numbers by level ({64: 1.0})"
        raise ConfigError(f"prior_bias: expected {expected}, got {number!r}")
    if not is_within_limit(number):
        raise ConfigError(f"prior_bias: expected -{BIAS_LIMIT:g} to {BIAS_LIMIT:g}, got {number}")
    return float(number)


def _level(level: Any) -> int:
    try:
        if isinstance(level, float) and not level.is_integer():
            raise ValueError(level)
        return int(level)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"prior_bias: expected a level in px, got {level!r}") from error


def assemble(source: Photo, faces: list[RestoredFace], options: RestoreOptions) -> Restoration:
    """The photo with these faces in it, grey where it was grey."""
    if not options.keep_colour and (source.grey or is_colourless(source.rgb)):
        faces = [without_colour(face) for face in faces]
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


def is_colourless(rgb: RgbImage) -> bool:
    """Whether it is a grey photo in a file for colours, uint8 (H, W, 3)."""
    first = rgb[..., 0]
    return np.array_equal(first, rgb[..., 1]) and np.array_equal(first, rgb[..., 2])


def without_colour(face: RestoredFace) -> RestoredFace:
    """The face in grey, still in RGB."""
    grey = cv2.cvtColor(np.asarray(face.restored), cv2.COLOR_RGB2GRAY)
    rgb = np.repeat(np.asarray(grey, dtype=np.uint8)[..., None], 3, axis=2)
    return replace(face, restored=Image.fromarray(rgb))
