"""Checkpoints of a run: one safetensors file each, whole or not at all, read without pickle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panini.checkpoints import load_tensors, save_tensors
from panini.config import Config
from panini.errors import CheckpointError, TrainingError
from panini.training.engine import Engine

FOLDER = "checkpoints"
BEST = "best"
KIND = "training-state"
PARTIAL = re.compile(r"\..+\.safetensors\..+|\.tmp[0-9A-Za-z]{6}")
"""Names of files that are being written: ours, and those that safetensors makes beside them."""


@dataclass(kw_only=True)
class Progress:
    """Where a run is."""

    step: int = 0
    """Steps made."""
    nimg: int = 0
    """Images seen."""
    best: float | None = None
    """Least figure of validation so far."""
    best_nimg: int | None = None
    """Where it was."""
    validated: int = 0
    """Image of the last validation."""
    judgement: dict[str, Any] | None = None
    """What the figures of validation are made of, see `RunConfig.judgement`; None = not known."""
    skipped: list[str] = field(default_factory=list)
    """What was wrong with each face that could not be read."""


class Checkpoints:
    """The checkpoints of a run, `checkpoints/NIMG.safetensors`.

    Args:
        out: Folder of the run.
        keep: Newest that stay, beside the best.
        beginning: Of the recipe.
    """

    def __init__(self, out: Path, keep: int, beginning: Mapping[str, object] | None = None) -> None:
        self.folder = out / FOLDER
        self.keep = keep
        self.beginning = dict(beginning or {})

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def clear_partial(self) -> None:
        """Remove what a run left that was killed while it wrote."""
        for folder in (self.folder, self.folder.parent, self.folder.parent / BEST):
            for file in folder.glob(".*"):
                if PARTIAL.fullmatch(file.name) and file.is_file():
                    file.unlink(missing_ok=True)

    def save(self, engine: Engine, modules: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write a checkpoint, then remove those that need not stay.

        Raises:
            CheckpointError: It cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for name, module in modules.items():
            for key, value in module.state_dict().items():
                tensors[f"module/{name}/{key}"] = value
        for name, optimizer in engine.optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                for key, value in entries.items():
                    tensors[f"optimizer/{name}/{index}/{key}"] = value
        meta = {
            "progress": asdict(progress),
            "beginning": as_json(self.beginning),
            "groups": {name: _sizes(opt) for name, opt in engine.optimizers.items()},
            "learned": {name: _names(opt, modules) for name, opt in engine.optimizers.items()},
            "scalers": {name: scaler.state_dict() for name, scaler in engine.scalers.items()},
        }
        path = self.folder / f"{progress.nimg:010d}.safetensors"
        save_tensors(tensors, path, kind=KIND, meta=meta)
        self._prune(progress)

    def load(self, engine: Engine, modules: Mapping[str, nn.Module]) -> Progress:
        """Bring a run to its newest checkpoint; a run without one starts.

        Raises:
            TrainingError: The checkpoint is damaged, or of another configuration.
        """
        found = self.all()
        if not found:
            return Progress()
        path = found[-1]
        try:
            tensors, meta = load_tensors(path, kind=KIND)
            self._check_beginning(path, meta.get("beginning", as_json(self.beginning)))
            _check_names(modules, tensors)
            for name, module in modules.items():
                module.load_state_dict(_below(tensors, f"module/{name}/"))
            for name, optimizer in engine.optimizers.items():
                # Checkpoints of before have no names.
                if "learned" in meta:
                    _check_learned(name, meta["learned"].get(name, []), _names(optimizer, modules))
                _load_optimizer(name, optimizer, tensors, meta["groups"])
                if engine.scalers[name].is_enabled() and meta["scalers"][name]:
                    engine.scalers[name].load_state_dict(meta["scalers"][name])
            return Progress(**meta["progress"])
        except (CheckpointError, RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()).removeprefix(f"{path}: ")[:200]
            raise TrainingError(
                f"{path}: not a state of this configuration ({reason}); choose another `out`, or "
                "remove it to go on from the checkpoint before it"
            ) from error

    def _check_beginning(self, path: Path, known: Mapping[str, Any]) -> None:
        for key, given in self.beginning.items():
            value = as_json(given)
            if (found := _completed(known.get(key), given)) != value:
                raise TrainingError(
                    f"{path}: this run began with {key} {found}, the recipe has {value}; choose "
                    "another `out`, or name again what it began with"
                )

    def _prune(self, progress: Progress) -> None:
        for path in self.all()[: -self.keep]:
            if int(path.stem) != progress.best_nimg:
                path.unlink(missing_ok=True)


def as_json(value: object) -> Any:
    """A recipe's value, files by their names alone: between legs a run may change its machine."""
    if isinstance(value, Config):
        return {key: as_json(getattr(value, key)) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: as_json(entry) for key, entry in value.items()}
    if isinstance(value, Path):
        return value.name
    return [as_json(entry) for entry in value] if isinstance(value, tuple | list) else value


def _completed(found: Any, given: object) -> Any:
    """What a checkpoint says of a value, with the defaults of keys that it is too old to have."""
    if not isinstance(given, Config) or not isinstance(found, Mapping):
        return found
    fields = type(given).model_fields
    defaults = {
        key: as_json(field.get_default(call_default_factory=True))
        for key, field in fields.items()
        if not field.is_required()
    }
    entries = defaults | dict(found)
    return {key: _completed(entry, getattr(given, key, None)) for key, entry in entries.items()}


def _sizes(optimizer: torch.optim.Optimizer) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]


def _names(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> list[list[str]]:
    """Of every group's parameters: moments are kept by their number, which follows from these."""
    known = {
        id(parameter): f"{name}.{key}"
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
    }
    return [[known[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def _check_learned(name: str, held: list[list[str]], wanted: list[list[str]]) -> None:
    """Refuse moments of other parameters than those that learn now."""
    if held == wanted:
        return
    # Of equal sets the order or the groups differ: then any name will do.
    before, now = (sorted(key for group in groups for key in group) for groups in (held, wanted))
    first = next((key for key in before if key not in now), before[0])
    other = next((key for key in now if key not in before), now[0])
    raise ValueError(f"optimizer {name} trained {first} among {len(before)}, expected {other}")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    size = len(prefix)
    return {key[size:]: value for key, value in tensors.items() if key.startswith(prefix)}


def _check_names(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    held = {key.split("/")[1] for key in tensors if key.startswith("module/")}
    if held != set(modules):
        raise ValueError(f"it holds {', '.join(sorted(held))}, the recipe {', '.join(modules)}")


def _load_optimizer(
    name: str,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: Mapping[str, list[int]],
) -> None:
    """Take the moments; learning rate and betas stay the recipe's as it is now."""
    if groups.get(name) != _sizes(optimizer):
        raise ValueError(
            f"optimizer {name} of groups {groups.get(name)}, expected {_sizes(optimizer)}"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in _below(tensors, f"optimizer/{name}/").items():
        index, entry = key.split("/")
        entries = state.setdefault(int(index), {})
        entries[entry] = value if entry == "step" else _laid_out(value, parameters[int(index)])
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": own})


def _laid_out(moment: Tensor, parameter: Tensor) -> Tensor:
    """A moment in its parameter's memory layout: fused Adam wants equal strides."""
    if moment.shape != parameter.shape:
        raise ValueError(f"a moment of {tuple(moment.shape)}, expected {tuple(parameter.shape)}")
    laid_out = torch.empty_like(parameter, dtype=moment.dtype, memory_format=torch.preserve_format)
    return laid_out.copy_(moment)
