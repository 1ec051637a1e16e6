"""What a batch of faces is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from panini.config import Config
from panini.degradations import DegradationRange


def _sums_up(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Weights of which shares can be made."""
    if not sum(weights) > 0:
        raise ValueError(f"expected weights with a sum above 0, got {weights}")
    return weights


Weights = Annotated[
    tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], AfterValidator(_sums_up)
]
"""Of a mix, in any unit."""


class SourceConfig(Config):
    """Where faces come from."""

    kind: Literal["shards", "folder", "prior", "prior_live"]
    """Tar shards of images, a folder of images, a folder made by `panini sample`, or a prior that
    draws new faces on the training device."""
    paths: tuple[Path, ...] = Field(min_length=1)
    """The tar files or folders. For `prior_live` one prior: its file, a network's, or a shipped
    model's name."""
    truncation: float = Field(default=0.7, ge=0, le=1)
    """For `prior_live`: each face's ψ is uniform between this and 1."""
    decoded_mb: int = Field(default=0, ge=0)
    """Shards whose decoded faces are all of one side and fit so many megabytes are decoded once
    and kept; others are decoded whenever they are drawn. 0 = always the latter."""

    @model_validator(mode="after")
    def _one_prior(self) -> Self:
        if self.kind == "prior_live" and len(self.paths) != 1:
            raise ValueError(f"a live prior is one file, got {len(self.paths)}")
        return self


class DegradationConfig(Config):
    """Ranges of Eq. 10, in pixels of faces of `lq_size`, 512 px unless the recipe says other."""

    low_side: tuple[int, int] = (16, 100)
    """Side after downsampling, px."""
    low_side_law: Literal["uniform", "log"] = "uniform"
    """`log` draws every octave equally often."""
    rate: tuple[float, float] | None = None
    """Downsampling factor, 1 or more, uniform, in place of the low side: how the paper gives it."""
    sigma: tuple[float, float] = (0.5, 4.5)
    """Gaussian blur, px."""
    noise: tuple[float, float] = (0.0, 15.0)
    """Gaussian noise, levels of 0..255."""
    jpeg: tuple[int, int] = (50, 95)
    """JPEG quality."""

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        if self.rate is not None and min(self.rate) < 1:
            raise ValueError(f"rate: expected factors of 1 or more, got {min(self.rate)}")
        return self

    def build(self, size: int) -> DegradationRange:
        """The sampler for faces of `size` px."""
        return DegradationRange(**self.model_dump(), size=size)


class GroupConfig(Config):
    """A share of every batch that comes from one source."""

    source: SourceConfig
    count: int = Field(gt=0)
    """Faces of this group in a batch of one process: the counts are the weights of the mix."""
    gt_size: int = Field(gt=0, multiple_of=64)
    """Side at which the truth is kept, px: a multiple of 64, where windows are cut."""
    scales: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(256,), min_length=1)
    """Sides (of the whole face) at which the losses may compare; one is drawn a step."""
    flip: bool = True
    """Mirror half of the faces; never for faces whose w is used."""
    colour_jitter: float = Field(default=0.0, ge=0, lt=1)
    """Brightness, contrast and saturation are scaled by factors of 1 ± this, before degrading;
    never for faces whose w is used."""


class DegradationPhase(Config):
    """The mix of degradations in an early part of a run."""

    until: int = Field(gt=0)
    """Image at which the phase ends."""
    weights: Weights
    """In place of `degradation_weights`."""


class DataConfig(Config):
    """What a batch is made of."""

    groups: tuple[GroupConfig, ...] = Field(min_length=1)
    task: Literal["mfr", "sr16", "none"] = "mfr"
    """"mfr": degraded by Eq. 10. "sr16": only reduced, bilinear with antialias. "none": there are
    only whole faces."""
    degradations: tuple[DegradationConfig, ...] = ()
    """Each face is degraded by one of these, drawn with `degradation_weights`."""
    degradation_weights: Weights = (1.0,)
    curriculum: tuple[DegradationPhase, ...] = ()
    """Other weights for the first images of a run, in the order of `until`."""
    lq_size: int = Field(default=512, gt=0)
    """Side of the degraded faces, px: what the network takes."""
    degrade_on: Literal["worker", "device"] = "worker"
    """Who degrades: the workers, exactly; or the training device, for which a face travels at
    `gt_size` and is brought to `lq_size` there."""
    num_workers: int = Field(default=1, ge=0)
    """Processes that prepare batches; 0 = in the training process."""
    max_corrupt: float = Field(default=0.01, ge=0, le=1)
    """Faces that cannot be read are skipped and named; a larger share of all stops the run. Several
    processes tell each other of theirs every hundred steps."""

    @model_validator(mode="after")
    def _says_how_to_degrade(self) -> Self:
        if (self.task == "mfr") != bool(self.degradations):
            raise ValueError(
                f"degradations: task {self.task} takes "
                f"{'at least one' if self.task == 'mfr' else 'none'}, got {len(self.degradations)}"
            )
        ends = [phase.until for phase in self.curriculum]
        if ends != sorted(set(ends)):
            raise ValueError(f"curriculum: expected phases in the order of until, got {ends}")
        return self

    @property
    def batch(self) -> int:
        """Faces in a batch of one process."""
        return sum(group.count for group in self.groups)
