"""Networks with random weights, so that a study can be tried in seconds and without any file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from panini.checkpoints import save_model
from panini.models.mobile_encoder import MobileEncoderConfig
from panini.models.panini_net import PaniniConfig, PaniniNet, Task, named_config

UNTRAINED = "untrained"
"""In a recipe it stands, as a size or a path, for a tiny network that learned nothing."""


def resolve_untrained(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put the untrained network's file where a recipe says `untrained`.

    Args:
        fields: Of the recipe.
        folder: Where the file is, or is written to.
    """
    task: Task = "sr16" if fields["data"]["task"] == "sr16" else "mfr"
    path = folder / f"{UNTRAINED}-{task}.safetensors"

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [resolve(item) for item in value]
        if isinstance(value, str | Path) and str(value) == UNTRAINED:
            if not path.is_file():
                _write(task, path)
            return str(path) if isinstance(value, str) else path
        return value

    return resolve(fields)


def _write(task: Task, path: Path) -> None:
    torch.manual_seed(0)
    net = PaniniNet(_tiny(task))
    save_model(net, path, provenance={"trained": "never"})


def _tiny(task: Task) -> PaniniConfig:
    config = named_config("tiny")
    if task == "mfr":
        return config
    assert isinstance(config.encoder, MobileEncoderConfig)
    encoder = replace(config.encoder, in_size=64, unshuffle=1)
    return replace(config, task="sr16", encoder=encoder, degradation_encoder=None)
