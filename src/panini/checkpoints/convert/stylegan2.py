"""StyleGAN2 generators of other implementations: their names to ours.

All of them compute the same function with the weights stored in the same way (unscaled, in the
orientation of PyTorch's convolutions), so a conversion renames and drops axes of length one:

- mmgen/mmedit and rosinality, which count layers ("convs.3");
- NVIDIA's PyTorch repositories, which name blocks by their side ("synthesis.b16.conv1").
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from panini.checkpoints.pickle_names import Module
from panini.errors import CheckpointError
from panini.models.stylegan2 import MappingNetwork, StyleGAN2Config

W_AVG_SAMPLES = 4096
W_AVG_SEED = 0
MAX_LAYERS = 64
"""That are looked for."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an implementation that counts layers calls its tensors."""

    constant: str
    """The constant input."""
    mapping: str
    """The mapping network; its linear layers count from 1."""
    linear: str
    """The weight of a linear layer, below the layer."""
    weight: str
    """The weight of a convolution, below the layer."""
    style: str
    """The linear layer from w to the scale of the channels, below the layer."""
    noise_strength: str
    """Below the layer."""
    noise: str
    """The noise buffers, which count from 0."""


MMGEN = Dialect(
    constant="constant_input.input",
    mapping="style_mapping",
    linear="linear.weight_orig",
    weight="conv.weight_orig",
    style="conv.style_modulation",
    noise_strength="noise_injector.weight",
    noise="injected_noise_",
)
ROSINALITY = Dialect(
    constant="input.input",
    mapping="style",
    linear="weight",
    weight="conv.weight",
    style="conv.modulation",
    noise_strength="noise.weight",
    noise="noises.noise_",
)


def counted_names(
    dialect: Dialect, config: StyleGAN2Config, theirs: str = "", ours: str = ""
) -> dict[str, str]:
    """Their name of every tensor of the generator with ours, each side with its prefix."""
    names = {f"{theirs}{dialect.constant}": f"{ours}constant"}
    for i in range(config.mapping_layers):
        layer = f"{ours}mapping_network.layers.{i}"
        names[f"{theirs}{dialect.mapping}.{i + 1}.bias"] = f"{layer}.bias"
        names[f"{theirs}{dialect.mapping}.{i + 1}.{dialect.linear}"] = f"{layer}.weight"

    def modulated(source: str, target: str, bias: str) -> None:
        names[f"{theirs}{source}.{bias}"] = f"{ours}{target}.bias"
        names[f"{theirs}{source}.{dialect.weight}"] = f"{ours}{target}.weight"
        names[f"{theirs}{source}.{dialect.style}.bias"] = f"{ours}{target}.style.bias"
        style = f"{theirs}{source}.{dialect.style}.{dialect.linear}"
        names[style] = f"{ours}{target}.style.weight"

    def styled(source: str, target: str, index: int) -> None:
        modulated(source, target, "activate.bias")
        names[f"{theirs}{source}.{dialect.noise_strength}"] = f"{ours}{target}.noise_strength"
        names[f"{theirs}{dialect.noise}{index}"] = f"{ours}{target}.noise"

    styled("conv1", "blocks.4.conv1", 0)
    modulated("to_rgb1", "blocks.4.to_rgb", "bias")
    for i in range(config.size.bit_length() - 3):
        block = f"blocks.{8 << i}"
        modulated(f"to_rgbs.{i}", f"{block}.to_rgb", "bias")
        for j in (0, 1):
            styled(f"convs.{2 * i + j}", f"{block}.conv{j}", 2 * i + j + 1)
    return names


def counted_config(tensors: Mapping[str, Tensor], dialect: Dialect) -> StyleGAN2Config:
    """Size of a generator from its names and shapes.

    Raises:
        CheckpointError: They are those of no StyleGAN2 that we build.
    """
    blocks = max(_last(tensors, "to_rgbs.{}.bias") + 1, 1)
    return _config(
        size=4 << blocks,
        finest=_shape(tensors, f"to_rgbs.{blocks - 1}.{dialect.weight}")[-3:][0],
        coarsest=_shape(tensors, dialect.constant)[-3:][0],
        style_dim=_shape(tensors, f"conv1.{dialect.style}.{dialect.linear}")[-1],
        mapping_layers=_last(tensors, f"{dialect.mapping}.{{}}.bias"),
    )


def nvidia_names(config: StyleGAN2Config) -> dict[str, str]:
    """NVIDIA's name of every tensor of the generator with ours."""
    names = {"synthesis.b4.const": "constant", "mapping.w_avg": "w_avg"}
    for i, part in itertools.product(range(config.mapping_layers), ("weight", "bias")):
        names[f"mapping.fc{i}.{part}"] = f"mapping_network.layers.{i}.{part}"
    for exponent in range(2, config.size.bit_length()):
        level = 1 << exponent
        for layer in ("conv0", "conv1", "torgb")[level == 4 :]:
            theirs = f"synthesis.b{level}.{layer}"
            ours = f"blocks.{level}.{layer.replace('torgb', 'to_rgb')}"
            for part in ("weight", "bias"):
                names[f"{theirs}.{part}"] = f"{ours}.{part}"
                names[f"{theirs}.affine.{part}"] = f"{ours}.style.{part}"
            if layer != "torgb":
                names[f"{theirs}.noise_const"] = f"{ours}.noise"
                names[f"{theirs}.noise_strength"] = f"{ours}.noise_strength"
    return names


def nvidia_config(tensors: Mapping[str, Tensor], generator: Module) -> StyleGAN2Config:
    """Size of NVIDIA's generator.

    Args:
        tensors: Of the generator.
        generator: The pickled module, for what shapes do not tell; may be empty.

    Raises:
        CheckpointError: It is conditional, or not of the architecture that we build.
    """
    block, layer = generator.child("synthesis.b8"), generator.child("synthesis.b8.conv0")
    for fact, wanted in (("architecture", "skip"), ("activation", "lrelu")):
        found = (block.state | layer.state).get(fact, wanted)
        if found != wanted:
            raise CheckpointError(f"a StyleGAN2 whose {fact} is not {wanted!r}, as ours is")
    if "mapping.embed.weight" in tensors:
        raise CheckpointError("a StyleGAN2 with class labels; a prior of faces has none")
    size = max(
        (4 << i for i in range(12) if f"synthesis.b{4 << i}.conv1.weight" in tensors), default=4
    )
    gain = generator.child("mapping.fc0").state.get("bias_gain", 0.01)
    return _config(
        size=size,
        finest=_shape(tensors, f"synthesis.b{size}.conv1.weight")[0],
        coarsest=_shape(tensors, "synthesis.b4.const")[0],
        style_dim=_shape(tensors, "synthesis.b4.conv1.affine.weight")[-1],
        mapping_layers=_last(tensors, "mapping.fc{}.weight") + 1,
        mapping_lr_mul=float(gain),
    )


def mean_style(state: Mapping[str, Tensor], config: StyleGAN2Config, prefix: str = "") -> Tensor:
    """The mean of w, (style_dim,), estimated over W_AVG_SAMPLES latents of a fixed seed.

    Args:
        state: Holds the mapping network under our names.
        config: Of the generator.
        prefix: Of the generator's names.
    """
    start = f"{prefix}mapping_network."
    mapping = MappingNetwork(config)
    mapping.load_state_dict(
        {key.removeprefix(start): t.float() for key, t in state.items() if key.startswith(start)}
    )
    generator = torch.Generator().manual_seed(W_AVG_SEED)
    with torch.no_grad():
        return mapping(torch.randn(W_AVG_SAMPLES, config.style_dim, generator=generator)).mean(0)


def _config(*, size: int, finest: int, coarsest: int, **rest: float) -> StyleGAN2Config:
    try:
        # Where even the finest level has all channels, the multiplier is only known to be enough.
        multiplier = finest * size / 16384
        return StyleGAN2Config(
            size=size,
            channel_multiplier=multiplier,
            max_channels=coarsest,
            **rest,  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise CheckpointError(f"a StyleGAN2 of {size} px: {error}") from error


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim < 2:
        raise CheckpointError(f"a StyleGAN2 without {name!r}")
    return tuple(tensors[name].shape)


def _last(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The largest number for which a name is there, -1 without one; gaps are told later."""
    return max((i for i in range(MAX_LAYERS) if pattern.format(i) in tensors), default=-1)
