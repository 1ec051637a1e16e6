"""What a recipe will need, before it is run: parameters, memory and operations.

The networks are built without memory (on the device "meta"), so that the paper's size can be
estimated on any machine. Frozen networks that only supervise are not counted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from panini.checkpoints import load_model
from panini.errors import CheckpointError, ConfigError
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.panini_net import PaniniConfig, PaniniNet
from panini.models.prior import Window
from panini.training.config import RunConfig
from panini.training.degradation import DegradationRunConfig
from panini.training.network import freeze
from panini.training.restoration import RestorationRunConfig
from panini.training.warmup import WarmupRunConfig

Estimate = dict[str, float | int | str]


def estimate(config: RunConfig) -> Estimate:
    """Parameters, memory and operations of a recipe.

    Returns:
        `parameters_m` and `trained_m` in millions; `forward_gflop_a_face` (two operations a
        multiply-add) of the network alone; `run_pflop`, three times that for all images;
        `weights_mb` with the average, gradients and Adam's moments; `activations_mb`, at most,
        of a batch. `unknown` says why there is nothing to tell.
    """
    try:
        net, faces = _network(config)
    except (CheckpointError, ConfigError, ValueError) as error:
        return {"unknown": " ".join(str(error).split())}
    flops, saved = _measure(net, faces)
    parameters = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    half = 1.0 if config.precision == "float32" else 0.5
    return {
        "parameters_m": round(parameters / 1e6, 3),
        "trained_m": round(trained / 1e6, 3),
        "forward_gflop_a_face": round(flops / 1e9, 3),
        "run_pflop": round(3 * flops * config.images / 1e15, 3),
        "weights_mb": round((2 * parameters + 3 * trained) * 4 / 1e6, 1),
        "activations_mb": round(half * saved * config.data.batch / 1e6, 1),
    }


def _network(config: RunConfig) -> tuple[nn.Module, Callable[[nn.Module], object]]:
    """A network without memory, and its forward pass on one face as the recipe runs it."""
    side = config.data.lq_size
    if isinstance(config, DegradationRunConfig):
        side = config.crop or side
        with torch.device("meta"):
            net = DegradationEncoder(DegradationEncoderConfig(kind=config.kind)).eval()
        return net, lambda net: net(_faces(side))
    window, size = None, None
    if isinstance(config, RestorationRunConfig):
        cells, size = config.output_at(config.images)
        window = Window(top=0, left=0, side=cells)
    with torch.device("meta"):
        net = freeze(PaniniNet(_shape_of(config)))
    if isinstance(config, RestorationRunConfig) and config.train_prior:
        net.prior.requires_grad_(True)
    if isinstance(config, WarmupRunConfig):
        size = 2 * max(net.prior.channels)
    return net, lambda net: net(_faces(side), window=window, size=size)


def _shape_of(config: RunConfig) -> PaniniConfig:
    if isinstance(config, WarmupRunConfig):
        return config.start.shape()
    if not isinstance(config, RestorationRunConfig):
        raise ConfigError(f"no estimate for a {type(config).__name__}")
    if config.start is not None:
        return config.start.shape()
    assert config.init is not None  # the recipe saw to it
    return load_model(config.init).config


def _faces(side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def _measure(net: nn.Module, run: Callable[[nn.Module], object]) -> tuple[int, int]:
    """Operations of a forward pass, and bytes that it keeps for the backward pass."""
    saved = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal saved
        if not isinstance(tensor, nn.Parameter):
            saved += tensor.numel() * tensor.element_size()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(net)
    return counter.get_total_flops(), saved
