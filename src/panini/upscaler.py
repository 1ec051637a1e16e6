"""Small aligned faces, drawn 16 times as large by a network for super-resolution."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np
from PIL import Image

from panini.consistency import project
from panini.degradations import bilinear_antialias
from panini.errors import ConfigError, ImageError
from panini.images import ImageSource, to_tensor, to_uint8
from panini.photos import Photo, load_photo
from panini.restorer import Restoration, Restorer

logger = logging.getLogger(__name__)


def upscale(
    restorer: Restorer, image: ImageSource | Photo, *, consistent: bool = False
) -> Restoration:
    """Draw an aligned face of 64 px at 1024 px.

        >>> restorer = Restorer.from_pretrained("mobile-sr16")
        >>> upscale(restorer, "face.png").save("large.png")

    Args:
        restorer: Of a network for task sr16.
        image: Square crop, FFHQ-aligned. One of another side than the network takes is resized,
            and a warning says so.
        consistent: Add what the drawn face, reduced again, lacks of the input.

    Returns:
        As `Restorer.restore_aligned`.

    Raises:
        ImageError: The image cannot be read, or is not square.
        ConfigError: The network is for another task.
    """
    config = restorer.model.config
    if config.task != "sr16":
        raise ConfigError(
            f"{restorer.name}: is for task {config.task}, upscaling takes a network for sr16; "
            "panini restore --aligned uses this one"
        )
    name = f"{image}: " if isinstance(image, str | os.PathLike) else ""
    photo = image if isinstance(image, Photo) else load_photo(image)
    result = restorer.restore_aligned(_at_side(photo, config.in_size, name))
    if not consistent:
        return result
    (face,) = result.faces
    images, lq = (to_tensor(np.asarray(side)) for side in (face.restored, face.lq))
    (drawn,) = to_uint8(project(images, lq))
    result = replace(result, options=replace(result.options, consistent=True))
    return restorer.redraw(result, [replace(face, restored=Image.fromarray(drawn))])


def _at_side(photo: Photo, side: int, name: str) -> Photo:
    """The face with the side that the network takes, reduced as in training."""
    width, height = photo.size
    if width != height:
        raise ImageError(
            f"{name}expected a square aligned face, got {width}x{height} px; "
            "a whole photo goes to panini restore"
        )
    if width == side:
        return photo
    logger.warning("%sresized from %d to %d px, which the network takes", name, width, side)
    return replace(photo, rgb=bilinear_antialias(photo.rgb, side), deep=None, alpha=None)
