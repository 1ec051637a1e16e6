"""LPIPS (Zhang et al. 2018): a learned distance between images in the activations of VGG-16.

With torchvision's VGG-16 this is the official LPIPS v0.1 "vgg" (`lpips_vgg`). On Caffe's weights
the same heads give another number: it is called `lpips_vgg_caffe` and must not be compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from panini.errors import CheckpointError
from panini.features.vgg16 import VGG16, load_vgg16
from panini.metrics.psnr import check_pair

TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


class LPIPS(nn.Module):
    """Perceptual distance of two images; differentiable, so it is a metric and a loss.

    Args:
        vgg: The frozen feature network.
        heads: Non-negative weights a channel, one vector for each of `TAPS`.
    """

    def __init__(self, vgg: VGG16, heads: Sequence[Tensor]) -> None:
        super().__init__()
        found = [tuple(head.shape) for head in heads]
        if found != [(width,) for width in vgg.widths]:
            raise ValueError(f"expected heads of lengths {vgg.widths}, got shapes {found}")
        self.vgg = vgg
        for index, head in enumerate(heads):
            self.register_buffer(f"head{index}", head.detach().float().view(1, -1, 1, 1))

    @property
    def name(self) -> str:
        """What the number is called: it depends on the weights of the VGG."""
        return "lpips_vgg_caffe" if self.vgg.preparation == "caffe" else "lpips_vgg"

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of the five taps with channels of unit length, for reuse of a truth.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W), at least 16 px a side.

        Returns:
            Five float32 tensors, (N, C, H / 2^k, W / 2^k).
        """
        taps = self.vgg(images, TAPS)
        return [_unit(taps[name].float()) for name in TAPS]

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
            restored: RGB in [-1, 1], (N, 3, H, W), at least 16 px a side.
            gt: The same for the truth.

        Returns:
            (N,), 0 for equal images.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(restored, gt)
        return self.distance(self.features(restored), self.features(gt))


def load_lpips(vgg: str | Path, heads: str | Path) -> LPIPS:
    """LPIPS from the weights of VGG-16 and of its linear heads (safetensors), frozen.

    Raises:
        CheckpointError: A file is missing, damaged, or does not hold what it should.
    """
    heads = Path(heads)
    network = load_vgg16(vgg)
    if not heads.is_file():
        raise CheckpointError(
            f"{heads}: no such file; expected the linear heads of LPIPS (safetensors)"
        )
    try:
        state = load_file(heads)
        weights = [state[f"lin{index}.weight"].flatten() for index in range(len(TAPS))]
        return LPIPS(network, weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{heads}: not a readable safetensors file ({error})") from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{heads}: expected lin0.weight ... lin4.weight, heads for {vgg} ({error})"
        ) from error


def _unit(x: Tensor) -> Tensor:
    # The constant keeps the gradient finite where no channel is active.
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-10)
