"""What is compared: a network, another restorer, or what a viewer does without one.

A system takes degraded faces and draws restored ones. All systems of an evaluation get the same
tensors, so whatever draws the same face twice (a network, and the same network made to agree with
its input) may do it once.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from panini.consistency import project
from panini.data import resize_batch
from panini.evaluation.sizes import DEGRADED_SIZE, GT_SIZE, LQ_SIZE
from panini.images import to_tensor, to_uint8
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet, Task

INPUTS: dict[Task, str] = {"mfr": "input", "sr16": "bicubic"}
"""Task → name of the first system of every report: what a restorer has to beat."""


class Drawn(NamedTuple):
    """What a system makes of N degraded faces."""

    image: Tensor
    """RGB in about [-1, 1], (N, 3, T, T); T is the system's own."""
    theta: Tensor | None = None
    """θ of Eq. 11, (N,); None where the system has none, NaN where its fusion has no masks."""


class System(Protocol):
    """Anything that restores faces."""

    @property
    def name(self) -> str:
        """What tables and folders call it; no two of an evaluation have the same."""
        ...

    @property
    def task(self) -> Task | None:
        """What it can be given: "mfr", "sr16", None for either."""
        ...

    @property
    def in_size(self) -> int:
        """Side of the faces that it works on, px; it brings its input there by itself."""
        ...

    def __call__(self, lq: Tensor) -> Drawn:
        """Restore faces.

        Args:
            lq: RGB in [-1, 1], (N, 3, S, S); S is 512 for mfr and 64 for sr16.
        """
        ...


@runtime_checkable
class Weighing(Protocol):
    """A system that tells θ without drawing; only those are in the test of θ over the rates."""

    def theta(self, lq: Tensor) -> Tensor:
        """θ (N,) of faces (N, 3, S, S) in [-1, 1]; NaN where the fusion has no masks."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A system that knows itself: by this a resumed evaluation sees that it is another one."""

    @property
    def identity(self) -> str:
        """Differs wherever the results may: weights, settings."""
        ...


class NetworkSystem:
    """A Panini-Net; see `network_system`."""

    task: Task | None = None  # it brings any face to the size that it takes

    def __init__(
        self, net: PaniniNet, name: str, size: int | None, control: FusionControl | None
    ) -> None:
        self.net = net
        self.name = name
        self.size = size
        self.control = control
        self._last: tuple[Tensor, Drawn] | None = None

    @property
    def in_size(self) -> int:
        """Side of the network's input, px."""
        return self.net.config.in_size

    @property
    def identity(self) -> str:
        """Of the weights, their configuration, and how they are used."""
        digest = hashlib.sha256(repr((self.net.config, self.size, self.control)).encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @torch.inference_mode()
    def __call__(self, lq: Tensor) -> Drawn:
        """Restore; the same tensor again gives what was drawn before."""
        if self._last is None or self._last[0] is not lq:
            output = self.net(resize_batch(lq, self.in_size), self.control, size=self.size)
            self._last = (lq, Drawn(output.image, output.theta))
        return self._last[1]

    @torch.inference_mode()
    def theta(self, lq: Tensor) -> Tensor:
        """θ without drawing the faces (Eq. 11)."""
        return self.net.theta(resize_batch(lq, self.in_size), self.control)


class ConsistentSystem:
    """What another system draws, brought to agree with its input (`panini.consistency`).

    Args:
        base: It is asked with the same tensor, so a network that was just asked draws once.
        name: Of this one.
    """

    def __init__(self, base: System, name: str) -> None:
        self.base = base
        self.name = name

    @property
    def task(self) -> Task | None:
        """Of the other system."""
        return self.base.task

    @property
    def in_size(self) -> int:
        """Of the other system."""
        return self.base.in_size

    @property
    def identity(self) -> str:
        """Of the other system, and that it is projected."""
        return f"consistent {identity_of(self.base)}"

    def __call__(self, lq: Tensor) -> Drawn:
        """Restore, then project."""
        drawn = self.base(lq)
        return Drawn(project(drawn.image, lq), drawn.theta)


class InputSystem:
    """The degraded face itself; for sr16, enlarged by Pillow's bicubic interpolation.

    Args:
        task: Of the evaluation.
    """

    def __init__(self, task: Task) -> None:
        self.task: Task | None = task
        self.name = INPUTS[task]
        self.in_size = DEGRADED_SIZE if task == "mfr" else LQ_SIZE

    def __call__(self, lq: Tensor) -> Drawn:
        """Hand back, or enlarge to `GT_SIZE`."""
        if self.task == "mfr":
            return Drawn(lq)
        side = (GT_SIZE, GT_SIZE)
        enlarged = [
            to_tensor(np.asarray(Image.fromarray(face).resize(side, Image.Resampling.BICUBIC)))
            for face in to_uint8(lq)
        ]
        return Drawn(torch.cat(enlarged).to(lq.device))


def network_system(
    net: PaniniNet,
    name: str,
    *,
    size: int | None = None,
    control: FusionControl | None = None,
    consistent: bool = False,
) -> System:
    """A Panini-Net as `run` takes it.

    Args:
        net: On the device of the evaluation, in eval mode.
        name: What tables and folders call it.
        size: Side of the restored faces, px; None is the network's own.
        control: Changes the fusion; None is the paper's.
        consistent: Bring the faces to agree with their inputs.
    """
    system = NetworkSystem(net, name, size, control)
    return ConsistentSystem(system, name) if consistent else system


def input_system(task: Task) -> System:
    """What a viewer has without a restorer: the first system of every report."""
    return InputSystem(task)


def identity_of(system: System) -> str:
    """What a resumed evaluation knows a system by; its name where it tells nothing else."""
    return system.identity if isinstance(system, Identified) else system.name
