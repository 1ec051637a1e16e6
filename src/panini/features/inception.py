"""The Inception v3 of FID: Google's network of 2015-12-05, as ported to PyTorch by pytorch-fid.

It is not torchvision's: the weights are others, its average pooling counts no padding, as
TensorFlow's, and its last block pools by maximum. Names and shapes are those of the file
pt_inception-2015-12-05 (Szegedy et al. 2015; Heusel et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panini.errors import CheckpointError

SIDE = 299
"""Side at which the network sees an image, px."""
WIDTH = 2048
"""Features of an image."""

Kernel = tuple[int, int]
Step = tuple[int, Kernel] | tuple[int, Kernel, Kernel]
"""Channels and kernel of a convolution; or of two side by side, of so many channels each."""
Pool = Callable[[Tensor], Tensor]

_POINT, _SQUARE, _LARGE = (1, 1), (3, 3), (5, 5)
_WIDE, _TALL, _ROW, _COLUMN = (1, 3), (3, 1), (1, 7), (7, 1)

_mean_pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_max_pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_halving_pool = partial(F.max_pool2d, kernel_size=3, stride=2)


class FidInception(nn.Module):
    """The official feature network of FID and KID, frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, _SQUARE, stride=2, padded=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, _SQUARE, padded=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, _SQUARE)
        self.Conv2d_3b_1x1 = _Conv(64, 80, _POINT)
        self.Conv2d_4a_3x3 = _Conv(80, 192, _SQUARE, padded=False)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, _mean_pool)
        self.Mixed_7c = _block_e(2048, _max_pool)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Describe images: brought to 299 px (bilinear, without antialias), as pytorch-fid does.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W) of any size.

        Returns:
            (N, 2048).
        """
        x = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.describe(x)

    def describe(self, x: Tensor) -> Tensor:
        """Features (N, 2048) of images as they are, (N, 3, H, W), at least 75 px a side."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = _halving_pool(x)
        x = _halving_pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))


class _Conv(nn.Module):
    """Convolution, batch norm by its running statistics, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Mixed(nn.Module):
    """Branches side by side, each of convolutions one after the other, and a pooled one.

    A convolution is called by its branch, with its number where the branch has several, and with
    a and b where two stand side by side.

    Args:
        inputs: Channels of the input.
        branches: Name → steps.
        pool: What the last branch begins with.
        pooled: Channels of its convolution; 0 has none.
        stride: Of the last convolution of every branch; these are not padded if it is 2.
    """

    def __init__(
        self,
        inputs: int,
        branches: Mapping[str, list[Step]],
        pool: Pool,
        *,
        pooled: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.chains: list[list[list[str]]] = []
        for branch, steps in branches.items():
            channels, chain = inputs, []
            for number, (outputs, *kernels) in enumerate(steps, start=1):
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                names = [name] if len(kernels) == 1 else [f"{name}a", f"{name}b"]
                own = stride if number == len(steps) else 1
                for each, kernel in zip(names, kernels, strict=True):
                    conv = _Conv(channels, outputs, kernel, stride=own, padded=own == 1)
                    self.add_module(each, conv)
                chain.append(names)
                channels = outputs
            self.chains.append(chain)
        self.branch_pool = _Conv(inputs, pooled, _POINT) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for chain in self.chains:
            parts = [x]
            for names in chain:
                (y,) = parts
                parts = [self.get_submodule(name)(y) for name in names]
            found += parts
        return torch.cat([*found, self.branch_pool(self.pool(x))], dim=1)


def _block_a(inputs: int, pooled: int) -> _Mixed:
    branches: dict[str, list[Step]] = {
        "branch1x1": [(64, _POINT)],
        "branch5x5": [(48, _POINT), (64, _LARGE)],
        "branch3x3dbl": [(64, _POINT), (96, _SQUARE), (96, _SQUARE)],
    }
    return _Mixed(inputs, branches, _mean_pool, pooled=pooled)


def _block_b(inputs: int) -> _Mixed:
    branches: dict[str, list[Step]] = {
        "branch3x3": [(384, _SQUARE)],
        "branch3x3dbl": [(64, _POINT), (96, _SQUARE), (96, _SQUARE)],
    }
    return _Mixed(inputs, branches, _halving_pool, stride=2)


def _block_c(inputs: int, width: int) -> _Mixed:
    branches: dict[str, list[Step]] = {
        "branch1x1": [(192, _POINT)],
        "branch7x7": [(width, _POINT), (width, _ROW), (192, _COLUMN)],
        "branch7x7dbl": [
            (width, _POINT),
            (width, _COLUMN),
            (width, _ROW),
            (width, _COLUMN),
            (192, _ROW),
        ],
    }
    return _Mixed(inputs, branches, _mean_pool, pooled=192)


def _block_d(inputs: int) -> _Mixed:
    branches: dict[str, list[Step]] = {
        "branch3x3": [(192, _POINT), (320, _SQUARE)],
        "branch7x7x3": [(192, _POINT), (192, _ROW), (192, _COLUMN), (192, _SQUARE)],
    }
    return _Mixed(inputs, branches, _halving_pool, stride=2)


def _block_e(inputs: int, pool: Pool) -> _Mixed:
    branches: dict[str, list[Step]] = {
        "branch1x1": [(320, _POINT)],
        "branch3x3": [(384, _POINT), (384, _WIDE, _TALL)],
        "branch3x3dbl": [(448, _POINT), (384, _SQUARE), (384, _WIDE, _TALL)],
    }
    return _Mixed(inputs, branches, pool, pooled=192)


def build_inception(state: Mapping[str, Tensor], source: Path) -> FidInception:
    """The network with the weights of the official file.

    Args:
        state: Name → tensor, as in pytorch-fid's and torch-fidelity's file.
        source: The file, for errors.

    Raises:
        CheckpointError: A tensor is missing or of another shape, or it is torchvision's network.
    """
    head = state.get("fc.weight")
    if "AuxLogits.fc.weight" in state or (head is not None and len(head) != 1008):
        raise CheckpointError(
            f"{source}: expected the Inception of FID (1008 classes), found torchvision's; "
            "take pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
        )
    network = FidInception()
    expected = network.state_dict()
    for name, tensor in expected.items():
        # A counter of training steps; files by older versions of PyTorch have none.
        if name.endswith("num_batches_tracked"):
            continue
        found = tuple(state[name].shape) if name in state else "nothing"
        if found != tuple(tensor.shape):
            raise CheckpointError(
                f"{source}: expected the Inception of FID with {name} {tuple(tensor.shape)}, "
                f"found {found}; take pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
            )
    network.load_state_dict({name: state[name] for name in expected if name in state}, strict=False)
    return network
