"""Which of a photo's faces are meant: all, the largest, the one in the middle, or the third."""

from __future__ import annotations

from typing import Protocol, TypeVar

from panini.errors import ConfigError

ALL, LARGEST, CENTER = "all", "largest", "center"
CHOICES = (ALL, LARGEST, CENTER)
"""The choices that have a name; the others are numbers from 1 on, counted largest first."""


class Boxed(Protocol):
    """Anything with a box: a found face, or a restored one."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, px."""
        ...


BoxedT = TypeVar("BoxedT", bound=Boxed)


def parse_choice(text: str | int) -> str | int:
    """Understand what was asked for on a command line or in a request.

    Args:
        text: A name of `CHOICES` in any case, or a number from 1 on.

    Returns:
        The name in lower case, or the number.

    Raises:
        ConfigError: Anything else.
    """
    if isinstance(text, str):
        name = text.strip().lower()
        if name in CHOICES:
            return name
        if not (name.isascii() and name.isdigit()):
            raise _bad_choice(text)
        text = int(name)
    if isinstance(text, bool) or not isinstance(text, int) or text < 1:
        raise _bad_choice(text)
    return text


def choose(faces: list[BoxedT], choice: str | int, size: tuple[int, int]) -> list[BoxedT]:
    """The faces that a choice names.

    Args:
        faces: The photo's faces, the largest first, as the detector gives them.
        choice: "all"; "largest"; "center", the face nearest to the middle of the photo; or the
            number of a face, 1 for the largest.
        size: Width and height of the photo, px.

    Returns:
        The chosen faces in their order; none when the photo has none.

    Raises:
        ConfigError: An unknown choice, or a number above that of the faces.
    """
    choice = parse_choice(choice)
    if not faces or choice == ALL:
        return list(faces)
    if choice == LARGEST:
        return faces[:1]
    if choice == CENTER:
        return [min(faces, key=lambda face: _distance_to_middle(face, size))]
    assert isinstance(choice, int)
    if choice > len(faces):
        there = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        raise ConfigError(f"faces: there is no face {choice}, the photo has {there}")
    return [faces[choice - 1]]


def _distance_to_middle(face: Boxed, size: tuple[int, int]) -> float:
    """Squared distance of the box's centre to the photo's, px²."""
    left, top, right, bottom = face.box
    return (left + right - size[0]) ** 2 / 4 + (top + bottom - size[1]) ** 2 / 4


def _bad_choice(found: object) -> ConfigError:
    names = ", ".join(CHOICES)
    return ConfigError(f"faces: expected {names} or a number from 1 on, got {found!r}")
