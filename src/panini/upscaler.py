"""Small aligned faces, drawn 16 times as large by a network for super-resolution."""

from __future__ import annotations

import os

from panini.errors import ConfigError, ImageError, NoFaceError
from panini.images import ImageSource
from panini.photos import Photo, load_photo
from panini.restored import Restoration
from panini.restorer import Restorer, fit_aligned

LEAST_SHARE = 1 / 3
"""Of the side of an aligned crop, that its face must have; an aligned face has two thirds."""


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
        As `Restorer.restore_aligned`, which draws what is no face as well.

    Raises:
        ImageError: The image cannot be read, or is not square.
        NoFaceError: No face fills it.
        ConfigError: The network is for another task.
    """
    config = restorer.model.config
    if config.task != "sr16":
        raise ConfigError(
            f"{restorer.name}: is for task {config.task}, upscaling takes a network for sr16, "
            "such as mobile-sr16; panini restore --aligned --model draws with this one"
        )
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else None
    prefix = f"{name}: " if name else ""
    photo = image if isinstance(image, Photo) else load_photo(image)
    width, height = photo.size
    if width != height:
        raise ImageError(
            f"{prefix}expected a square aligned face, got {width}x{height} px; "
            "a whole photo goes to panini restore --model auto"
        )
    side = config.in_size
    small = fit_aligned(photo, side)
    if not restorer.detector.detect(small.rgb, min_face=LEAST_SHARE * side):
        raise NoFaceError(
            f"{prefix}expected an aligned face, found none; a whole photo goes to panini restore "
            "--model auto, and panini restore --aligned --model mobile-sr16 draws a crop unseen"
        )
    return restorer.with_consistency(consistent).restore_aligned(photo, name=name)
