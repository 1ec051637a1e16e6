"""A photo that is being edited on the page: found once, drawn again as often as wanted."""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from panini.editing import BIAS_LIMIT, explain, heat_map, variations
from panini.errors import ConfigError
from panini.models.fusion import PerLevel
from panini.restored import Restoration, RestoredFace
from panini.restorer import Restorer
from panini.web.pictures import thumbnail, write_preview


@dataclass(eq=False)
class _EditedFace:
    """A face as it is drawn now."""

    plain: RestoredFace
    """As the network draws it with `bias`."""
    drawn: RestoredFace
    """As it is in the photo: plain, or a variation."""
    bias: PerLevel
    chosen: bool = True


class Session:
    """One photo, from its drop to its download.

    Only for the worker of `panini.web.line`: nothing here is safe for two threads at once.

    Args:
        restorer: Draws the faces.
        restoration: What it made of the photo, all faces, without a bias.
        folder: An empty one, for the pictures that the page shows; `remove` removes it.
        stem: The photo's name without its suffix; shown, never used as a path.
    """

    def __init__(
        self, restorer: Restorer, restoration: Restoration, folder: Path, stem: str
    ) -> None:
        self.restorer = restorer
        self.result = restoration
        self.token = secrets.token_urlsafe(24)
        """Who knows it may download the photo."""
        self.stem = stem
        self.bias: PerLevel = 0.0
        self.faces = [_EditedFace(face, face, 0.0) for face in restoration.faces]
        self._first = restoration
        self._folder = folder
        self._offered: list[RestoredFace] = []
        self._offered_for = 0
        self._count = 0
        write_preview(restoration.source.to_image(), folder / "before.jpg")
        self._show()

    @property
    def is_there(self) -> bool:
        """Whether it was not removed meanwhile."""
        return self._folder.is_dir()

    @property
    def before(self) -> Path:
        """The photo as it was given, for the page."""
        path = self._folder / "before.jpg"
        # What is shown is in use: without this, it would be cleared away by its age.
        os.utime(path)
        return path

    @property
    def after(self) -> Path:
        """The photo as it is drawn now, for the page; a new name for every drawing."""
        return self._folder / f"after-{self._count}.jpg"

    def gallery(self) -> list[tuple[Path, str]]:
        """Every face with its check mark, and its θ in words, for the page."""
        return [
            (
                self._picture(thumbnail(face.drawn, chosen=face.chosen)),
                _caption(face, named=self.restorer.drawers.small is not None),
            )
            for face in self.faces
        ]

    def set_bias(self, bias: PerLevel) -> None:
        """Draw the chosen faces again, without looking for them again."""
        self.bias = bias
        self._draw()

    def toggle(self, index: int) -> None:
        """Restore a face, or leave it as it was."""
        face = self._face(index)
        face.chosen = not face.chosen
        self._draw()

    def vary(self, index: int, count: int, seed: int) -> list[Path]:
        """Other faces that fit the photo as well, for the page."""
        face = self._face(index)
        self._offered = variations(
            self.restorer, face.plain, count, seed=seed, prior_bias=face.bias
        )
        self._offered_for = index
        return [self._picture(offered.restored) for offered in self._offered]

    def take(self, number: int) -> None:
        """Put a variation into the photo; it stays until the bias is changed.

        Raises:
            ConfigError: No such variation.
        """
        if not 0 <= number < len(self._offered):
            raise ConfigError(f"variation {number + 1}: {len(self._offered)} are offered")
        face = self._face(self._offered_for)
        face.drawn = self._offered[number]
        face.chosen = True
        self._draw()

    def explain(self, index: int) -> tuple[float, list[tuple[Path, str]]]:
        """What of a face was invented: the map's mean, and pictures with captions."""
        face = self._face(index)
        told = explain(self.restorer, face.plain, prior_bias=face.bias)
        heat = heat_map(np.asarray(told.face.restored.convert("RGB")), told.invention.map)
        pictures = {
            "invention map": heat,
            "restored": told.face.restored,
            "the photo alone": told.y_ife,
            "the generator alone": told.y_gpb,
        }
        shown = [(self._picture(image), caption) for caption, image in pictures.items()]
        return told.invention.mean, shown

    def remove(self) -> None:
        """Remove everything that was written for the page."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _face(self, index: int) -> _EditedFace:
        if not 0 <= index < len(self.faces):
            raise ConfigError(f"face {index + 1}: the photo has {len(self.faces)}")
        return self.faces[index]

    def _draw(self) -> None:
        chosen = [face for face in self.faces if face.chosen]
        for face in chosen:
            if face.bias != self.bias:
                face.plain = self.restorer.draw_again(face.plain, prior_bias=self.bias)
                face.drawn = face.plain
                face.bias = self.bias
        result = self.restorer.redraw(self._first, [face.drawn for face in chosen])
        # What the mark tells is what was done last.
        self.result = replace(result, options=replace(result.options, prior_bias=self.bias))
        self._show()

    def _picture(self, image: Image.Image) -> Path:
        path = self._folder / f"picture-{secrets.token_hex(8)}.jpg"
        write_preview(image, path)
        return path

    def _show(self) -> None:
        """Write the photo for the page, and drop the drawing before the last one."""
        self._count += 1
        write_preview(self.result.image, self.after)
        (self._folder / f"after-{self._count - 2}.jpg").unlink(missing_ok=True)


def _caption(face: _EditedFace, *, named: bool) -> str:
    """θ of a face, what it is worth, and with `named` which network drew it."""
    if not face.chosen:
        return "left as it was"
    drawn = face.drawn
    words = [drawn.model] if named else []
    # A network without masks has no θ.
    words.append(f"θ {drawn.theta:.2f}" if math.isfinite(drawn.theta) else "restored")
    if drawn.theta_fixed and math.isfinite(drawn.theta):
        words.append("the same for every face")
    return ", ".join(words)


def combine_bias(overall: float, levels: Mapping[int, float]) -> PerLevel:
    """One bias a level: what is asked for everywhere, plus what is asked for there, in bounds."""
    if not any(levels.values()):
        return overall
    sums = {level: overall + offset for level, offset in levels.items()}
    return {level: max(-BIAS_LIMIT, min(BIAS_LIMIT, bias)) for level, bias in sums.items()}
