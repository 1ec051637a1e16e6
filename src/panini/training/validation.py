"""The fixed faces by which a run is judged on its way."""

from __future__ import annotations

import torch
from torch import Tensor

from panini.data import FaceBatches, Finisher, GroupConfig, RawGroup
from panini.data.device import GroupBatch
from panini.errors import ConfigError
from panini.training.config import RunConfig, ValidationConfig
from panini.training.engine import Engine
from panini.training.log import SkippedFaces
from panini.training.stage import Stage


class Validation:
    """Validates a stage on the first faces of a source, always degraded in the same way.

    Args:
        config: The run's recipe, with a `validation`.
        engine: Of the run.
        paired: As `fit` takes it.

    Raises:
        ConfigError: It asks for more faces than its source has.
    """

    def __init__(self, config: RunConfig, engine: Engine, *, paired: bool) -> None:
        assert config.validation is not None
        self.config: ValidationConfig = config.validation
        group = GroupConfig(
            source=self.config.source,
            count=self.config.batch,
            gt_size=self.config.gt_size,
            scales=(self.config.gt_size,),
            flip=False,
        )
        changes = {"groups": (group,), "curriculum": (), "num_workers": 0, "degrade_on": "worker"}
        data = config.data.model_copy(update=changes)
        self.dataset = FaceBatches(data, self.config.seed, paired=paired, in_order=True)
        self._check_count()
        self.finish = Finisher(data, self.config.seed, engine.device)
        self.raw: list[list[RawGroup]] = []
        self.skipped = SkippedFaces(self.dataset.faces, data.max_corrupt)

    def _check_count(self) -> None:
        """Refuse more faces than there are: they would come round again."""
        faces, wanted = self.dataset.faces, self.config.count
        if self.config.source.kind != "prior_live" and wanted > faces:
            raise ConfigError(
                f"validation.count: the source has {faces} faces, got {wanted}; set it to a "
                f"multiple of validation.batch up to {faces}"
            )

    def batches(self) -> list[list[RawGroup]]:
        """The faces; they are prepared once and kept."""
        if not self.raw:
            self.raw = [self.dataset[i] for i in range(self.config.count // self.config.batch)]
        return self.raw

    def check_faces(self) -> None:
        """Name the faces that cannot be read.

        Raises:
            DataError: They are more than `data.max_corrupt` of the source's.
        """
        parts = (part for raw in self.batches() for part in raw)
        self.skipped.add(reason for part in parts for reason in part.skipped)

    @torch.no_grad()
    def judge(self, stage: Stage) -> dict[str, float]:
        """Means of the stage's figures; the first decides which checkpoint is the best."""
        sums: dict[str, Tensor] = {}
        for number in range(len(self.batches())):
            for name, value in stage.validate(self._batch(number)).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        return {name: float(value) / len(self.raw) for name, value in sums.items()}

    @torch.no_grad()
    def pictures(self, stage: Stage) -> list[Tensor]:
        """Columns of the sample sheet: (N, 3, S, S) each, N = `sheet`."""
        count, columns = self.config.sheet, []
        for number in range(len(self.batches())):
            columns.append(stage.pictures(self._batch(number)))
            if (number + 1) * self.config.batch >= count:
                break
        return [torch.cat(parts)[:count] for parts in zip(*columns, strict=True)]

    def _batch(self, number: int) -> list[GroupBatch]:
        return self.finish(self.batches()[number], (number,))
