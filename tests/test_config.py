"""YAML recipes: what fits is typed, what does not is refused with one line."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, ValidationError, model_validator

from panini.config import Config, load_config
from panini.errors import ConfigError


class Inner(Config):
    rate: float = Field(default=1.0, gt=0)
    low: int = 1
    high: int = 2

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, got {self.low} and {self.high}")
        return self


class Recipe(Config):
    out: Path
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()

    @model_validator(mode="after")
    def _has_items(self) -> Self:
        if self.inner.rate == 13:
            raise ValueError("a rate of 13 is unlucky")
        return self


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, Recipe, list(overrides))


def error_of(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path / 'recipe.yaml'}: ")


def test_a_recipe_is_typed(tmp_path):
    recipe = load(tmp_path, "out: a/b\ninner: {rate: 2}\nitems: [{low: 0}, {}]")
    assert recipe == Recipe(out=Path("a/b"), inner=Inner(rate=2.0), items=(Inner(low=0), Inner()))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.out = Path("c")


def test_overrides_are_yaml_and_reach_inside(tmp_path):
    recipe = load(tmp_path, "out: a", "out=b", "inner.rate=0.5", "items=[{high: 7}]")
    assert recipe == Recipe(out=Path("b"), inner=Inner(rate=0.5), items=(Inner(high=7),))
    entry = load(tmp_path, "out: a\nitems: [{}, {low: 0}]", "items.1.high=5", "items.0={low: 2}")
    assert entry.items == (Inner(low=2), Inner(low=0, high=5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: a\ncolour: red", "colour: extra inputs are not permitted, got 'red'"),
        ("out: a\ninner: {speed: 1}", "inner.speed: extra inputs are not permitted, got 1"),
        ("out: a\nitems: [{}, {rate: 0}]", "items.1.rate: input should be greater than 0, got 0"),
        ("inner: {}", "out: field required, got {'inner': {}}"),
        ("out: a\ninner: {low: 3}", "inner: low must be at most high, got 3 and 2"),
        ("out: a\ninner: {rate: 13}", "a rate of 13 is unlucky"),
        ("- a\n- b", "expected a mapping of keys to values, found list"),
        ("", "expected a mapping of keys to values, found NoneType"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, message):
    assert error_of(tmp_path, text) == message


def test_several_mistakes_are_counted(tmp_path):
    message = error_of(tmp_path, "out: a\ncolour: red\nsize: 3\ninner: {rate: -1}")
    assert message.endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rate", "--set rate: expected key=value"),
        ("out.part=3", "--set out.part=3: out is not a group of keys"),
        ("out=[1", "--set out=[1: '[1' is not a YAML value"),
        ("items.1.low=0", "--set items.1.low=0: expected the number of an entry, 0 to 0, got 1"),
        ("items.low=0", "--set items.low=0: expected the number of an entry, 0 to 0, got low"),
        ("inner.speed=3", "inner.speed: extra inputs are not permitted, got 3"),
    ],
)
def test_overrides_that_do_not_fit_are_named(tmp_path, override, message):
    assert error_of(tmp_path, "out: a\nitems: [{}]", override) == message


def test_files_that_are_no_yaml_are_refused(tmp_path):
    assert "cannot be read as YAML" in error_of(tmp_path, "out: [1, 2")
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: cannot be read as YAML"):
        load_config(path, Recipe)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read as YAML"):
        load_config(tmp_path / "none.yaml", Recipe)
