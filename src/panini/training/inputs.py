"""The files that a recipe reads: what is missing is said before a run, with its key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from panini.checkpoints import SPECS
from panini.config import Config
from panini.data import SourceConfig
from panini.errors import CheckpointError, ConfigError, DataError
from panini.training.config import RunConfig

_PRIOR = "make it with panini convert, or run panini train prior first"
_REMEDIES = {
    "adversarial.init": "name the file that the prior was converted from, or leave it out",
    "gan.init": _PRIOR,
    "gan.discriminator_init": "name the file that the prior was converted from, or leave it out",
    "degradation_encoder": "run panini train degradation first",
    "prior": _PRIOR,
    "teacher": _PRIOR,
}
"""By the end of the key."""


def check_inputs(config: RunConfig) -> None:
    """Refuse a recipe whose files are not there, before anything is begun.

    Raises:
        ConfigError: `out` is in a place where nothing can be written.
        DataError: A source is missing.
        CheckpointError: Weights are missing.
    """
    _check_out(config.out)
    # Weights first: they are the work of the stage before.
    for key, path, owner in sorted(_paths(config, ""), key=lambda entry: _is_data(entry[0])):
        if key == "out" or path.exists() or os.fspath(path) in SPECS:
            continue
        if isinstance(owner, SourceConfig) and owner.kind != "prior_live":
            remedy = "make it with panini sample" if owner.kind == "prior" else _name_it(key)
            raise DataError(f"{key}: {path}: no such file or folder; {remedy}")
        if not path.suffix:
            raise CheckpointError(
                f"{key}: {path}: no such file, and no shipped model; known: {', '.join(SPECS)}"
            )
        raise CheckpointError(f"{key}: {path}: no such file; {_remedy(key, owner)}")


def _check_out(out: Path) -> None:
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"out: {there}: is a file, expected a folder; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"out: {there}: may not be written to; name another place")


def _is_data(key: str) -> bool:
    return key.startswith(("data.", "validation."))


def _remedy(key: str, owner: Config) -> str:
    if isinstance(owner, SourceConfig):
        return _PRIOR
    if key == "init" and isinstance(owner, RunConfig):
        return owner.init_remedy
    ends = (text for end, text in _REMEDIES.items() if f".{key}".endswith(f".{end}"))
    return next(ends, _name_it(key))


def _name_it(key: str) -> str:
    return f"name it with --set {key}=PATH"


def _paths(value: object, key: str) -> Iterator[tuple[str, Path, Config]]:
    """(key, path, what it is a value of) of all paths of a recipe."""
    if not isinstance(value, Config):
        return
    for name in type(value).model_fields:
        inner = getattr(value, name)
        entries = enumerate(inner) if isinstance(inner, tuple) else [(None, inner)]
        for number, entry in entries:
            place = f"{key}{name}" if number is None else f"{key}{name}.{number}"
            if isinstance(entry, Path):
                yield place, entry, value
            else:
                yield from _paths(entry, f"{place}.")
