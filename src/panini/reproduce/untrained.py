"""Networks with random weights, so that a study can be tried in seconds and without any file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from panini.checkpoints import save_model, save_tensors
from panini.features.vgg16 import VGG16
from panini.models.mobile_encoder import MobileEncoderConfig
from panini.models.panini_net import PaniniConfig, PaniniNet, Task, named_config

UNTRAINED = "untrained"
"""In a recipe it stands, as a size or a path, for a tiny network that learned nothing."""
_VGG_WIDTHS = (4, 4, 4, 8, 8)


def resolve_untrained(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put an untrained network's file where a recipe says `untrained`: of the perceptual loss
    where the key is `vgg` or `heads`, else a whole Panini-Net.

    Args:
        fields: Of the recipe.
        folder: Where the file is, or is written to.
    """
    task: Task = "sr16" if fields["data"]["task"] == "sr16" else "mfr"

    def resolve(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: resolve(item, name) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [resolve(item, key) for item in value]
        if isinstance(value, str | Path) and str(value) == UNTRAINED:
            kind = key if key in ("vgg", "heads") else task
            path = folder / f"{UNTRAINED}-{kind}.safetensors"
            if not path.is_file():
                _WRITERS[kind](path)
            return str(path) if isinstance(value, str) else path
        return value

    return resolve(fields)


def _write_net(task: Task, path: Path) -> None:
    torch.manual_seed(0)
    net = PaniniNet(_tiny(task))
    save_model(net, path, provenance={"trained": "never"})


def _write_vgg(path: Path) -> None:
    torch.manual_seed(0)
    meta = {"mean_bgr": [103.939, 116.779, 123.68]}  # by which `load_vgg16` knows Caffe's
    save_tensors(VGG16(_VGG_WIDTHS).state_dict(), path, kind="vgg16", meta=meta)


def _write_heads(path: Path) -> None:
    heads = {f"lin{i}.weight": torch.ones(1, w, 1, 1) for i, w in enumerate(_VGG_WIDTHS)}
    save_tensors(heads, path, kind="lpips-heads", meta={})


def _tiny(task: Task) -> PaniniConfig:
    config = named_config("tiny")
    if task == "mfr":
        return config
    assert isinstance(config.encoder, MobileEncoderConfig)
    encoder = replace(config.encoder, in_size=64, unshuffle=1)
    return replace(config, task="sr16", encoder=encoder, degradation_encoder=None)


_WRITERS: dict[str, Callable[[Path], None]] = {
    "mfr": partial(_write_net, "mfr"),
    "sr16": partial(_write_net, "sr16"),
    "vgg": _write_vgg,
    "heads": _write_heads,
}
