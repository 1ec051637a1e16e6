"""Other restorers' official weights, by way of spandrel (the extra `peers`).

What spandrel 0.4.2 has of the restorers that the paper and its successors compare with:

| restorer | there | as |
|---|---|---|
| GFP-GAN | yes | `GFPGAN`: the clean architecture of GFPGANv1.2 to v1.4, 512 px |
| RestoreFormer | yes | `RestoreFormer`; not RestoreFormer++ |
| CodeFormer | apart | in `spandrel_extra_arches`, for its licence is non-commercial |
| GPEN, GLEAN, pSp | no | |

The package spandrel_extra_arches is used where the user has installed it.

Its descriptors take and give [0, 1]. That of RestoreFormer brings faces to the [-1, 1] that the
network was trained on; those of GFP-GAN and CodeFormer do not, and would restore faces of half the
contrast. These two networks are called by themselves, as their authors' programs call them.

spandrel reads a .pth by a restricted unpickler (nine names), but runs a .pt as TorchScript. Here
every file goes through our own reader, which runs nothing (`checkpoints.torch_files`), and spandrel
gets tensors only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from panini.checkpoints.io import sha256_of
from panini.checkpoints.torch_files import read_tree
from panini.data import resize_batch
from panini.errors import CheckpointError, MissingExtraError
from panini.evaluation.sizes import DEGRADED_SIZE
from panini.evaluation.systems import Drawn
from panini.models.panini_net import Task

READABLE = (
    "spandrel has GFP-GAN (v1.2 to v1.4) and RestoreFormer, spandrel_extra_arches has CodeFormer; "
    "GPEN, GLEAN and pSp are in neither"
)


SIGNED = ("GFPGAN", "CodeFormer")
"""Architectures whose network takes [-1, 1] and is handed [0, 1] by its descriptor."""


class Descriptor(Protocol):
    """What spandrel says of a network, as far as it is used here."""

    input_channels: int
    output_channels: int

    @property
    def architecture(self) -> Any:
        """Has the attributes `id` and `name`."""
        ...

    @property
    def model(self) -> Any:
        """The network itself."""
        ...

    def __call__(self, image: Tensor) -> Tensor:
        """RGB in [0, 1], (1, 3, H, W) → the same, times the network's scale."""
        ...


class Peer:
    """Another restorer as a system of an evaluation; see `load_peer`.

    Args:
        network: On its device.
        name: What tables and folders call it.
        identity: Of its weights.
        device: Of the network.
    """

    task: Task | None = None  # it brings any face to the size that it takes
    in_size = DEGRADED_SIZE

    def __init__(self, network: Descriptor, name: str, identity: str, device: torch.device) -> None:
        self.network = network
        self.name = name
        self.identity = identity
        self.device = device

    @torch.inference_mode()
    def __call__(self, lq: Tensor) -> Drawn:
        """Restore faces.

        Args:
            lq: RGB in [-1, 1], (N, 3, S, S); brought to 512 px first.

        Returns:
            RGB in [-1, 1], (N, 3, 512, 512); a network that enlarges is reduced to that.
        """
        faces = resize_batch(lq.float(), self.in_size).clamp(-1, 1)
        # One by one, which is all that spandrel promises to take.
        drawn = [self._one(face[None].to(self.device)) for face in faces]
        return Drawn(resize_batch(torch.cat(drawn).float(), self.in_size).to(lq.device))

    def _one(self, face: Tensor) -> Tensor:
        """(1, 3, 512, 512) in [-1, 1] → the same, times the network's scale."""
        devices = [self.device] if self.device.type == "cuda" else []
        # GFP-GAN draws noise from torch's own generator: the same for every face, and nobody
        # else's numbers change.
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            if self.network.architecture.id in SIGNED:
                return self.network.model(face)[0].clamp(-1, 1)
            return self.network((face + 1) / 2) * 2 - 1


def load_peer(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", *, name: str | None = None
) -> Peer:
    """Another restorer's official weights as `evaluation.run` takes them; for either task.

    Args:
        path: Of `torch.save` or safetensors; nothing in it is run.
        device: Where the network goes.
        name: What tables and folders call it; None takes the file's stem.

    Raises:
        CheckpointError: The file is missing or damaged, or none of the networks that can be built.
        MissingExtraError: spandrel is not installed, or torchvision does not run here.
    """
    path = Path(path)
    tree = read_tree(path)
    spandrel = _spandrel(path)
    device = torch.device(device)
    network = _build(spandrel, tree, path, device)
    return Peer(network, name or path.stem, sha256_of(path)[:16], device)


def _spandrel(path: Path) -> ModuleType:
    """The package, with the extra architectures where they are installed."""
    feature = f"{path}: reading another restorer's weights"
    try:
        spandrel = import_module("spandrel")
    except ImportError as error:
        raise MissingExtraError("peers", feature) from error
    except (AttributeError, OSError, RuntimeError) as error:
        # How torchvision fails where it was built for another torch.
        reason = " ".join(str(error).split())[:200]
        remedy = (
            f"it is there, but torchvision does not run beside torch {torch.__version__} "
            f"({reason}); install the torchvision that belongs to it, as pytorch.org says"
        )
        raise MissingExtraError("peers", feature, remedy) from error
    with suppress(ImportError):
        import_module("spandrel_extra_arches").install(ignore_duplicates=True)
    return spandrel


def _build(spandrel: ModuleType, tree: Any, path: Path, device: torch.device) -> Descriptor:
    """The network of a file's tensors.

    Raises:
        CheckpointError: Unknown to spandrel, damaged, or no network from RGB to RGB.
    """
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: holds no weights of a restorer; {READABLE}")
    try:
        network = spandrel.ModelLoader(device).load_from_state_dict(tree)
    except spandrel.UnsupportedModelError as error:
        raise CheckpointError(f"{path}: is no network that spandrel knows; {READABLE}") from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError) as error:
        raise _unfit(path, error) from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise _unfit(path, error) from error
    kind = network.architecture.name
    if not isinstance(network, spandrel.ImageModelDescriptor):
        raise CheckpointError(f"{path}: {kind} takes a mask, expected a restorer of images")
    if (network.input_channels, network.output_channels) != (3, 3):
        raise CheckpointError(
            f"{path}: {kind} goes from {network.input_channels} to {network.output_channels} "
            "channels, expected RGB to RGB"
        )
    return network.eval()


def _unfit(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CheckpointError(f"{path}: its tensors do not fit the network they look like ({reason})")
