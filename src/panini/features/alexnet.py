"""AlexNet as a frozen judge: the network behind `lpips_alex`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panini.errors import CheckpointError

WIDTHS = (64, 192, 384, 256, 256)

_FILE_LAYERS = (0, 3, 6, 8, 10)
"""Numbers of the convolutions in torchvision's `features`."""


class AlexNet(nn.Module):
    """The convolutional part of AlexNet (Krizhevsky 2014, torchvision's widths), frozen.

    Args:
        widths: Channels of the five layers; smaller ones make a light network for tests.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        inputs = (3, *widths[:-1])
        self.conv1 = nn.Conv2d(inputs[0], widths[0], 11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(inputs[1], widths[1], 5, padding=2)
        self.conv3 = nn.Conv2d(inputs[2], widths[2], 3, padding=1)
        self.conv4 = nn.Conv2d(inputs[3], widths[3], 3, padding=1)
        self.conv5 = nn.Conv2d(inputs[4], widths[4], 3, padding=1)
        # ImageNet's mean and deviation, for images in [-1, 1].
        mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        scale, shift = 0.5 / deviation, (0.5 - mean) / deviation
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Activations behind the five ReLUs.

        Args:
            x: RGB images in [-1, 1], (N, 3, H, W), at least 31 px a side.
        """
        x = F.relu(self.conv1(x * self.scale + self.shift))
        found = [x]
        for conv, pooled in (
            (self.conv2, True),
            (self.conv3, True),
            (self.conv4, False),
            (self.conv5, False),
        ):
            x = F.relu(conv(F.max_pool2d(x, 3, stride=2) if pooled else x))
            found.append(x)
        return found


def build_alexnet(state: Mapping[str, Tensor], source: Path) -> AlexNet:
    """AlexNet with torchvision's weights.

    Args:
        state: Name → tensor, as in torchvision's file; the classifier may be missing.
        source: The file, for errors.

    Raises:
        CheckpointError: A convolution is missing or of another shape.
    """
    try:
        renamed = {
            f"conv{number}.{kind}": state[f"features.{layer}.{kind}"].float()
            for number, layer in enumerate(_FILE_LAYERS, start=1)
            for kind in ("weight", "bias")
        }
        network = AlexNet([len(renamed[f"conv{number}.bias"]) for number in range(1, 6)])
        network.load_state_dict(renamed)
    except (KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{source}: expected torchvision's AlexNet, features.0 ... features.10 ({reason})"
        ) from error
    return network
