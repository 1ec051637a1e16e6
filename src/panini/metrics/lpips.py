"""LPIPS (Zhang et al. 2018): a learned distance between images in the activations of a network.

With torchvision's VGG-16 or AlexNet and the heads of LPIPS v0.1 it is the official distance,
`lpips_vgg` or `lpips_alex`. On Caffe's VGG-16 the same heads give another number: it is called
`lpips_vgg_caffe` and must not be compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from panini.errors import CheckpointError
from panini.features.alexnet import AlexNet, build_alexnet
from panini.features.vgg16 import VGG16, build_vgg16, load_vgg16
from panini.metrics.psnr import check_pair
from panini.metrics.weights import read_tensors

TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
"""Layers of VGG-16 that are compared; of AlexNet it is every one."""


class LPIPS(nn.Module):
    """Perceptual distance of two images; differentiable, so it is a metric and a loss.

    Args:
        network: The frozen feature network.
        heads: Non-negative weights a channel, one vector for each of its five layers.
    """

    def __init__(self, network: VGG16 | AlexNet, heads: Sequence[Tensor]) -> None:
        super().__init__()
        found = [tuple(head.shape) for head in heads]
        if found != [(width,) for width in network.widths]:
            raise ValueError(f"expected heads of lengths {network.widths}, got shapes {found}")
        self.network = network
        for index, head in enumerate(heads):
            self.register_buffer(f"head{index}", head.detach().float().view(1, -1, 1, 1))

    @property
    def name(self) -> str:
        """What the number is called: it depends on the network and its weights."""
        if isinstance(self.network, AlexNet):
            return "lpips_alex"
        return "lpips_vgg_caffe" if self.network.preparation == "caffe" else "lpips_vgg"

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of the five layers with channels of unit length, for reuse of a truth.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W), at least 16 px a side, of AlexNet 31 px.

        Returns:
            Five float32 tensors, (N, C, H / 2^k, W / 2^k).
        """
        if isinstance(self.network, AlexNet):
            found = self.network(images)
        else:
            taps = self.network(images, TAPS)
            found = [taps[name] for name in TAPS]
        return [_unit(x.float()) for x in found]

    def distance(self, restored: Sequence[Tensor], gt: Sequence[Tensor]) -> Tensor:
        """LPIPS (N,) of two results of `features`."""
        total = torch.zeros(restored[0].shape[0], device=restored[0].device)
        for index, (x, y) in enumerate(zip(restored, gt, strict=True)):
            head = self.get_buffer(f"head{index}")
            total = total + ((x - y).square() * head).sum(dim=1).mean(dim=(1, 2))
        return total

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Distance of two batches.

        Args:
            restored: RGB in [-1, 1], (N, 3, H, W), at least 16 px a side, for AlexNet 31 px.
            gt: The same for the truth.

        Returns:
            (N,), 0 for equal images.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(restored, gt)
        return self.distance(self.features(restored), self.features(gt))


def load_lpips(network: str | Path, heads: str | Path) -> LPIPS:
    """LPIPS from the weights of its network and of its linear heads, frozen.

    Args:
        network: VGG-16 (safetensors, whose metadata tell its input), or torchvision's file of
            VGG-16 or AlexNet (.pth); nothing in it is run.
        heads: LPIPS v0.1's file (.pth), or its tensors as lin0.weight ... (safetensors).

    Raises:
        CheckpointError: A file is missing, damaged, or does not hold what it should.
    """
    network, heads = Path(network), Path(heads)
    judge = _load_network(network)
    state = read_tensors(heads)
    try:
        # Official: a drop-out stands before each convolution.
        names = ("lin{}.weight", "lin{}.model.1.weight")
        weights = [
            next(state[key] for name in names if (key := name.format(index)) in state).flatten()
            for index in range(len(TAPS))
        ]
        return LPIPS(judge, weights)
    except (StopIteration, ValueError) as error:
        reason = str(error) or f"found {', '.join(sorted(state)[:5]) or 'nothing'}"
        raise CheckpointError(
            f"{heads}: expected lin0.weight ... lin4.weight, heads for {network} ({reason})"
        ) from error


def _load_network(path: Path) -> VGG16 | AlexNet:
    if path.suffix == ".safetensors":
        return load_vgg16(path)
    state = read_tensors(path)
    # Only VGG-16 has so many layers.
    build = build_vgg16 if "features.28.weight" in state else build_alexnet
    return build(state, path)


def _unit(x: Tensor) -> Tensor:
    # The constant keeps the gradient finite where no channel is active.
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-10)
