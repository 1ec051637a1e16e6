"""The recipe of a run: what a study puts into it, and that no run goes on with another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from panini.config import load_config
from panini.errors import ConfigError, DataError
from panini.images import write_whole
from panini.training.config import RunConfig

RECIPE = "recipe.yaml"
_PLACES = ("out", "device", "log_every_s")
"""Of a recipe: they change nothing of what is learned."""


def replace_faces(fields: dict[str, Any], paths: Sequence[Path]) -> None:
    """Other real faces in every group that has real ones."""
    kind = "shards" if all(path.suffix == ".tar" for path in paths) else "folder"
    for group in fields["data"]["groups"]:
        if group["source"]["kind"] in ("shards", "folder"):
            group["source"] |= {"kind": kind, "paths": tuple(paths)}


def with_networks_of(value: Any, folder: Path) -> Any:
    """Paths of frozen networks that a folder has are those of the folder."""
    if isinstance(value, dict):
        return {key: with_networks_of(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_networks_of(item, folder) for item in value]
    if isinstance(value, Path) and (folder / value.name).is_file():
        return folder / value.name
    return value


def keep_recipe(folder: Path, recipe: RunConfig) -> None:
    """Write a run's recipe before it starts.

    Raises:
        ConfigError: The run was begun with another one.
        DataError: The recipe that it was begun with is damaged.
    """
    path = folder / RECIPE
    fields = recipe.model_dump(mode="json")
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, yaml.safe_dump(fields, sort_keys=False).encode())
        return
    found = _read(path, type(recipe)).model_dump(mode="json")
    for place in _PLACES:
        found[place] = fields[place]
    key = first_difference(found, fields)
    if key is not None:
        raise ConfigError(
            f"{path}: {key} differs from what is asked for now; choose another --out, or remove "
            f"{folder} to run it anew"
        )


def _read(path: Path, schema: type[RunConfig]) -> RunConfig:
    """A recipe that a study wrote; what could not be set yet at that time has its default."""
    try:
        return load_config(path, schema)
    except ConfigError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(
            f"{path}: is no recipe ({reason}); remove {path.parent} to run it anew"
        ) from error


def first_difference(a: Any, b: Any, key: str = "") -> str | None:
    """Dotted key at which two trees of JSON values differ first; None where they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(name, a.get(name), b.get(name)) for name in [*a, *(b.keys() - a.keys())]]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(str(index), x, y) for index, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b else key
    for name, x, y in pairs:
        found = first_difference(x, y, f"{key}.{name}" if key else name)
        if found is not None:
            return found
    return None
