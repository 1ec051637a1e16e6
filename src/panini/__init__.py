"""Panini-Net: face restoration that interpolates between a photo and a face prior.

    >>> import panini
    >>> restorer = panini.Restorer.from_pretrained("mobile-mfr")
    >>> restorer.restore("old_photo.jpg").image.save("restored.png")

The names below are the public API. They are imported when first used, so that `import panini`
itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panini.checkpoints import load_model
    from panini.degradations import DegradationParams, degrade
    from panini.models.fusion import FusionControl
    from panini.models.panini_net import PaniniNet
    from panini.restorer import Restoration, Restorer

    __version__: str

__all__ = [
    "DegradationParams",
    "FusionControl",
    "PaniniNet",
    "Restoration",
    "Restorer",
    "__version__",
    "degrade",
    "load_model",
]

_HOME = {
    "DegradationParams": "panini.degradations",
    "FusionControl": "panini.models.fusion",
    "PaniniNet": "panini.models.panini_net",
    "Restoration": "panini.restorer",
    "Restorer": "panini.restorer",
    "degrade": "panini.degradations",
    "load_model": "panini.checkpoints",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'panini' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("panini-net")
    except PackageNotFoundError:  # run from a source folder that was never installed
        return "0+source"
