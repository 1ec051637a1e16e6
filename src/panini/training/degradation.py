"""Stage 1, UDRL: pre-train the degradation encoder by momentum contrast (Fig. 2, Eq. 4).

Query and key are *different* faces under the *same* degradation, so the encoder has nothing to
gain from content. `pairs: dasr` takes two patches of *one* face instead, as DASR does and the
paper argues against.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from panini.checkpoints import load_degradation_encoder, load_tensors, save_tensors
from panini.data import FaceBatches, Finisher, GroupBatch, Start, to_float
from panini.errors import ConfigError
from panini.losses import degradation_numbers, info_nce
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig, Kind
from panini.training.checkpointing import BEST
from panini.training.inputs import check_inputs
from panini.training.run import Engine, RunConfig, Stage, fit, full_disk_told

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]

WEIGHTS = "degradation_encoder.safetensors"
KIND = "degradation-encoder"


class DegradationRunConfig(RunConfig):
    """Recipe of stage 1."""

    init: Path | None = None
    """A trained encoder to go on from: weights of this stage, a network that has one, or a shipped
    model's name. None = a new one, as in the paper."""
    contrast_weight: float = Field(default=1, ge=0, allow_inf_nan=False)
    """Of the contrast; 0 = labels alone, for an encoder that is there already."""
    pairs: Literal["udrl", "dasr"] = "udrl"
    """"udrl": different faces under one degradation; "dasr": two crops of one degraded face."""
    kind: Kind = "mobile"
    """Kind of the degradation encoder, see `DegradationEncoderConfig`."""
    queue_size: int = Field(default=8192, gt=0)
    """Negatives."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Of the momentum encoder."""
    temperature: float = Field(default=0.07, gt=0)
    """τ of Eq. 4."""
    calibration_images: int = Field(default=512, ge=0)
    """Faces on which v_DR is scaled at the end (mobile kind); 0 = leave it as it is. Until then
    the weights in the folder are not calibrated; their provenance says which are."""
    crop: int | None = None
    """Contrast random crops of this side instead of whole faces: cheaper; None = whole."""
    label_weight: float = Field(default=0, ge=0)
    """Of a linear layer's task to read the numbers of Eq. 10 from v_DR. The paper has no labels;
    where we degrade the faces ourselves they cost nothing. 0 = the paper's."""
    label_shares: tuple[Share, Share, Share, Share] = (1, 1, 1, 1)
    """What blur σ, downsampling rate, noise and JPEG quality each count in that task."""
    calibration_floor: float = Field(default=0.03, gt=0)
    """See `calibrate`."""

    @model_validator(mode="after")
    def _makes_pairs(self) -> Self:
        odd = [group.count for group in self.data.groups if group.count % 2]
        if odd and self.pairs == "udrl":
            raise ValueError(f"data.groups: pairs need even counts, got {odd[0]}")
        if self.validation and self.pairs == "udrl" and self.validation.batch % 2:
            raise ValueError(
                f"validation.batch: pairs need an even number, got {self.validation.batch}"
            )
        if self.crop and self.crop > self.data.lq_size:
            raise ValueError(f"crop: {self.crop} px do not fit faces of {self.data.lq_size} px")
        side = self.crop or self.data.lq_size
        step = DegradationEncoderConfig(kind=self.kind).divisor
        if side % step:
            key = "crop" if self.crop else "data.lq_size"
            raise ValueError(
                f"{key}: kind {self.kind} takes multiples of {step} px, got {side}; "
                f"try {max(side // step, 1) * step}"
            )
        keys = self.data.batch // (2 if self.pairs == "udrl" else 1)
        if self.queue_size < keys:
            raise ValueError(
                f"queue_size: expected at least the {keys} keys of a batch, got {self.queue_size}"
            )
        if self.label_weight and self.data.task != "mfr":
            raise ValueError(f"label_weight: task {self.data.task!r} has no degradation numbers")
        if not self.contrast_weight and not self.label_weight:
            raise ValueError("contrast_weight: 0 leaves nothing to learn; set label_weight above 0")
        if self.pairs == "dasr" and not self.crop:
            raise ValueError("crop: pairs dasr need the side of their patches")
        return self

    init_remedy: ClassVar[str] = "name a trained encoder, or leave it out"

    @property
    def judgement(self) -> dict[str, object]:
        """InfoNCE decides, which has the queue and the temperature in it; or the labels' loss."""
        names = ("pairs", "crop", "queue_size", "temperature", "label_shares")
        contrasts = bool(self.contrast_weight)
        return super().judgement | {n: getattr(self, n) for n in names} | {"contrast": contrasts}

    @property
    def beginning(self) -> dict[str, object]:
        """The encoder that it begins with."""
        return {"init": self.init}


class _Contrast(torch.nn.Module):
    """Momentum encoder and queue: the part of MoCo that is not the encoder itself."""

    queue: Tensor
    pointer: Tensor

    def __init__(self, encoder: DegradationEncoder, queue_size: int, seed: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        queue = torch.randn(queue_size, encoder.config.dim, generator=generator)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def follow(self, encoder: DegradationEncoder, momentum: float) -> None:
        """Move the momentum encoder towards the encoder."""
        for ours, theirs in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            ours.lerp_(theirs, 1 - momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys, first in first out."""
        # On the device throughout: reading the pointer would make the host wait.
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.pointer.add_(len(keys))

    @property
    def filled(self) -> Tensor:
        """Whether every key of the queue is an image's, and none a random one of the start."""
        return self.pointer >= len(self.queue)


class DegradationStage(Stage):
    """Encoder, momentum encoder and queue."""

    def __init__(self, config: DegradationRunConfig) -> None:
        self.config = config
        self.engine = Engine(config)
        torch.manual_seed(config.seed)
        self.encoder = _first_encoder(config).train()
        self.contrast = _Contrast(self.encoder, config.queue_size, config.seed)
        self.engine.place(self.encoder)
        self.contrast.to(self.engine.device)
        self.modules = {"encoder": self.encoder, "contrast": self.contrast}
        learned = list(self.encoder.parameters())
        if config.label_weight:
            self.teller = nn.Linear(self.encoder.config.dim, 4)
            self.engine.place(self.teller)
            self.modules["teller"] = self.teller
            learned += self.teller.parameters()
        self.engine.add_optimizer("encoder", (learned, 1.0))

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One step on pairs: faces 2k and 2k+1 share their degradation."""
        engine, config = self.engine, self.config
        figures: dict[str, Tensor] = {}
        key: Tensor | None = None
        loss = torch.zeros((), device=engine.device)
        with engine.section("forward"):
            queries, keys = self._views(batch, (step, engine.micro, engine.rank))
            with engine.autocast():
                degradation = self.encoder(queries)
            if config.contrast_weight:
                key, contrast, figures = self._compare_pairs(degradation, keys)
                loss = loss + config.contrast_weight * contrast
            if config.label_weight:
                labels = self._label_loss(degradation.float(), batch)
                loss = loss + config.label_weight * labels
                figures["labels"] = labels.detach()
        engine.update("encoder", loss)
        if key is not None:
            self.contrast.enqueue(engine.gather(key))
        return figures

    def _compare_pairs(
        self, degradation: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The embedded keys, InfoNCE of the queries, and its figures."""
        with self.engine.autocast():
            query = F.normalize(self.encoder.project(degradation).float(), dim=1)
            key = self._embed_keys(keys)
        loss = info_nce(query, key, self.contrast.queue, self.config.temperature)
        return key, loss, {"info_nce": loss.detach(), "rank": self._rank(query, key)}

    @torch.no_grad()
    def validate(self, batch: list[GroupBatch]) -> dict[str, Tensor]:
        """InfoNCE of held-out pairs against the queue; without contrast, the labels' loss.

        NaN, which is never the best, until the queue is full: a random key is too easy to tell.
        """
        was = self.encoder.training
        self.encoder.eval()
        views = [self.encoder(view) for view in self._views(batch, (0, 0, 0))]
        self.encoder.train(was)
        if not self.config.contrast_weight:
            return {"labels": self._label_loss(views[0], batch)}
        query, key = (F.normalize(self.encoder.project(view), dim=1) for view in views)
        loss = info_nce(query, key, self.contrast.queue, self.config.temperature)
        figures = {"info_nce": loss, "rank": self._rank(query, key)}
        return {n: torch.where(self.contrast.filled, v, math.nan) for n, v in figures.items()}

    def _views(self, batch: list[GroupBatch], key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Degraded images of the queries and of the keys; crops follow from (step, micro, rank)."""
        lq = to_float(torch.cat([group.lq for group in batch]))
        crop = self.config.crop
        # Not from the engine's numbers of this step, but from a stream of their own.
        seed = np.random.SeedSequence([self.config.seed, *key, 1]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        if self.config.pairs == "dasr":
            assert crop is not None  # the recipe saw to it
            return _crop(lq, crop, generator), _crop(lq, crop, generator)
        if crop:
            lq = _crop(lq, crop, generator)
        return lq[0::2], lq[1::2]

    def _label_loss(self, degradation: Tensor, batch: list[GroupBatch]) -> Tensor:
        """How well the queries' v_DR tells what was done to them."""
        params = torch.cat([group.params for group in batch])
        paired = self.config.pairs == "udrl"
        params = params[0::2] if paired else params
        return degradation_numbers(self.teller(degradation), params, self.config.label_shares)

    @torch.no_grad()
    def _embed_keys(self, keys: Tensor) -> Tensor:
        """The momentum encoder's view of the keys, normalised."""
        if self.engine.stepping:
            self.contrast.follow(self.encoder, self.config.momentum)
        encoder = self.contrast.encoder
        return F.normalize(encoder.project(encoder(keys)).float(), dim=1)

    def _rank(self, query: Tensor, key: Tensor) -> Tensor:
        """Share of the queue that is nearer to a query than its own key."""
        own = (query * key).sum(1, keepdim=True)
        return (query @ self.contrast.queue.T > own).float().mean().detach()

    def save(self, folder: Path, nimg: int) -> None:
        """Write the encoder, not calibrated."""
        first = {} if self.config.init is None else {"init": self.config.init.name}
        _write(self.encoder, folder, {**first, "udrl_images": nimg})


def _first_encoder(config: DegradationRunConfig) -> DegradationEncoder:
    """The one to go on from, or a new one.

    Raises:
        CheckpointError: `init` holds none.
        ConfigError: It is of another kind.
    """
    wanted = DegradationEncoderConfig(kind=config.kind)
    if config.init is None:
        return DegradationEncoder(wanted)
    found = load_degradation_encoder(config.init)
    if found.config != wanted:
        raise ConfigError(f"init: {config.init} has a {found.config}, the recipe says {wanted}")
    return found.requires_grad_(True)


def _write(encoder: DegradationEncoder, folder: Path, provenance: Mapping[str, Any]) -> None:
    meta = {"config": {"kind": encoder.config.kind}, "provenance": dict(provenance)}
    save_tensors(encoder.state_dict(), folder / WEIGHTS, kind=KIND, meta=meta)


def _crop(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random crop of each image, on the 8-px grid so that JPEG blocks stay in phase."""
    last = (images.shape[-1] - side) // 8
    offsets = torch.randint(0, last + 1, (len(images), 2), generator=generator) * 8
    return torch.stack(
        [
            image[:, top : top + side, left : left + side]
            for image, (top, left) in zip(images, offsets.tolist(), strict=True)
        ]
    )


@torch.no_grad()
def calibrate(encoder: DegradationEncoder, lq: Tensor, floor: float = 0.03) -> None:
    """Decorrelate and scale v_DR over degraded faces, by folding an affine map into the encoder.

    Contrast cares for angles only, and most of v_DR's variance ends up on one axis. The masks'
    MLPs learn from all axes equally fast when each has about unit variance.

    Args:
        encoder: Of the mobile kind, whose last layer is linear; `project` keeps its meaning.
        lq: Degraded faces to measure on, (N, 3, H, W) in [-1, 1]; N well above 100.
        floor: Added to each axis's standard deviation, as a share of the largest.
    """
    encoder.eval()
    last, first = encoder.pointwise, encoder.head[0]
    if not isinstance(last, nn.Conv2d) or not isinstance(first, nn.Linear) or last.bias is None:
        raise TypeError("calibrate needs an encoder that ends in a pointwise convolution")
    values = torch.cat([encoder(part) for part in lq.split(16)]).double()
    mean = values.mean(dim=0)
    covariance = (values - mean).T @ (values - mean) / len(values)
    variance, axes = torch.linalg.eigh(covariance)  # columns are axes
    deviation = variance.clamp_min(0).sqrt()
    scale = deviation + floor * deviation.max()
    first.bias.add_((first.weight.double() @ mean).float())
    first.weight.copy_(first.weight.double() @ (axes * scale))
    weight = (axes / scale).T @ last.weight[:, :, 0, 0].double()
    last.bias.copy_((axes / scale).T @ (last.bias.double() - mean))
    last.weight.copy_(weight[:, :, None, None])


def train(config: DegradationRunConfig) -> bool:
    """Run stage 1; returns whether it is at its end."""
    check_inputs(config)
    stage = DegradationStage(config)
    done = fit(stage, config, paired=config.pairs == "udrl")
    if done and stage.engine.main and config.kind == "mobile" and config.calibration_images:
        _calibrate_weights(config, stage.engine)
    return done


def _calibrate_weights(config: DegradationRunConfig, engine: Engine) -> None:
    """Calibrate the last weights and the best, those that are not yet."""
    told = {
        folder: load_tensors(folder / WEIGHTS, kind=KIND)[1]["provenance"]
        for folder in (config.out, config.out / BEST)
        if (folder / WEIGHTS).is_file()
    }
    todo = {folder: facts for folder, facts in told.items() if not facts.get("calibrated")}
    if not todo:
        return
    faces = _calibration_faces(config, engine)
    for folder, provenance in todo.items():
        encoder = load_degradation_encoder(folder / WEIGHTS).to(faces.device)
        calibrate(encoder, faces, config.calibration_floor)
        with full_disk_told(config):
            _write(encoder, folder, {**provenance, "calibrated": True})


def _calibration_faces(config: DegradationRunConfig, engine: Engine) -> Tensor:
    # Degraded as at the end of the curriculum.
    start = Start(nimg=config.images)
    dataset = FaceBatches(config.data, config.seed + 1, start=start)
    finish = Finisher(config.data, config.seed + 1, engine.device)
    steps = range(math.ceil(config.calibration_images / config.data.batch))
    return to_float(
        torch.cat([part.lq for step in steps for part in finish(dataset[step], (step,))])
    )
