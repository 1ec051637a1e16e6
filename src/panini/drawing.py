"""The networks behind a `Restorer`: one for all faces, or one for large and one for small ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from panini.checkpoints import load_model
from panini.checkpoints.io import resolve
from panini.consistency import project
from panini.errors import CheckpointError
from panini.faces.select import Boxed
from panini.images import RgbImage, to_tensor, to_uint8
from panini.models.fusion import FusionControl, PerLevel
from panini.models.panini_net import PaniniNet

SMALL_FACE = 96.0
"""Largest side of a face's box in its photo, px, below which the network for small faces draws it:
there the crop has so few pixels that super-resolution is what is asked for."""

AUTO = "auto"
"""Name of the two shipped networks together, each for the faces that suit it."""

AUTO_LARGE, AUTO_SMALL = "mobile-mfr", "mobile-sr16"
"""What `AUTO` stands for: the network of faces from `SMALL_FACE` on, and that of smaller ones."""

_log = logging.getLogger(__name__)


class Drawn(NamedTuple):
    """A face as a network drew it."""

    image: RgbImage
    """uint8 (out_size, out_size, 3)."""
    theta: float
    """θ of Eq. 11, NaN without masks."""


class Drawer:
    """A network on its device, ready to draw aligned faces.

    Args:
        model: It is moved to the device, and set to eval mode.
        device: A resolved one.
        name: Of the network, as it is told.
    """

    def __init__(self, model: PaniniNet, device: str, name: str) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.name = name

    @property
    def in_size(self) -> int:
        """Side of the crops that it takes, px."""
        return self.model.config.in_size

    @property
    def is_sr(self) -> bool:
        """Whether it is for super-resolution: it says what a smaller image may stem from."""
        return self.model.config.task == "sr16"

    @property
    def theta_fixed(self) -> bool:
        """Whether θ is the same for all faces, because no degradation encoder looks at them."""
        return self.model.config.degradation_encoder is None

    def draw(
        self, crops: Iterable[RgbImage], bias: PerLevel, *, consistent: bool = False
    ) -> list[Drawn]:
        """Draw aligned faces, in one forward.

        Args:
            crops: uint8 (in_size, in_size, 3) RGB each.
            bias: Added to the logits of the fusion masks.
            consistent: Bring the faces to agree with their crops (`panini.consistency`), where
                this is a network for super-resolution.
        """
        control = FusionControl(bias=bias) if bias else None
        lq = torch.cat([to_tensor(crop) for crop in crops]).to(self.device)
        with torch.inference_mode():
            output = self.model(lq, control=control)
            image = output.image
            if consistent and self.is_sr:
                # Not every device reduces with antialias.
                image = project(image.cpu(), lq.cpu())
        thetas = output.theta.float().tolist()
        return [Drawn(*pair) for pair in zip(to_uint8(image), thetas, strict=True)]


@dataclass(frozen=True, kw_only=True)
class SmallFaces:
    """The second network, for small faces: in a file until one is met."""

    name: str
    """Of the network, as it is told."""
    load: Callable[[], PaniniNet]
    """Reads it."""


class Drawers:
    """Chooses the network for a face by its size.

    Args:
        main: Of all faces, or of those that are not small.
        small: Of faces below `SMALL_FACE`; None leaves them to `main`.
    """

    def __init__(self, main: Drawer, small: SmallFaces | None = None) -> None:
        self.main = main
        self.small = small

    def of(self, face: Boxed) -> Drawer:
        """The network for a face, by its box in its photo."""
        left, top, right, bottom = face.box
        if self.small is None or max(right - left, bottom - top) >= SMALL_FACE:
            return self.main
        return self._small

    @cached_property
    def _small(self) -> Drawer:
        """Loaded when first asked for; an equal prior is shared with the other one."""
        assert self.small is not None
        drawer = Drawer(self.small.load(), self.main.device, self.small.name)
        shared = share_prior(drawer.model, self.main.model)
        _log.debug("%s: loaded%s", drawer.name, ", its prior is shared" if shared else "")
        return drawer


def load_drawers(
    large: str | os.PathLike[str], small: str | os.PathLike[str] | None, device: str
) -> Drawers:
    """Load the network of large faces, and find that of small ones.

    Args:
        large: Name of a shipped model, or a file of weights.
        small: The same of small faces; None leaves them to the first.
        device: A resolved one.

    Raises:
        CheckpointError: Unknown name; missing, damaged or foreign file. What is wrong inside the
            second file shows when it is read.
    """
    if small is None:
        return Drawers(Drawer(load_model(large), device, name_of(large)))
    # Said before the work: half of the photos may be done when the first small face is met.
    path = resolve(small)
    if not path.is_file():
        raise CheckpointError(f"{path}: does not exist; it was to draw small faces")
    later = SmallFaces(name=name_of(small), load=lambda: load_model(path))
    return Drawers(Drawer(load_model(large), device, name_of(large)), later)


def load_auto(device: str) -> Drawers:
    """Load the two networks of `AUTO`.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    return load_drawers(AUTO_LARGE, AUTO_SMALL, device)


def name_of(name_or_path: str | os.PathLike[str]) -> str:
    """How a model is told: where its file lies is nobody's business who gets the photo."""
    path = Path(name_or_path)
    return path.name if path.exists() else os.fspath(name_or_path)


def share_prior(model: PaniniNet, other: PaniniNet) -> bool:
    """Let a network draw with another's prior, if its own is the same in every weight.

    Returns:
        Whether it does now; then one of the two priors is freed.
    """
    if model.config.prior != other.config.prior:
        return False
    own, others = model.prior.state_dict(), other.prior.state_dict()
    if own.keys() != others.keys():
        return False
    if not all(torch.equal(weight, others[name]) for name, weight in own.items()):
        return False
    model.prior = other.prior
    return True
