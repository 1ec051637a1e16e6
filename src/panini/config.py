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
        overrides: `key=value` or `outer.inner=value`; the value is YAML.

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
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        # A rule over several keys has no place of its own, and its input is the whole recipe.
        where = "".join(f"{part}." for part in first["loc"]).rstrip(".")
        message = f"{path}: {where}: " if where else f"{path}: "
        if first["type"] == "value_error":
            message += first["msg"].removeprefix("Value error, ")
        else:
            message += f"{first['msg'].lower()}, got {first['input']!r}"
        if error.error_count() > 1:
            message += f" (and {error.error_count() - 1} more)"
        raise ConfigError(message) from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value")
    *outer, last = key.strip().split(".")
    for part in outer:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: {part} is not a group of keys")
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {value!r} is not a YAML value") from error
