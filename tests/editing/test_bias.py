"""The bias as text: what is understood, and what each mistake is answered with."""

from __future__ import annotations

import pytest

from panini.editing import parse_bias
from panini.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "bias"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        (" -3 ", -3.0),
        ("64=1", {64: 1.0}),
        ("64=1, 32=-0.5", {64: 1.0, 32: -0.5}),
        ("4=3,8=-3", {4: 3.0, 8: -3.0}),
    ],
)
def test_what_is_understood(text: str, bias: object) -> None:
    assert parse_bias(text) == bias


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("much", "'much' is no number"),
        ("", "'' is no number"),
        ("nan", "nan is outside"),
        ("3.01", "3.01 is outside"),
        ("-inf", "-inf is outside"),
        ("64=4", "4 is outside"),
        ("64=", "'' is no number"),
        ("65=1", "level '65' is none of 4, 8, 16, 32, 64"),
        ("64=1,64=2", "level 64 comes twice"),
        ("64=1,2", "'2' names no level"),
    ],
)
def test_each_mistake_has_its_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_bias(text)
    message = str(error.value)
    assert message.startswith(f"prior bias {text!r}: expected a number in -3..3, or LEVEL=NUMBER")
    assert message.endswith(why)
