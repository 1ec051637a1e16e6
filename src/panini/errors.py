"""The exceptions of the library, each for one thing that a user can put right.

PaniniError
├── ConfigError        a recipe or an argument is wrong
├── CheckpointError    a weights file is missing, damaged or not what was asked for
├── DataError          a data set is missing, empty or damaged
├── ImageError         one image file cannot be read or written
├── NoFaceError        a photo holds no face that can be found
├── TrainingError      a run cannot go on (non-finite loss, full disk)
├── ServiceError       a server is busy, or a request is beyond its limits
└── MissingExtraError  an optional dependency is not installed
"""

from __future__ import annotations


class PaniniError(Exception):
    """Base of every error that the library raises on purpose."""


class ConfigError(PaniniError):
    """A configuration or an argument holds an unknown key or a bad value."""


class CheckpointError(PaniniError):
    """A weights file is missing, damaged or does not fit."""


class DataError(PaniniError):
    """A data set is missing, empty or damaged."""


class ImageError(PaniniError):
    """An image file cannot be read or written."""


class NoFaceError(PaniniError):
    """No face was found in a photo."""


class TrainingError(PaniniError):
    """A training run cannot go on."""


class ServiceError(PaniniError):
    """A server does not take a request: too large, too slow, too many."""


class MissingExtraError(PaniniError):
    """A feature needs an optional dependency.

    Args:
        extra: Name of the extra in pyproject.toml.
        feature: What was asked for, as the user would say it.
        remedy: What to do where installing the extra is not enough; None says how to install it.
    """

    def __init__(self, extra: str, feature: str, remedy: str | None = None) -> None:
        remedy = remedy or f"pip install 'panini-net[{extra}]'"
        super().__init__(f"{feature} needs the extra {extra}: {remedy}")
