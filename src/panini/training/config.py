"""What every stage's recipe has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from panini.config import Config
from panini.data import DataConfig, SourceConfig

Precision = Literal["float32", "bfloat16", "float16"]
Share = Annotated[float, Field(ge=0, lt=1)]


class ValidationConfig(Config):
    """A small fixed set of faces that is never trained on."""

    source: SourceConfig
    every: int = Field(gt=0)
    """Images between two looks; each comes with a checkpoint."""
    count: int = Field(default=16, gt=0)
    """Faces, the first of the source."""
    batch: int = Field(default=4, gt=0)
    """Faces at a time."""
    gt_size: int = Field(default=256, gt=0, multiple_of=64)
    """Side at which they are compared, px."""
    sheet: int = Field(default=0, ge=0)
    """Faces on the sample sheet that each look leaves in `samples/`; 0 = none."""
    seed: int = Field(default=0, ge=0)
    """Of their degradations."""

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.count % self.batch:
            raise ValueError(
                f"validation.count: expected a multiple of batch {self.batch}, got {self.count}"
            )
        return self


class RunConfig(Config):
    """What every stage has."""

    out: Path
    """Folder of the run: checkpoints/, stats.jsonl and the weights."""
    images: int = Field(gt=0)
    """Length of the run, in images."""
    data: DataConfig
    validation: ValidationConfig | None = None
    """None: nothing is kept as the best."""
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    """Peak of the schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the linear warm-up: a half cosine to `final_rate`, or no change."""
    final_rate: float = Field(default=0.01, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    warmup_images: int = Field(default=256, ge=0)
    """Images of linear warm-up; 0 = none."""
    betas: tuple[Share, Share] = (0.9, 0.99)
    """Adam's."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm; .inf = never."""
    ema_half_life: int = Field(default=2000, ge=0)
    """Images after which a weight's share in the average has halved; 0 = no average."""
    accumulate: int = Field(default=1, gt=0)
    """Batches whose gradients make one step."""
    precision: Precision = "float32"
    """Of the forward pass; weights and optimizer stay float32."""
    device: str = "auto"
    """"auto" takes what `accelerate` finds: the process's own GPU, else the CPU."""
    channels_last: bool = False
    """Keep the convolutional networks' weights in that order: faster on some GPUs."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, faster after. Never compiled:
    discriminators under a gradient penalty, and what of a prior draws while it trains."""
    log_every_s: float = 5.0
    """Seconds between log lines."""
    tensorboard: bool = False
    """Write curves and sheets to `tensorboard/` too."""
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints."""
    keep: int = Field(default=2, gt=0)
    """Newest checkpoints that stay, beside the best."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Stop with a checkpoint after so many; the same command goes on. None = run to the end."""

    init_remedy: ClassVar[str] = "run panini train warmup first"
    """What to do where the file of an `init` is missing."""

    @property
    def judgement(self) -> dict[str, object]:
        """What makes the figure by which the best is chosen: two of other making do not compare."""
        if self.validation is None:
            return {}
        faces = self.validation.model_dump(include={"source", "count", "batch", "gt_size", "seed"})
        return {
            "faces": faces,
            "degradations": self.data.degradations,
            "degradation_weights": self.data.degradation_weights,
            "lq_size": self.data.lq_size,
        }

    @property
    def beginning(self) -> dict[str, object]:
        """What the run begins with: no leg of it may begin with something else."""
        return {}
