"""Foreign files, written as their own programs write them."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from panini.checkpoints.convert.stylegan2 import nvidia_names
from panini.models.stylegan2 import StyleGAN2


class EasyDict(dict):
    """Stands for NVIDIA's `dnnlib.util.EasyDict` while a file is written."""


class Persistent(nn.Module):
    """A module that pickles itself as NVIDIA's `torch_utils.persistence` does."""

    source = "raise SystemExit('the source was run')"

    def __init__(self, class_name: str, **attributes: Any) -> None:
        super().__init__()
        self._class_name = class_name
        self._init_args = ()
        self._init_kwargs = EasyDict()
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> Any:
        reconstruct = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        state = {key: value for key, value in self.__dict__.items() if key != "_class_name"}
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self._class_name,
            "state": state,
        }
        return reconstruct, (meta,), None


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("only its name is written")


def place(root: nn.Module, name: str, tensor: Tensor, attributes: Mapping[str, Any]) -> None:
    """Put a tensor at a dotted name, making the modules on the way."""
    *path, leaf = name.split(".")
    node = root
    for depth, part in enumerate(path):
        if part not in node._modules:
            here = ".".join(path[: depth + 1])
            kind = "FullyConnectedLayer" if part.startswith("fc") else "SynthesisLayer"
            setattr(node, part, Persistent(kind, **attributes.get(here, {})))
        node = node._modules[part]
    if leaf in ("w_avg", "noise_const", "resample_filter"):
        node.register_buffer(leaf, tensor)
    else:
        node.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))


def nvidia_tensors(generator: StyleGAN2) -> dict[str, Tensor]:
    """A generator's tensors under NVIDIA's names and in their shapes."""
    state = generator.state_dict()
    tensors = {}
    for theirs, ours in nvidia_names(generator.config).items():
        tensor = state[ours]
        if theirs.endswith((".const", "noise_const")):
            tensor = tensor.reshape(
                tensor.shape[-3:] if "b4.const" in theirs else tensor.shape[-2:]
            )
        tensors[theirs] = tensor.squeeze() if theirs.endswith("noise_strength") else tensor
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for level in generator.levels:
        for place_of in ("", ".conv1", *([] if level == 4 else [".conv0"])):
            tensors[f"synthesis.b{level}{place_of}.resample_filter"] = torch.outer(taps, taps)
    return tensors


def nvidia_module(tensors: Mapping[str, Tensor], lr_mul: float = 0.01, **facts: Any) -> Persistent:
    """A generator as NVIDIA's program has it in memory."""
    attributes: dict[str, Any] = {"mapping.fc0": {"bias_gain": lr_mul, "activation": "lrelu"}}
    conv = {"activation": "lrelu", "conv_clamp": 256, "act_gain": np.float64(2) ** 0.5} | facts
    attributes["synthesis.b8.conv0"] = conv
    root = Persistent("Generator", z_dim=512, c_dim=0, img_resolution=64)
    root._init_kwargs = EasyDict(z_dim=512, mapping_kwargs=EasyDict(num_layers=8))
    root._non_persistent_buffers_set = set()
    for name, tensor in tensors.items():
        place(root, name, tensor, attributes)
    return root


@pytest.fixture
def nvidia(monkeypatch, tmp_path):
    """Writes {"G_ema": module, …} as training_loop.py does; gives the path."""
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")
    sys.modules["dnnlib.util"].EasyDict = EasyDict
    monkeypatch.setattr(EasyDict, "__module__", "dnnlib.util")

    def write(content: Any, path: Path | None = None, protocol: int = 3) -> Path:
        path = path or tmp_path / "network-snapshot.pkl"
        with path.open("wb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of storages in plain pickles
            pickle.dump(content, file, protocol=protocol)
        return path

    write.module = nvidia_module
    write.tensors = nvidia_tensors
    return write
