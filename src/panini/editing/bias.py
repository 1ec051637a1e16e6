"""The bias of the fusion masks, as it is written on a command line or in a request."""

from __future__ import annotations

from panini.errors import ConfigError
from panini.models.fusion import PerLevel
from panini.restored import BIAS_LIMIT, is_within_limit

LEVELS = (4, 8, 16, 32, 64)
"""Sides in px of the features that are fused."""

_FORMS = f"expected a number in -{BIAS_LIMIT:g}..{BIAS_LIMIT:g}, or LEVEL=NUMBER,..."


def parse_bias(text: str) -> PerLevel:
    """Understand a bias: above 0 trusts the face generator more, below 0 the photo.

    Args:
        text: One number for all levels, "1.5"; or numbers by level, "64=1,32=-0.5": the levels
            that are not named keep 0.

    Returns:
        The number, or level (px) → number.

    Raises:
        ConfigError: Not a number, out of [-3, 3], an unknown level, or one that comes twice.
    """
    if "=" not in text:
        return _number(text, text)
    biases: dict[int, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise _bad(text, f"{part.strip()!r} names no level")
        if name not in map(str, LEVELS):
            known = ", ".join(map(str, LEVELS))
            raise _bad(text, f"level {name!r} is none of {known}")
        if int(name) in biases:
            raise _bad(text, f"level {name} comes twice")
        biases[int(name)] = _number(number, text)
    return biases


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise _bad(whole, f"{text.strip()!r} is no number") from None
    if not is_within_limit(number):
        raise _bad(whole, f"{text.strip()} is outside")
    return number


def _bad(text: str, why: str) -> ConfigError:
    return ConfigError(f"prior bias {text!r}: {_FORMS}; {why}")
