"""Faces are chosen by name or number."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from panini.errors import ConfigError
from panini.faces.select import choose, parse_choice


@dataclass(frozen=True)
class Spot:
    box: tuple[float, float, float, float]


LARGE = Spot((0, 0, 50, 50))
MIDDLE = Spot((80, 85, 110, 115))
SMALL = Spot((170, 10, 190, 30))
FACES = [LARGE, MIDDLE, SMALL]
SIZE = (200, 200)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", FACES),
        ("largest", [LARGE]),
        ("center", [MIDDLE]),
        (1, [LARGE]),
        (3, [SMALL]),
        ("2", [MIDDLE]),
    ],
)
def test_chosen(choice: str | int, expected: list[Spot]) -> None:
    assert choose(FACES, choice, SIZE) == expected


def test_center_is_that_of_the_photo() -> None:
    assert choose(FACES, "center", (360, 40)) == [SMALL]
    assert choose(FACES, "center", (50, 50)) == [LARGE]


@pytest.mark.parametrize("choice", ["all", "largest", "center", 4])
def test_photo_without_faces(choice: str | int) -> None:
    assert choose([], choice, SIZE) == []


def test_list_stays_the_callers() -> None:
    faces = list(FACES)
    choose(faces, "all", SIZE).clear()
    assert faces == FACES


@pytest.mark.parametrize(("text", "expected"), [(" ALL ", "all"), ("Center", "center"), ("12", 12)])
def test_parsed(text: str, expected: str | int) -> None:
    assert parse_choice(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "biggest", "²", 0, -2, True, 1.5, None])
def test_not_a_choice(text: str | int) -> None:
    with pytest.raises(ConfigError, match="expected all, largest, center or a number from 1 on"):
        parse_choice(text)


@pytest.mark.parametrize(("count", "told"), [(1, "has 1 face"), (3, "no face 4.*has 3 faces")])
def test_number_too_high(count: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        choose(FACES[:count], 4, SIZE)
