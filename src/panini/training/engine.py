"""Where a run computes: its device, its processes, its precision, and what an update is.

Processes come from `accelerate launch`. Gradients are averaged over them by hand, when an
optimizer steps: adversarial losses go back and forth through the networks several times a step,
with and without parts of them, which a wrapper that counts backward passes does not follow.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from panini.errors import ConfigError, MissingExtraError, TrainingError
from panini.runtime import resolve_device
from panini.training.config import RunConfig
from panini.training.timing import Timer

if TYPE_CHECKING:
    from accelerate import PartialState

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALLEST_SCALE = 2.0**-10
"""A grad scaler that has come down to this will not find a gradient that is finite."""


class Engine:
    """Device, processes, optimizers and the guard against losses that are not finite.

    Attributes:
        device: Where this process computes.
        rank: Of this process.
        world: Number of processes.
        optimizers: By name; `add_optimizer` makes them.
        scalers: The optimizers' grad scalers, by the same names; idle unless float16.
        started: When it was made, by `time.monotonic`.
        micro: Number of the batch in its step.
        nimg: Images seen before the step.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.started = time.monotonic()
        state = _processes(config.device)
        self.rank, self.world = state.process_index, state.num_processes
        self.device = _device("auto" if self.world > 1 else config.device, state)
        self.timer = Timer(self.device)
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.micro = 0
        self.nimg = 0
        self._broken: dict[str, Tensor] = {}
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True

    @property
    def main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def images_a_step(self) -> int:
        """Of all processes together."""
        return self.config.data.batch * self.world * self.config.accumulate

    @property
    def stepping(self) -> bool:
        """Whether this batch is the last of its step: weights change now."""
        return self.micro + 1 == self.config.accumulate

    # ------------------------------------------------------------------------------------------
    # Networks and optimizers

    def place(self, module: nn.Module, *, compiled: bool = True) -> None:
        """Move a network to the device, in the layout and the form that the recipe wants.

        Args:
            module: The network.
            compiled: False for what is differentiated twice, which compiled code cannot be.
        """
        module.to(self.device)
        if self.config.channels_last:
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if self.config.compile and compiled:
            module.compile()

    def add_optimizer(
        self,
        name: str,
        *groups: tuple[list[nn.Parameter], float],
        betas: tuple[float, float] | None = None,
    ) -> torch.optim.Adam:
        """Adam over (parameters, factor on the learning rate).

        Args:
            name: What `backward`, `step` and the checkpoints call it.
            groups: The parameters, already on the device.
            betas: None takes the recipe's.
        """
        self.optimizers[name] = torch.optim.Adam(
            [
                {"params": list(ps), "lr": (lr := self.config.learning_rate * factor)}
                | {"initial_lr": lr}
                for ps, factor in groups
            ],
            betas=betas or self.config.betas,
            fused=self.device.type == "cuda",
        )
        self.scalers[name] = torch.amp.GradScaler(
            self.device.type, enabled=self.config.precision == "float16"
        )
        return self.optimizers[name]

    def set_rates(self, factor: float) -> None:
        """Set every learning rate to its share of the peak."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    # ------------------------------------------------------------------------------------------
    # A step

    def begin(self, step: int, micro: int = 0, nimg: int = 0) -> None:
        """Start on a batch: torch's own random numbers follow from where the run is.

        So there is no state of theirs to keep, and what a stage draws is what it would have
        drawn in a run that was never stopped.
        """
        self.micro, self.nimg = micro, nimg
        seed = np.random.SeedSequence([self.config.seed, step, micro, self.rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        precision = self.config.precision
        return torch.autocast(self.device.type, _DTYPES[precision], enabled=precision != "float32")

    def section(self, name: str) -> AbstractContextManager[None]:
        """Count time under a name in the log."""
        return self.timer.section(name)

    def update(self, name: str, loss: Tensor, clip_norm: float | None = None) -> Tensor:
        """`backward`, then `step`."""
        self.backward(name, loss)
        return self.step(name, clip_norm)

    def backward(self, name: str, loss: Tensor) -> None:
        """Add a loss's gradients to those of an optimizer's parameters."""
        with self.section("backward"):
            self.scalers[name].scale(loss / self.config.accumulate).backward()

    def step(self, name: str, clip_norm: float | None = None) -> Tensor:
        """One step of an optimizer, if this is the last batch of the step.

        Args:
            name: Of the optimizer.
            clip_norm: None takes the recipe's.

        Returns:
            The gradient's norm; 0 where no step was due.

        Raises:
            TrainingError: The gradient is not finite; the weights are left as they were. On a
                GPU `check` raises it.
        """
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        if not self.stepping:
            return torch.zeros((), device=self.device)
        with self.section("optimizer"):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._average_gradients(parameters)
            scaler.unscale_(optimizer)
            limit = self.config.clip_norm if clip_norm is None else clip_norm
            norm = nn.utils.clip_grad_norm_(parameters, limit)
            if not scaler.is_enabled():
                self._guard(name, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def check(self) -> None:
        """Raise what `step` could not without waiting for the device.

        Raises:
            TrainingError: A gradient was not finite.
        """
        for name, scaler in self.scalers.items():
            if scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE:
                raise self._not_finite(name, self.nimg)
        first = {name: int(nimg) for name, nimg in self._broken.items() if nimg >= 0}
        if first:
            name = min(first, key=first.__getitem__)
            raise self._not_finite(name, first[name])

    def _guard(self, name: str, norm: Tensor) -> None:
        """Keep a gradient that is not finite out of the weights."""
        broken, optimizer = ~torch.isfinite(norm), self.optimizers[name]
        if self.device.type != "cuda":
            if broken:
                optimizer.zero_grad(set_to_none=True)
                raise self._not_finite(name, self.nimg)
            return
        # The fused kernel itself passes such a step over: the host need not know yet.
        optimizer.found_inf = broken.float()  # pyright: ignore[reportAttributeAccessIssue]
        self._note(name, broken)

    def _note(self, name: str, broken: Tensor) -> None:
        """Keep the first image at which an optimizer's gradient was not finite, on the device."""
        before = self._broken.get(name)
        if before is None:
            before = torch.full_like(broken, -1, dtype=torch.int64)
        self._broken[name] = torch.where(broken & (before < 0), self.nimg, before)

    def _not_finite(self, name: str, nimg: int) -> TrainingError:
        half = self.config.precision != "float32"
        advice = "use precision float32, or lower learning_rate" if half else "lower learning_rate"
        return TrainingError(
            f"optimizer {name}, image {nimg}: the loss or its gradient is not finite; the weights "
            f"before it and the last checkpoint are good: {advice} or clip_norm, and run again"
        )

    # ------------------------------------------------------------------------------------------
    # Between processes

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        if self.world == 1:
            return
        from accelerate.utils import reduce

        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        mean = reduce(flat, reduction="mean")
        assert isinstance(mean, Tensor)
        parts = mean.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, values: Tensor) -> Tensor:
        """Rows of all processes, (N · world, …), on every one of them."""
        if self.world == 1:
            return values
        from accelerate.utils import gather

        gathered = gather(values.contiguous())
        assert isinstance(gathered, Tensor)
        return gathered

    def gather_texts(self, texts: list[str]) -> list[str]:
        """Texts of all processes, on every one of them; each waits for the others."""
        if self.world == 1:
            return texts
        from accelerate.utils import gather_object

        return gather_object(texts)

    def any(self, flag: bool) -> bool:
        """Whether a flag is up in any process."""
        if self.world == 1:
            return flag
        return bool(self.gather(torch.tensor([float(flag)], device=self.device)).any())

    @torch.no_grad()
    def share_statistics(self, modules: dict[str, nn.Module]) -> None:
        """Give the first process's batch-norm statistics to all, so that one state holds all."""
        if self.world == 1:
            return
        from accelerate.utils import broadcast

        for module in modules.values():
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                    for buffer in norm.buffers():
                        buffer.copy_(_tensor(broadcast(buffer)))


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _processes(device: str) -> PartialState:
    """Accelerate's view of the processes.

    Raises:
        MissingExtraError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError("train", "training") from error
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=device == "cpu" or wanted or not torch.accelerator.is_available())


def _device(name: str, state: PartialState) -> torch.device:
    if name == "auto":
        return state.device or torch.device("cpu")
    try:
        return torch.device(resolve_device(name))
    except ConfigError as error:
        raise ConfigError(f"device: {error}") from error
