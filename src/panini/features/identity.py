"""Who is it? The face descriptor of dlib, a small ResNet, in plain torch.

Two chips of one person lie less than about 0.6 apart (Euclidean), two persons farther. The network
wants dlib's 150 px chip; `ffhq_to_chip` cuts it from an FFHQ-aligned face of any size by one fixed
similarity, so no landmarks are needed and the whole way is differentiable.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from panini.errors import CheckpointError

CHIP_SIZE = 150
MEAN_RGB = (122.782, 117.001, 104.298)
STAGES = (
    ("32", ("1", "2", "3")),
    ("64", ("down", "1", "2", "3")),
    ("128", ("down", "1", "2")),
    ("256", ("down", "1", "2", "down_out")),
)
"""Residual blocks by width; the names are those of the weights' file."""

# Similarity (no rotation) from the FFHQ template to dlib's chip, least squares over eye centres and
# mouth corners. FFHQ in shares of the side: the template at 512 px. Chip in shares of its side:
# dlib's mean face (eye corners 36, 39, 42, 45 of the 68 landmarks, mouth corners 48, 54) with
# padding 0.25 around it, (p + 0.25) / 1.5.
_FFHQ = ((192.98, 239.95), (318.90, 240.19), (201.26, 371.41), (313.09, 371.15))
_MEAN_FACE = (
    (0.228172, 0.224078),
    (0.752082, 0.224078),
    (0.254149, 0.780233),
    (0.726104, 0.780233),
)


class IdentityNet(nn.Module):
    """dlib's face recognition ResNet: chip (N, 3, 150, 150) → descriptor (N, 128). Frozen.

    Args:
        width: Channels of the first stage; 32 is dlib's, less makes a light network for tests.
    """

    mean: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv32_down = _ScaledConv(3, width, kernel=7, stride=2)
        channels = width
        self.blocks: list[str] = []
        for stage, (label, names) in enumerate(STAGES):
            out = width * 2**stage
            for name in names:
                stride = 2 if name.startswith("down") else 1
                self.blocks.append(f"conv{label}_{name}")
                self.add_module(self.blocks[-1], _Residual(channels, out, stride))
                channels = out
        self.fc = nn.Linear(channels, 128, bias=False)
        mean = torch.tensor(MEAN_RGB).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, chips: Tensor) -> Tensor:
        """Descriptors of dlib face chips.

        Args:
            chips: RGB in [-1, 1], (N, 3, 150, 150); see `ffhq_to_chip`.

        Returns:
            (N, 128).

        Raises:
            ValueError: The chips are not 150 px.
        """
        if chips.ndim != 4 or chips.shape[1:] != (3, CHIP_SIZE, CHIP_SIZE):
            raise ValueError(
                f"expected face chips (N, 3, {CHIP_SIZE}, {CHIP_SIZE}), got {tuple(chips.shape)}; "
                "cut them with ffhq_to_chip"
            )
        x = ((chips + 1) * 127.5 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.conv32_down(x)), 3, stride=2)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean(dim=(2, 3)))

    def describe(self, images: Tensor) -> Tensor:
        """Descriptors (N, 128) of FFHQ-aligned faces in [-1, 1], (N, 3, S, S)."""
        return self(ffhq_to_chip(images))


class _ScaledConv(nn.Module):
    """Convolution and a learned scale a channel (dlib's batch norm, frozen)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        # dlib pads only convolutions of stride 1.
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.gain = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = _ScaledConv(inputs, outputs, stride=stride)
        self.conv2 = _ScaledConv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.stride > 1:
            x = F.avg_pool2d(x, 2)
        # dlib adds tensors of different shapes as if the missing channels, rows and columns were 0.
        height, width = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
        return F.relu(_grow(x, y.shape[1], height, width) + _grow(y, y.shape[1], height, width))


def _grow(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))


def chip_window() -> tuple[float, float, float]:
    """Left, top and side of dlib's chip in an FFHQ-aligned face, in shares of that face's side."""
    ffhq = torch.tensor(_FFHQ, dtype=torch.float64) / 512
    chip = (torch.tensor(_MEAN_FACE, dtype=torch.float64) + 0.25) / 1.5
    centred = ffhq - ffhq.mean(0), chip - chip.mean(0)
    side = float(centred[0].square().sum() / (centred[0] * centred[1]).sum())
    left, top = (ffhq.mean(0) - side * chip.mean(0)).tolist()
    return left, top, side


def ffhq_to_chip(images: Tensor) -> Tensor:
    """Cut dlib's 150 px chip from FFHQ-aligned faces. Differentiable.

    Args:
        images: RGB faces on the FFHQ template, (N, 3, S, S), any side S.

    Returns:
        (N, 3, 150, 150) in the same range, resampled with a triangle filter as wide as the
        reduction asks for, so that a large face does not alias.

    Raises:
        ValueError: The images are not square.
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"expected square faces (N, 3, S, S), got {tuple(images.shape)}")
    left, top, side = chip_window()
    size = images.shape[-1]
    columns = _resampling(size, left, side, images.device, images.dtype)
    rows = _resampling(size, top, side, images.device, images.dtype)
    return rows @ images @ columns.T


@lru_cache(maxsize=32)
def _resampling(
    size: int, start: float, span: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(150, size) weights that resample [start, start + span] (shares of the side) to 150 px."""
    step = span * size / CHIP_SIZE
    # Kept for later calls: a tensor made in inference mode would be of no use to a loss.
    with torch.inference_mode(False):
        centres = start * size + (torch.arange(CHIP_SIZE, dtype=torch.float64) + 0.5) * step
        pixels = torch.arange(size, dtype=torch.float64) + 0.5
        weights = (1 - (pixels[None] - centres[:, None]).abs() / max(step, 1.0)).clamp(min=0)
        return (weights / weights.sum(1, keepdim=True)).to(device, dtype)


def load_identity(path: str | Path) -> IdentityNet:
    """Read the descriptor network from a safetensors file, in float32, frozen.

    Args:
        path: File with ``conv32_down.conv.filters`` (height, width, in, out) ... ``fc`` (in, 128).

    Raises:
        CheckpointError: The file is missing, damaged, or does not hold these tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; expected the weights of the face descriptor (safetensors)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    try:
        network = IdentityNet(width=state["conv32_down.conv.bias"].shape[0])
        network.load_state_dict(dict(_ours(key, value) for key, value in state.items()))
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path}: expected the layers conv32_down ... fc of dlib's face descriptor ({reason})"
        ) from error
    return network


def _ours(key: str, value: Tensor) -> tuple[str, Tensor]:
    """The file's name and layout (TensorFlow's: height, width, in, out) → this module's."""
    if key == "fc":
        return "fc.weight", value.T
    if key.endswith(".filters"):
        return key.replace(".filters", ".weight"), value.permute(3, 2, 0, 1)
    return key.replace(".scale.weights", ".gain").replace(".scale.biases", ".bias"), value
