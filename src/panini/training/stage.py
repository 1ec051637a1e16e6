"""What a stage of training is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from panini.data import GroupBatch
from panini.errors import ConfigError
from panini.training.engine import Engine


class Stage(ABC):
    """One stage: its networks, its optimizers, and what a step does.

    A stage makes its engine, its networks and, with `engine.add_optimizer`, its optimizers.
    """

    engine: Engine
    """Where it computes."""
    modules: dict[str, nn.Module]
    """Everything that a checkpoint holds, by name."""

    @property
    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """The engine's, by name."""
        return self.engine.optimizers

    @abstractmethod
    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """Learn from a batch.

        Args:
            batch: On the device.
            step: Number of the step. Several batches (`accumulate`) may make one: gradients are
                added up, and `engine.stepping` tells that weights change with this batch.
            nimg: Images seen before the step.

        Returns:
            Figures to log, scalars, detached; they may stay on the device. Of several batches their
            means are logged, but of `norm` that of the last.
        """

    @abstractmethod
    def save(self, folder: Path, nimg: int) -> None:
        """Write the stage's weights for the next stage."""

    def validate(self, batch: list[GroupBatch]) -> dict[str, Tensor]:
        """Figures of a validation batch; the first decides, and less is better.

        Raises:
            ConfigError: This stage cannot be validated.
        """
        raise ConfigError(f"validation: {type(self).__name__} has no figure to validate by")

    def pictures(self, batch: list[GroupBatch]) -> list[Tensor]:
        """Columns of a sample sheet, (N, 3, S, S) in [-1, 1] each.

        Raises:
            ConfigError: This stage draws nothing.
        """
        raise ConfigError(f"validation.sheet: {type(self).__name__} draws no faces")
