"""What the stages share: the loop, checkpoints, logs, EMA and the learning-rate schedule."""

from __future__ import annotations

import json
import logging
import math
import pickle
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from panini.config import Config
from panini.data import DataConfig, FaceBatches, GroupBatch, batches
from panini.errors import ConfigError, TrainingError
from panini.models.panini_net import PaniniNet

logger = logging.getLogger(__name__)

STATE = "state.pt"
WEIGHTS = "panini.safetensors"
"""What the stages that train a whole network leave for the next one."""


class RunConfig(Config):
    """What every stage has."""

    out: Path
    """Folder of the run: state.pt, stats.jsonl and the weights."""
    images: int = Field(gt=0)
    """Length of the run, in images."""
    data: DataConfig
    seed: int = 0
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, then a half cosine to a hundredth."""
    warmup_images: int = 256
    """Images of linear warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_half_life: int = 2000
    """Images after which a weight's share in the average has halved."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass; weights and optimizer stay float32."""
    device: str = "cpu"
    log_every_s: float = 5.0
    """Seconds between log lines."""
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints."""


class Stage(ABC):
    """One stage: its networks, its optimizers, and what a step does."""

    modules: dict[str, nn.Module]
    """Everything that a checkpoint holds, by name."""
    optimizers: dict[str, torch.optim.Optimizer]

    @abstractmethod
    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One update; returns figures to log."""

    @abstractmethod
    def save(self, folder: Path, nimg: int) -> None:
        """Write the stage's weights for the next stage."""


def fit(stage: Stage, config: RunConfig, *, paired: bool = False) -> None:
    """Run a stage to its end, from where its folder stands.

    Raises:
        TrainingError: The loss is not finite, or a checkpoint cannot be written.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    step, nimg = _resume(stage, config)
    size = sum(group.count for group in config.data.groups)
    stop = math.ceil(config.images / size)
    dataset = FaceBatches(config.data, config.seed, paired=paired)
    log = _Log(config.out / "stats.jsonl", config.log_every_s, config.images)
    saved = time.monotonic()
    for batch in batches(dataset, step, stop):
        factor = _schedule(config, nimg)
        for optimizer in stage.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        figures = stage.step(_to(batch, config.device), step, nimg)
        step, nimg = step + 1, nimg + size
        log.add(figures, nimg)
        if time.monotonic() - saved > config.checkpoint_every_s:
            _checkpoint(stage, config, step, nimg)
            saved = time.monotonic()
    _checkpoint(stage, config, step, nimg)


def freeze(net: PaniniNet) -> PaniniNet:
    """Fix prior and degradation encoder, as the paper fixes the latter."""
    net.train()
    net.prior.requires_grad_(False)
    if net.config.degradation_encoder is not None:
        net.degradation_encoder.requires_grad_(False).eval()
    return net


def trainable(net: PaniniNet) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(all trainable parameters but the mask MLPs', the mask MLPs')."""
    masks = [p for name, p in net.named_parameters() if "mask_mlp" in name]
    known = {id(p) for p in masks}
    return [p for p in net.parameters() if p.requires_grad and id(p) not in known], masks


def check_lq_size(net: PaniniNet, config: RunConfig) -> None:
    """Refuse data of another size than the network takes.

    Raises:
        ConfigError: They differ.
    """
    if net.config.in_size != config.data.lq_size:
        raise ConfigError(
            f"data.lq_size: the network takes faces of {net.config.in_size} px, "
            f"got {config.data.lq_size}"
        )


def optimizer(config: RunConfig, *groups: tuple[list[nn.Parameter], float]) -> torch.optim.Adam:
    """Adam over (parameters, factor on the learning rate)."""
    return torch.optim.Adam(
        [
            {"params": parameters, "lr": (lr := config.learning_rate * factor), "initial_lr": lr}
            for parameters, factor in groups
        ],
        betas=config.betas,
    )


def update(optimizer: torch.optim.Optimizer, loss: Tensor, clip_norm: float) -> Tensor:
    """One optimizer step; returns the gradient's norm.

    Raises:
        TrainingError: The loss or its gradient is not finite; the weights are left as they were.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if not torch.isfinite(norm):
        raise TrainingError(
            f"the loss is {loss.item():.3g} and its gradient not finite; the last checkpoint is "
            "good: lower learning_rate, or use precision float32, and run again"
        )
    optimizer.step()
    return norm


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, images: int, half_life: int, nimg: int) -> None:
    """Move the average towards the network; early averages are short (ramp-up).

    Args:
        ema: The average.
        net: The network.
        images: Images of the step.
        half_life: In images.
        nimg: Images seen so far.
    """
    decay = 0.5 ** (images / max(min(half_life, nimg / 10), 1e-8))
    for average, value in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - decay)
        else:
            average.copy_(value)


def autocast(config: RunConfig) -> torch.autocast:
    """The forward pass's precision."""
    return torch.autocast(
        torch.device(config.device).type,
        torch.bfloat16,
        enabled=config.precision == "bfloat16",
    )


def _schedule(config: RunConfig, nimg: int) -> float:
    warmup = min(1.0, (nimg + 1) / max(config.warmup_images, 1))
    progress = min(nimg / config.images, 1.0)
    return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _resume(stage: Stage, config: RunConfig) -> tuple[int, int]:
    path = config.out / STATE
    if not path.exists():
        return 0, 0
    try:
        # weights_only: tensors and plain containers, never code.
        state: dict[str, Any] = torch.load(path, map_location=config.device, weights_only=True)
        for name, module in stage.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in stage.optimizers.items():
            _load_optimizer(optimizer, state["optimizers"][name])
        step, nimg = int(state["step"]), int(state["nimg"])
    except (
        *(OSError, EOFError, RuntimeError, pickle.UnpicklingError),
        *(KeyError, TypeError, ValueError),
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{path}: not a state of this configuration ({reason}); "
            "choose another `out`, or remove it to start again"
        ) from error
    logger.info("resumed from %s at %d images", path, nimg)
    return step, nimg


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take the moments from a state, but learning rate and betas from the recipe as it is now."""
    own = [{"initial_lr": g["initial_lr"], "betas": g["betas"]} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def _checkpoint(stage: Stage, config: RunConfig, step: int, nimg: int) -> None:
    state = {
        "step": step,
        "nimg": nimg,
        "modules": {name: module.state_dict() for name, module in stage.modules.items()},
        "optimizers": {name: opt.state_dict() for name, opt in stage.optimizers.items()},
    }
    partial = config.out / f".{STATE}"
    try:
        torch.save(state, partial)
        partial.replace(config.out / STATE)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"{config.out / STATE}: cannot be written ({error}); the checkpoint before it is whole"
        ) from error
    stage.save(config.out, nimg)


def _to(batch: list[GroupBatch], device: str) -> list[GroupBatch]:
    return [GroupBatch(*(part.to(device, non_blocking=True) for part in group)) for group in batch]


class _Log:
    """Means of the figures since the last line, to the logger and to stats.jsonl."""

    def __init__(self, path: Path, every_s: float, images: int) -> None:
        self.path = path
        self.every_s = every_s
        self.images = images
        self.sums: dict[str, list[float]] = {}
        self.since = time.monotonic()
        self.nimg = 0

    def add(self, figures: dict[str, Tensor], nimg: int) -> None:
        for name, value in figures.items():
            self.sums.setdefault(name, []).append(float(value))
        if not self.nimg:
            self.nimg = nimg
        elapsed = time.monotonic() - self.since
        if elapsed < self.every_s:
            return
        means = {name: sum(values) / len(values) for name, values in self.sums.items()}
        line = {"nimg": nimg, "images_per_s": (nimg - self.nimg) / elapsed} | means
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logger.info(
            "%d/%d images, %s",
            nimg,
            self.images,
            ", ".join(f"{name} {value:.4g}" for name, value in line.items() if name != "nimg"),
        )
        self.sums, self.since, self.nimg = {}, time.monotonic(), nimg
