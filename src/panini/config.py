"""YAML ↔ typed configuration; unknown keys and bad values are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from panini.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(path: Path, schema: type[ConfigT], overrides: list[str] | None = None) -> ConfigT:
    """Read a YAML recipe.

    Args:
        path: The YAML file.
        schema: What it must hold.
        overrides: `key=value` or `outer.inner=value`, where `inner` may be the number of a list's
            entry; the value is YAML.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys to values, found {type(data).__name__}"
        )
    for override in overrides or []:
        _override(data, override)
    return validated(data, schema, str(path))


def validated(data: Any, schema: type[ConfigT], source: str) -> ConfigT:
    """A configuration of plain values.

    Args:
        data: Keys and values.
        schema: What they must fit.
        source: Where they come from, for the error.

    Raises:
        ConfigError: A key or value is wrong.
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        # A rule over several keys has no place of its own, and its input is the whole recipe.
        where = "".join(f"{part}." for part in first["loc"]).rstrip(".")
        message = f"{source}: {where}: " if where else f"{source}: "
        if first["type"] == "value_error":
            message += first["msg"].removeprefix("Value error, ")
        else:
            message += f"{first['msg'].lower()}, got {first['input']!r}"
        if error.error_count() > 1:
            message += f" (and {error.error_count() - 1} more)"
        raise ConfigError(message) from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from error
    *outer, last = key.strip().split(".")
    place: Any = data
    for part in outer:
        at = _at(place, part, override)
        place = place[at] if isinstance(place, list) else place.setdefault(at, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {override}: {part} is not a group of keys")
    place[_at(place, last, override)] = value


def _at(place: dict[str, Any] | list[Any], part: str, override: str) -> Any:
    """The key, or the position of an entry that a list has."""
    if isinstance(place, dict):
        return part
    if not part.isdigit() or int(part) >= len(place):
        raise ConfigError(
            f"--set {override}: expected the number of an entry, 0 to {len(place) - 1}, got {part}"
        )
    return int(part)
