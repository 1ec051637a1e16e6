"""VGG-16 as a frozen judge: its activations feed the perceptual loss and LPIPS.

Two sets of weights are in use that share shapes but not input: Caffe's (BGR, 0-255 minus the mean)
and torchvision's (RGB, 0-1, ImageNet mean and deviation). The metadata of a safetensors file tell
them apart; a file of torchvision's own is known by its names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from panini.errors import CheckpointError

Preparation = Literal["caffe", "torchvision"]

CONVS_PER_BLOCK = (2, 2, 3, 3, 3)
WIDTHS = (64, 128, 256, 512, 512)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0..1

_FILE_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Numbers of the convolutions in torchvision's `features`."""


class VGG16(nn.Module):
    """The convolutional part of VGG-16 (Simonyan & Zisserman 2014), frozen.

    The layers are called ``conv1_1`` ... ``conv5_3``; 2x2 max-pools stand in front of ``conv2_1``,
    ``conv3_1``, ``conv4_1`` and ``conv5_1``.

    Args:
        widths: Channels of the five blocks; smaller ones make a light network for tests.
        preparation: What the weights expect: "caffe" (BGR, 0-255 minus the mean) or
            "torchvision" (RGB, 0-1, ImageNet mean and deviation).

    Attributes:
        contrast: How many times larger the prepared input is than torchvision's, 57.6 for Caffe's.
            Convolutions, ReLU and max-pools are positively homogeneous but for the biases: divided
            by it, Caffe's activations are those of a network that takes torchvision's range and
            whose biases are as many times smaller.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, widths: Sequence[int] = WIDTHS, *, preparation: Preparation = "caffe"
    ) -> None:
        super().__init__()
        if len(widths) != len(CONVS_PER_BLOCK):
            raise ValueError(
                f"expected {len(CONVS_PER_BLOCK)} widths, one a block, got {len(widths)}"
            )
        self.widths = tuple(widths)
        self.preparation = preparation
        self.layers: list[str] = []
        channels = 3
        for block, (width, convs) in enumerate(zip(widths, CONVS_PER_BLOCK, strict=True), start=1):
            for index in range(1, convs + 1):
                name = f"conv{block}_{index}"
                self.add_module(name, nn.Conv2d(channels, width, 3, padding=1))
                self.layers.append(name)
                channels = width
        # Both preparations are x * scale + shift of an RGB image in [-1, 1], then perhaps a flip.
        if preparation == "caffe":
            scale = torch.full((3,), 127.5)
            shift = 127.5 - torch.tensor([123.68, 116.779, 103.939])
        elif preparation == "torchvision":
            mean, deviation = torch.tensor([_MEAN, _DEVIATION])
            scale, shift = 0.5 / deviation, (0.5 - mean) / deviation
        else:
            raise ValueError(f"expected preparation 'caffe' or 'torchvision', got {preparation!r}")
        self.contrast = float((scale * torch.tensor(_DEVIATION) / 0.5).mean())
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def prepare(self, x: Tensor) -> Tensor:
        """The input that the weights expect, of RGB images (N, 3, H, W) in [-1, 1]."""
        x = x * self.scale + self.shift
        return x.flip(1) if self.preparation == "caffe" else x

    def forward(self, x: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Activations of the layers asked for; nothing behind the last of them is computed.

        Args:
            x: RGB images in [-1, 1], (N, 3, H, W), at least 16 px a side for taps of block 5.
            taps: Names such as "relu1_2", or "conv4_3" for the value before the ReLU.

        Returns:
            Name → (N, C, H / 2^(block - 1), W / 2^(block - 1)).

        Raises:
            ValueError: A tap is not a layer of VGG-16.
        """
        wanted = set(taps)
        known = {*self.layers, *(_relu(name) for name in self.layers)}
        if unknown := sorted(wanted - known):
            raise ValueError(f"no layer {unknown[0]!r} in VGG-16; its taps are {sorted(known)}")
        found: dict[str, Tensor] = {}
        x = self.prepare(x)
        for name in self.layers:
            if len(found) == len(wanted):
                break
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = self.get_submodule(name)(x)
            if name in wanted:
                found[name] = x
            # In place saves the memory of a second copy, but would spoil a tap before the ReLU.
            x = F.relu(x, inplace=name not in wanted)
            if _relu(name) in wanted:
                found[_relu(name)] = x
        return {name: found[name] for name in taps}


def load_vgg16(path: str | Path) -> VGG16:
    """Read VGG-16 from a safetensors file, in float32, frozen.

    Args:
        path: File with ``conv1_1.weight`` ... ``conv5_3.bias``, of any float type, whose metadata
            say which input the weights expect.

    Raises:
        CheckpointError: The file is missing, damaged, or does not hold these tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected the weights of VGG-16 (safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    return _build(state, _preparation(metadata, path), path)


def build_vgg16(state: Mapping[str, Tensor], source: Path) -> VGG16:
    """VGG-16 with torchvision's weights, in float32, frozen.

    Args:
        state: Name → tensor, as in torchvision's file; the classifier may be missing.
        source: The file, for errors.

    Raises:
        CheckpointError: A convolution is missing or of another shape.
    """
    names = [
        f"conv{block}_{index}"
        for block, convs in enumerate(CONVS_PER_BLOCK, start=1)
        for index in range(1, convs + 1)
    ]
    renamed = {
        f"{name}.{kind}": state[key].float()
        for name, layer in zip(names, _FILE_LAYERS, strict=True)
        for kind in ("weight", "bias")
        if (key := f"features.{layer}.{kind}") in state
    }
    return _build(renamed, "torchvision", source)


def _build(state: Mapping[str, Tensor], preparation: Preparation, source: Path) -> VGG16:
    try:
        widths = [state[f"conv{block}_1.weight"].shape[0] for block in range(1, 6)]
        network = VGG16(widths, preparation=preparation)
        network.load_state_dict(dict(state))
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{source}: expected the 13 convolutions conv1_1 ... conv5_3 of VGG-16 ({reason})"
        ) from error
    return network


def _preparation(metadata: dict[str, str], path: Path) -> Preparation:
    text = " ".join(metadata.values()).lower()
    # The mean that is subtracted names the preparation without doubt, whatever else is written.
    if "103.939" in text:
        return "caffe"
    if "0.485" in text:
        return "torchvision"
    if metadata.get("preprocess") in ("caffe", "torchvision"):
        return "caffe" if metadata["preprocess"] == "caffe" else "torchvision"
    raise CheckpointError(
        f"{path}: the metadata do not say how the input is prepared; expected `preprocess` to be "
        f"caffe or torchvision, found {metadata.get('preprocess')!r}"
    )


def _relu(conv: str) -> str:
    return conv.replace("conv", "relu")
