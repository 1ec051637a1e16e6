"""Weights as safetensors: tensors, the config that builds their network, and their provenance."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from panini.checkpoints.kinds import check_fit, check_values, printable
from panini.checkpoints.specs import SPECS
from panini.errors import CheckpointError
from panini.models.panini_net import PaniniNet

FORMAT = "panini-1"
MAX_HEADER = 16 << 20
"""Bytes; ours have a hundredth of it, and parsing takes many times the memory."""


@dataclass(frozen=True)
class Header:
    """What a weights file of ours says of itself."""

    kind: str
    meta: dict[str, Any]
    """JSON values by key: the config, provenance."""
    shapes: dict[str, tuple[int, ...]]
    """Of its tensors."""


def save_tensors(
    state: Mapping[str, Tensor], path: str | os.PathLike[str], *, kind: str, meta: Mapping[str, Any]
) -> None:
    """Write tensors with metadata, whole or not at all.

    Args:
        state: Name → tensor.
        path: The .safetensors file; its folder is made.
        kind: What the tensors are: "panini-net", "mobile-prior", …
        meta: JSON values by key: the config, provenance.

    Raises:
        CheckpointError: The file cannot be written.
    """
    header = {"format": FORMAT, "kind": kind}
    header |= {key: json.dumps(value) for key, value in meta.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        partial = Path(name)
        try:
            save_file(tensors, partial, metadata=header)
            partial.chmod(0o644)
            _to_disk(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        cause = _system_error(error)
        raise CheckpointError(f"{path}: cannot be written ({error})") from cause


def _system_error(error: OSError | SafetensorError) -> OSError | SafetensorError:
    """The system's error that safetensors tells in words only; any other as it is."""
    told = re.search(r"I/O error: (.*) \(os error (\d+)\)", str(error))
    if isinstance(error, OSError) or told is None:
        return error
    number = int(told[2])
    # The last is Windows' number, which other systems do not look at.
    return OSError(number, told[1], None, number)


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: renamed before, it may be empty after a power loss."""
    # Windows flushes only what is open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def load_tensors(
    path: Path, *, kind: str, names: Collection[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: tensors and metadata.

    Args:
        path: The .safetensors file.
        kind: What it holds.
        names: Of the tensors that are read; None is all.

    Raises:
        CheckpointError: The file is missing, damaged, or not of this kind.
    """
    header = read_header(path)
    if header is None or header.kind != kind:
        found = "a foreign file" if header is None else printable(header.kind)
        raise CheckpointError(f"{path}: expected {kind} weights of ours, found {found}")
    with _reading(path), safe_open(path, framework="pt") as file:
        wanted = header.shapes if names is None else names
        return {name: file.get_tensor(name) for name in wanted}, header.meta


def check_is_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        CheckpointError: It is missing, a folder, or a pipe, which would be waited for.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder, expected a file of weights")
    if path.exists() and not path.is_file():
        raise CheckpointError(
            f"{path}: is a pipe or a device, expected a file of weights; write it to a file first"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")


def read_header(path: Path) -> Header | None:
    """Kind, metadata and shapes of a weights file; None if it is not one of ours.

    Raises:
        CheckpointError: The file is missing, or a damaged safetensors file.
    """
    check_is_file(path)
    if path.suffix != ".safetensors" and not is_safetensors(path):
        return None
    with _reading(path):
        _check_length(path)
        with safe_open(path, framework="pt") as file:
            meta = dict(file.metadata() or {})
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if meta.pop("format", None) != FORMAT:
            return None
        kind = meta.pop("kind", "weights without a kind")
        return Header(kind, {key: json.loads(value) for key, value in meta.items()}, shapes)


def is_safetensors(path: Path) -> bool:
    """Whether a file starts as safetensors do: a length that it can have, and JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size


def _check_length(path: Path) -> None:
    """Hold the header's length against the file before anything is made of it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(path.stat().st_size, MAX_HEADER):
        raise ValueError(f"a header of {length} bytes")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({printable(error)}); fetch or make it again"
        ) from error


OWN_PRIOR = "own_prior."
"""Prefix of a network's file: the prior's tensors as they were before restoration changed them."""


def save_model(
    net: PaniniNet,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    prior: nn.Module | None = None,
) -> None:
    """Write a network with its config.

    Args:
        net: The network.
        path: The .safetensors file.
        provenance: Where the weights are from: JSON values by key.
        dtype: Floating tensors are stored as this; None keeps them.
        prior: As it was before restoration changed it: what differs is kept beside the network, for
            `load_network_prior`. None: nothing is.
    """
    state = net.state_dict()
    if prior is not None:
        now = {name: state[f"prior.{name}"].cpu() for name in prior.state_dict()}
        own = {name: tensor.cpu() for name, tensor in prior.state_dict().items()}
        state |= {OWN_PRIOR + n: tensor for n, tensor in own.items() if not tensor.equal(now[n])}
    state = {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    meta = {"config": net.config.to_dict(), "provenance": dict(provenance)}
    save_tensors(state, path, kind="panini-net", meta=meta)


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a module; every name and shape must fit, every number be finite.

    Raises:
        CheckpointError: Names the first keys that are missing, unknown or of another shape, or
            the first that holds an infinity, a NaN, or numbers of another sort.
    """
    expected = module.state_dict()
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    check_fit(shapes, {name: tensor.shape for name, tensor in state.items()}, source)
    check_values(expected, state, source)
    module.load_state_dict(dict(state))


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a shipped model's name, of hf://owner/repo, or of a path.

    Raises:
        CheckpointError: An unknown name; a shipped file that is missing or damaged.
    """
    name = os.fspath(name_or_path)
    if name in SPECS:
        spec = SPECS[name]
        if not spec.path.is_file():
            raise CheckpointError(f"{name}: {spec.path} is missing; install panini-net again")
        if sha256_of(spec.path) != spec.sha256:
            raise CheckpointError(f"{name}: {spec.path} is damaged; install panini-net again")
        return spec.path
    if name.startswith("hf://"):
        from panini.checkpoints.hub import fetch

        return fetch(name)
    path = Path(name)
    if not path.suffix and not path.exists():
        known = ", ".join(SPECS) or "none installed"
        raise CheckpointError(f"{name}: unknown model; known: {known}; or give a weights file")
    return path
