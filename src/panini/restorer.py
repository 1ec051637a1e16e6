"""Photo in, photo out: find faces, align, restore, paste back."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from numbers import Real

import numpy as np
from PIL import Image

from panini.degradations import bilinear_antialias
from panini.drawing import AUTO, Drawer, Drawers, Drawn, load_auto, load_drawers, name_of
from panini.errors import ConfigError, ImageError
from panini.faces.align import TEMPLATE, Matrix, align, rescale, warp
from panini.faces.detect import Face, FaceDetector
from panini.faces.paste import PasteOptions
from panini.faces.select import choose, parse_choice
from panini.images import ImageSource, RgbImage
from panini.models.fusion import PerLevel
from panini.models.panini_net import PaniniNet
from panini.photos import Photo, check_enlarged, load_photo
from panini.restored import (
    Restoration,
    RestoredFace,
    RestoreOptions,
    assemble,
    check_bias,
    is_colourless,
    without_colour,
)
from panini.runtime import keep_memory, resolve_device

logger = logging.getLogger(__name__)

UPSCALES = (1, 2, 4)
"""Factors by which the rest of the photo can be enlarged."""

_BATCH = 4  # Faces per forward.


class Restorer:
    """Restores the faces of photos.

        >>> restorer = Restorer.from_pretrained("mobile-mfr")
        >>> restorer.restore("old_photo.jpg").save("restored.png")

    Several threads may share one: they look for faces one after another.

    Args:
        model: A trained network; it is moved to the device, and set to eval mode.
        device: "auto" (the first of cuda, mps, cpu that is there), or one of them.
        name: Of the model: it is written into the photos.

    Raises:
        ConfigError: No such device here.
    """

    def __init__(self, model: PaniniNet, device: str = "auto", *, name: str = "unnamed") -> None:
        keep_memory()
        self.drawers = Drawers(Drawer(model, resolve_device(device), name))
        self.name = name
        self.consistent = False

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str] = "mobile-mfr", device: str = "auto"
    ) -> Restorer:
        """Load a shipped model by its name, or a file of weights.

        Args:
            name_or_path: "auto" is mobile-mfr for most faces, and mobile-sr16 for those below
                `panini.drawing.SMALL_FACE`.
            device: As of the class.

        Raises:
            CheckpointError: Unknown name; missing, damaged or foreign file.
            ConfigError: No such device here.
        """
        device = resolve_device(device)
        if name_or_path == AUTO:
            return cls._with(load_auto(device), AUTO)
        drawers = load_drawers(name_or_path, None, device)
        return cls._with(drawers, drawers.main.name)

    @classmethod
    def from_pair(
        cls,
        large: str | os.PathLike[str],
        small: str | os.PathLike[str],
        device: str = "auto",
    ) -> Restorer:
        """Load two networks: each face is drawn by the one that suits its size.

        Args:
            large: Name or file of the network for faces from `panini.drawing.SMALL_FACE` on.
            small: The same for smaller faces; it is loaded when the first one is met.
            device: As of the class.

        Raises:
            CheckpointError: Unknown name; missing, damaged or foreign file.
            ConfigError: No such device here.
        """
        drawers = load_drawers(large, small, resolve_device(device))
        return cls._with(drawers, f"{name_of(large)}, {name_of(small)}")

    @classmethod
    def _with(cls, drawers: Drawers, name: str) -> Restorer:
        made = cls(drawers.main.model, drawers.main.device, name=name)
        made.drawers = drawers
        return made

    @property
    def device(self) -> str:
        """Where the networks are."""
        return self.drawers.main.device

    @property
    def model(self) -> PaniniNet:
        """The network; of two, that of large faces."""
        return self.drawers.main.model

    def model_of(self, face: RestoredFace) -> PaniniNet:
        """The network that drew a face."""
        return self.drawers.of(face).model

    def with_consistency(self, consistent: bool = True) -> Restorer:
        """The same networks, whose super-resolved faces agree with their input or need not.

        Faces are brought to it by `panini.consistency`; those of other networks stay as drawn.

        Raises:
            ConfigError: No network here is for super-resolution.
        """
        if consistent and not (self.drawers.small or self.drawers.main.is_sr):
            raise ConfigError(
                f"consistent: is for faces drawn by a network for sr16, and {self.name} is for "
                f"task {self.model.config.task}"
            )
        if consistent == self.consistent:
            return self
        other = copy(self)
        other.consistent = consistent
        return other

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
            prior_bias: -3 to 3: above 0 trusts the face generator more, below 0 the photo. Added
                to the logits of the fusion masks, overall or by level (px).
            min_face: Least largest side of a face, px.
            faces: "all", "largest", "center", or the number of a face, 1 for the largest.
            keep_colour: Give back a grey photo in colour, as the network drew its faces.
            paste: How faces go back; None is `PasteOptions()`.

        Returns:
            The photo, and its faces; without any, the photo is as it was (but enlarged).

        Raises:
            ImageError: It is no image, cannot be read, or would be too large.
            ConfigError: A bad option.
        """
        prior_bias = self._check_bias(prior_bias)
        options = RestoreOptions(
            model=self.name,
            consistent=self.consistent,
            upscale=upscale,
            prior_bias=prior_bias,
            min_face=min_face,
            faces=parse_choice(faces),
            keep_colour=keep_colour,
            paste=paste or PasteOptions(),
        )
        self._check(options)
        photo = _load(image)
        check_enlarged(photo, upscale)
        found = choose(
            self.detector.detect(photo.rgb, min_face=min_face), options.faces, photo.size
        )
        restored: list[RestoredFace] = []
        # The largest come first: the faces of a network follow one another.
        for drawer, group in groupby(found, self.drawers.of):
            same = list(group)
            for start in range(0, len(same), _BATCH):
                batch = same[start : start + _BATCH]
                restored += self._restore_batch(drawer, photo.rgb, batch, prior_bias)
        return assemble(photo, restored, options)

    def restore_aligned(
        self,
        image: ImageSource | Photo,
        *,
        prior_bias: PerLevel = 0.0,
        keep_colour: bool = False,
        name: str | None = None,
    ) -> Restoration:
        """Restore a face that is aligned to the FFHQ template already.

        Args:
            image: Square crop of any size: what `restore` takes. For a network for sr16, one of
                another side than it takes is resized as in training, and a warning says so.
            prior_bias: As in `restore`.
            keep_colour: As in `restore`.
            name: What messages call it; None takes the path, where there is one.

        Returns:
            The face at the network's output size, opaque and with 8 bits, as `photo` and as the
            one entry of `faces`.

        Raises:
            ImageError: It is no image, cannot be read, or is not square.
            ConfigError: A bad `prior_bias`.
        """
        prior_bias = self._check_bias(prior_bias)
        options = RestoreOptions(
            model=self.name,
            aligned=True,
            prior_bias=prior_bias,
            keep_colour=keep_colour,
            consistent=self.consistent,
        )
        self._check(options)
        photo = _load(image)
        width, height = photo.size
        prefix = f"{name or image}: " if name or isinstance(image, str | os.PathLike) else ""
        if height != width:
            raise ImageError(
                f"{prefix}expected a square aligned face, got {width}x{height} px; "
                "a whole photo is restored without --aligned"
            )
        drawer = self.drawers.of(_whole(width))
        size = drawer.in_size
        if drawer.is_sr and width != size:
            logger.warning(
                "%sresized from %d to %d px, which the network takes", prefix, width, size
            )
            photo, width = fit_aligned(photo, size), size
        whole = _whole(width)
        matrix = rescale(np.eye(2, 3), target=size / width)
        lq = warp(photo.rgb, matrix, (size, size))
        (drawn,) = drawer.draw([lq], prior_bias, consistent=self.consistent)
        return assemble(photo, [_restored(whole, drawer, lq, matrix, drawn)], options)

    def draw_again(self, face: RestoredFace, *, prior_bias: PerLevel = 0.0) -> RestoredFace:
        """The same face from the same crop, drawn with another bias by the network that drew it.

        A face of a grey crop is grey.

        Args:
            face: A restored face.
            prior_bias: As in `restore`.

        Raises:
            ConfigError: A bad `prior_bias`.
        """
        prior_bias = self._check_bias(prior_bias)
        drawer = self.drawers.of(face)
        (drawn,) = drawer.draw([np.asarray(face.lq)], prior_bias, consistent=self.consistent)
        again = replace(face, restored=Image.fromarray(drawn.image), theta=drawn.theta)
        return without_colour(again) if is_colourless(np.asarray(face.lq)) else again

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
        return assemble(restoration.source, list(faces), restoration.options)

    def _check(self, options: RestoreOptions) -> None:
        if options.upscale not in UPSCALES:
            raise ConfigError(f"upscale: expected 1, 2 or 4, got {options.upscale}")
        least = options.min_face
        if not (isinstance(least, Real) and math.isfinite(least) and least >= 12):
            raise ConfigError(f"min_face: expected at least 12 px, got {least!r}")

    def _check_bias(self, bias: PerLevel) -> PerLevel:
        """A bias that the model can take; levels may be text, as `Restoration.settings` has them.

        Raises:
            ConfigError: It cannot take it.
        """
        bias = check_bias(bias)
        if isinstance(bias, Mapping):
            known = set(self.model.config.fusion.prior_channels)
            if unknown := sorted(set(bias) - known):
                levels = ", ".join(map(str, sorted(known)))
                raise ConfigError(f"prior_bias: no level {unknown[0]}; this model has {levels}")
        return bias

    def _restore_batch(
        self, drawer: Drawer, photo: RgbImage, found: list[Face], prior_bias: PerLevel
    ) -> list[RestoredFace]:
        crops = [align(photo, face.landmarks, drawer.in_size) for face in found]
        drawn = drawer.draw([lq for lq, _ in crops], prior_bias, consistent=self.consistent)
        return [
            _restored(face, drawer, lq, matrix, each)
            for face, (lq, matrix), each in zip(found, crops, drawn, strict=True)
        ]


def fit_aligned(photo: Photo, side: int) -> Photo:
    """An aligned face with the side that a network for sr16 takes, resized as in training.

    Args:
        photo: Square.
        side: px.
    """
    if photo.size == (side, side):
        return photo
    return replace(photo, rgb=bilinear_antialias(photo.rgb, side), deep=None, alpha=None)


def _whole(side: int) -> Face:
    """The face that an aligned crop of `side` px is."""
    return Face(
        box=(0.0, 0.0, float(side), float(side)),
        landmarks=(TEMPLATE * side).astype(np.float32),
        score=1.0,
    )


def _restored(
    face: Face, drawer: Drawer, lq: RgbImage, matrix: Matrix, drawn: Drawn
) -> RestoredFace:
    """A face once it is drawn; the matrix leads to `lq`."""
    return RestoredFace(
        box=face.box,
        landmarks=face.landmarks,
        model=drawer.name,
        theta=drawn.theta,
        theta_fixed=drawer.theta_fixed,
        lq=Image.fromarray(lq),
        restored=Image.fromarray(drawn.image),
        matrix=rescale(matrix, target=drawn.image.shape[0] / lq.shape[0]),
    )


def _load(image: ImageSource | Photo) -> Photo:
    return image if isinstance(image, Photo) else load_photo(image)
