"""The files of the frozen networks that measure: their names in a folder, and how they are read.

Files of torchvision, of LPIPS and of pytorch-fid are pickles: their tensors are read as data
(`checkpoints.torch_files`), nothing in them is run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from panini.checkpoints.torch_files import flatten, read_tree, reading
from panini.errors import CheckpointError


@dataclass(frozen=True)
class WeightFile:
    """A file that a metric needs."""

    title: str
    names: tuple[str, ...]
    """Patterns of its name; the first that is there is taken."""
    source: str
    """Where a person gets it, or what it is made of."""

    def find(self, folder: Path | None) -> Path | None:
        """The file in a folder, or None; so too without a folder."""
        if folder is None:
            return None
        for name in self.names:
            for path in sorted(folder.glob(name)):
                return path
        return None


_LPIPS = "github.com/richzhang/PerceptualSimilarity, lpips/weights/v0.1, or from PyPI's wheel lpips"
_TORCHVISION = "download.pytorch.org/models"

FILES = {
    "vgg16": WeightFile(
        "torchvision's VGG-16",
        ("vgg16-397923af.pth", "vgg16-*.pth", "vgg16_torchvision.safetensors"),
        f"vgg16-397923af.pth from {_TORCHVISION}",
    ),
    "vgg16_caffe": WeightFile(
        "Caffe's VGG-16",
        ("vgg16_caffe.safetensors",),
        "the 13 convolutions of the original, Keras has them too, as conv1_1.weight ... "
        "conv5_3.bias, (out, in, 3, 3), in safetensors with the metadata preprocess=caffe",
    ),
    "vgg_heads": WeightFile(
        "LPIPS's heads for VGG-16",
        ("lpips_vgg_heads.safetensors", "vgg.pth"),
        f"vgg.pth from {_LPIPS}",
    ),
    "alexnet": WeightFile(
        "torchvision's AlexNet",
        ("alexnet-owt-7be5be79.pth", "alexnet-*.pth"),
        f"alexnet-owt-7be5be79.pth from {_TORCHVISION}",
    ),
    "alex_heads": WeightFile(
        "LPIPS's heads for AlexNet",
        ("lpips_alex_heads.safetensors", "alex.pth"),
        f"alex.pth from {_LPIPS}",
    ),
    "identity": WeightFile(
        "the face descriptor",
        ("face_identity.safetensors",),
        "dlib's face recognition ResNet under the names conv32_down.conv.filters ... fc of its "
        "port in the npm package @vladmandic/face-api, in safetensors",
    ),
    "inception": WeightFile(
        "the official Inception of FID",
        # NVIDIA's files have such a name as well, and hold a program, which is not run.
        (
            "*inception-2015-12-05-*.pth",
            "*inception-2015-12-05*.safetensors",
            "*inception-2015-12-05*",
        ),
        "pt_inception-2015-12-05-6726825d.pth from the releases of github.com/mseitzer/pytorch-fid",
    ),
}
"""By role."""


def find_weights(
    folder: Path | None, role: str, metric: str, *, instead: str | None = None
) -> Path:
    """The file of a role in a folder.

    Args:
        folder: Where the metrics' networks are; None where no folder was named.
        role: A key of `FILES`.
        metric: What needs it, as the user asked for it.
        instead: Another role that the metric would take as well.

    Raises:
        CheckpointError: It is not there; says what to put where, and where that comes from.
    """
    file = FILES[role]
    if found := file.find(folder):
        return found
    name = file.names[0]
    needed = f"{metric} needs {file.title} ({file.source})"
    if instead is not None:
        needed += f", or {FILES[instead].title} ({FILES[instead].source})"
    if folder is None:
        raise CheckpointError(
            f"{name}: no folder to look in; {needed}: give the folder that holds it with "
            f"--metrics-dir, or leave {metric} out"
        )
    what = "no such file" if folder.is_dir() else "no such file, and no such folder"
    raise CheckpointError(
        f"{folder / name}: {what}; {needed}: put it there, name the folder that holds it with "
        f"--metrics-dir, or leave {metric} out"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .pth or .safetensors file by name; nothing in it is run.

    Raises:
        CheckpointError: The file is missing, damaged, or hostile.
    """
    try:
        tree = read_tree(path)
        with reading(path):
            return flatten(tree)
    except CheckpointError as error:
        for file in FILES.values():
            if any(path.match(name) for name in file.names):
                raise CheckpointError(f"{error}; take {file.source}") from error
        raise


def digest(network: nn.Module) -> str:
    """What tells a network from one with other weights, whatever file it came from.

    Args:
        network: On any device.

    Returns:
        16 hexadecimal digits.
    """
    found = hashlib.sha256()
    # Not the state: it lacks buffers such as the scale that a network's input is brought to.
    for name, tensor in sorted(chain(network.named_parameters(), network.named_buffers())):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()[:16]
