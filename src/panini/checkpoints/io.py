"""Weights as safetensors: tensors, the config that builds their network, and their provenance."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from panini.checkpoints.specs import SPECS
from panini.errors import CheckpointError
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniConfig, PaniniNet

FORMAT = "panini-1"


def save_tensors(
    state: Mapping[str, Tensor], path: Path, *, kind: str, meta: Mapping[str, Any]
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        partial = Path(name)
        try:
            save_file(tensors, partial, metadata=header)
            partial.chmod(0o644)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: tensors and metadata.

    Raises:
        CheckpointError: The file is missing, damaged, or not of this kind.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            found = header.pop("kind", "a foreign file")
            if header.pop("format", None) != FORMAT or found != kind:
                raise CheckpointError(f"{path}: expected {kind} weights of ours, found {found}")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return state, {key: json.loads(value) for key, value in header.items()}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); fetch or make it again"
        ) from error


def save_model(
    net: PaniniNet,
    path: Path,
    *,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network with its config.

    Args:
        net: The network.
        path: The .safetensors file.
        provenance: Where the weights are from: JSON values by key.
        dtype: Floating tensors are stored as this; None keeps them.
    """
    state = {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in net.state_dict().items()
    }
    meta = {"config": net.config.to_dict(), "provenance": dict(provenance)}
    save_tensors(state, path, kind="panini-net", meta=meta)


def load_model(name_or_path: str | os.PathLike[str]) -> PaniniNet:
    """A trained network, float32, in eval mode, on the CPU.

    Args:
        name_or_path: A shipped model's name ("mobile-mfr"), a .safetensors file of ours, or
            hf://owner/repo on the Hugging Face hub.

    Raises:
        CheckpointError: Unknown name; missing, damaged or foreign file.
    """
    path = _resolve(name_or_path)
    state, meta = load_tensors(path, kind="panini-net")
    try:
        net = PaniniNet(PaniniConfig.from_dict(meta["config"]))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its configuration is unusable: {error}") from error
    load_state(net, state, path)
    return net.eval()


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a module; every name and shape must fit.

    Raises:
        CheckpointError: Names the first keys that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    for problem, names in (("missing", missing), ("unknown", unknown), ("misshapen", shapes)):
        if names:
            raise CheckpointError(
                f"{source}: {len(names)} {problem} tensors, first: {', '.join(names[:3])}"
            )
    module.load_state_dict(dict(state))


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _resolve(name_or_path: str | os.PathLike[str]) -> Path:
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
    if path.suffix != ".safetensors" and not path.exists():
        known = ", ".join(SPECS) or "none installed"
        raise CheckpointError(f"{name}: unknown model; known: {known}; or give a .safetensors file")
    return path


def load_prior(path: Path) -> MobileStyleGAN:
    """A mobile prior that `panini convert mobile-prior` wrote, in eval mode.

    Raises:
        CheckpointError: The file is missing, damaged, or no such prior.
    """
    state, meta = load_tensors(path, kind="mobile-prior")
    # Files that do not say have the public model's shape.
    fields = dict(meta.get("config", {}))
    try:
        if "channels" in fields:
            fields["channels"] = tuple(fields["channels"])
        prior = MobileStyleGAN(MobileStyleGANConfig(**fields))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its configuration is unusable: {error}") from error
    load_state(prior, state, path)
    return prior.eval()
