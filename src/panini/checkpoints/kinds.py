"""The networks that weights files hold: what is said of a file, what builds it, whether it fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from panini.errors import CheckpointError
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniConfig, PaniniNet
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

KindName = Literal["panini-net", "stylegan2-prior", "mobile-prior", "degradation-encoder"]
Config = PaniniConfig | StyleGAN2Config | MobileStyleGANConfig | DegradationEncoderConfig

MAX_NUMBER = 1 << 16
"""No side, width or count of a network is larger."""
MIN_LAYERS = 64
"""That a config may ask for, however few tensors there are."""
_COUNTS = ("rrdb_blocks", "mapping_layers", "depths")


@dataclass(frozen=True)
class Kind:
    """One kind of network."""

    title: str
    build: Callable[[Any], nn.Module]
    from_json: Callable[[Mapping[str, Any]], Config]


def _mobile_config(fields: Mapping[str, Any]) -> MobileStyleGANConfig:
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return MobileStyleGANConfig(**{**fields, **lists})


KINDS: dict[KindName, Kind] = {
    "panini-net": Kind("Panini-Net", PaniniNet, PaniniConfig.from_dict),
    "stylegan2-prior": Kind("StyleGAN2 prior", StyleGAN2, lambda f: StyleGAN2Config(**f)),
    "mobile-prior": Kind("mobile prior", MobileStyleGAN, _mobile_config),
    "degradation-encoder": Kind(
        "degradation encoder", DegradationEncoder, lambda f: DegradationEncoderConfig(**f)
    ),
}


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What a file is."""

    format: str
    """"ours", "authors", "moco", "nvidia", "rosinality", "mmgen" or "random-face"."""
    title: str
    """The format in words."""
    kind: KindName
    """What network the file holds; the kind of our file that a conversion writes."""
    config: Config
    """Builds that network."""
    parameters: int
    """Numbers that training would change."""
    tensors: int
    """Tensors of the file that the network is made of."""
    ema: bool = False
    """Whether they are a moving average of the training's."""
    left_aside: Mapping[str, int] = field(default_factory=dict)
    """Start of the names of what is not needed, by design → number of tensors."""
    notes: tuple[str, ...] = ()
    """What else there is to know, a sentence each."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the weights are from: JSON, of our own files."""

    @property
    def task(self) -> str | None:
        """Of a Panini-Net, "mfr" or "sr16"; None of the others."""
        return self.config.task if isinstance(self.config, PaniniConfig) else None

    @property
    def size(self) -> int | None:
        """Side of the image that the network draws, px; None of a degradation encoder."""
        if isinstance(self.config, PaniniConfig):
            return self.config.out_size
        return None if isinstance(self.config, DegradationEncoderConfig) else self.config.size

    @property
    def channel_multiplier(self) -> float | None:
        """Of the StyleGAN2 inside; None where there is none."""
        prior = self.config.prior if isinstance(self.config, PaniniConfig) else self.config
        return prior.channel_multiplier if isinstance(prior, StyleGAN2Config) else None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A network's weights under our names."""

    recognition: Recognition
    state: dict[str, Tensor]


def printable(text: object) -> str:
    """What a stranger's file says, without the letters that would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def to_json(config: Config) -> dict[str, Any]:
    """Plain containers; the kind's `from_json` is the inverse."""
    return config.to_dict() if isinstance(config, PaniniConfig) else asdict(config)


def config_of(kind: KindName, fields: Mapping[str, Any], tensors: int, source: Path) -> Config:
    """The config that a file states.

    Args:
        kind: Of network.
        fields: JSON.
        tensors: How many the file has; a network of more layers than that is not worth building.
        source: The file, for messages.

    Raises:
        CheckpointError: It builds no network.
    """
    try:
        _check_numbers(fields, tensors)
        return KINDS[kind].from_json(fields)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = printable(error)
        raise CheckpointError(f"{source}: its configuration is unusable: {reason}") from error


def outline(kind: KindName, config: Config, source: Path) -> nn.Module:
    """The network without memory for its weights: names, shapes, counts.

    Raises:
        CheckpointError: The config's numbers do not go together.
    """
    try:
        with torch.device("meta"):
            return KINDS[kind].build(config)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise CheckpointError(f"{source}: its configuration is unusable: {reason}") from error


def check_fit(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], source: Path | str
) -> None:
    """Compare shapes by name.

    Raises:
        CheckpointError: Names the first tensors that are missing, unknown or of another shape.
    """
    missing = [repr(name) for name in expected if name not in found]
    unknown = [repr(name) for name in found if name not in expected]
    misshapen = [
        f"{name!r} {tuple(found[name])} for {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    for problem, names in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen)):
        if names:
            first = ", ".join(name[:200] for name in names[:3])
            raise CheckpointError(f"{source}: {len(names)} {problem} tensors, first: {first}")


def check_values(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path | str
) -> None:
    """Refuse numbers that a network would take and draw nonsense with.

    Args:
        expected: The network's tensors by name; of the type that counts, on any device.
        found: Those of the file, of the same names.
        source: The file, for messages.

    Raises:
        CheckpointError: Names the first tensor that holds an infinity or a NaN, or whole numbers in
            the place of fractions.
    """
    for name, tensor in found.items():
        dtype = expected[name].dtype
        if tensor.is_floating_point() != dtype.is_floating_point:
            raise CheckpointError(
                f"{source}: {name!r} holds numbers of type {tensor.dtype}, expected {dtype};"
                " convert the file again from its source"
            )
        if tensor.is_floating_point() and not _is_finite(tensor.to(dtype)):
            raise CheckpointError(
                f"{source}: {name!r} holds infinities or NaNs, expected finite numbers;"
                " fetch or make the file again"
            )


def _is_finite(tensor: Tensor) -> bool:
    # The extremes tell of NaNs too, and take neither the time nor the memory of isfinite.
    return not tensor.numel() or all(math.isfinite(edge) for edge in tensor.aminmax())


def _check_numbers(fields: Any, tensors: int, limit: int = MAX_NUMBER) -> None:
    """A config may be a lie as well: its numbers are held against the file first."""
    if isinstance(fields, Mapping):
        for name, value in fields.items():
            most = max(tensors, MIN_LAYERS) if name in _COUNTS else MAX_NUMBER
            _check_numbers(value, tensors, most)
    elif isinstance(fields, list | tuple):
        for value in fields:
            _check_numbers(value, tensors, limit)
    elif isinstance(fields, int | float) and not abs(fields) <= limit:
        raise ValueError(f"a number of {fields}")
