"""The loop that the stages share."""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from panini.data import FaceBatches, Finisher, Share, Start, batches
from panini.data.batch import RawGroup
from panini.errors import CheckpointError, ConfigError, ImageError, TrainingError
from panini.training.checkpointing import BEST, Checkpoints, Progress, as_json
from panini.training.config import RunConfig
from panini.training.engine import Engine
from panini.training.log import Log, SkippedFaces
from panini.training.network import WEIGHTS
from panini.training.stage import Stage
from panini.training.validation import Validation

logger = logging.getLogger(__name__)

SHARE_EVERY = 100
"""Steps between two exchanges of what was skipped: each makes the processes wait."""

__all__ = ["WEIGHTS", "Engine", "RunConfig", "Stage", "fit", "full_disk_told"]


def fit(stage: Stage, config: RunConfig, *, paired: bool = False) -> bool:
    """Run a stage from where its folder stands to its end, or until its time is over.

    Args:
        stage: What to train.
        config: Its recipe.
        paired: Degrade faces 2k and 2k + 1 alike.

    Returns:
        Whether the run is at its end.

    Raises:
        ConfigError: The recipe asks for a validation that the stage does not have.
        TrainingError: The loss is not finite, a checkpoint cannot be written, or the processes
            do not see one `out`.
        DataError: A source is missing, or too many of its faces cannot be read.
    """
    _check_validation(stage, config)
    with full_disk_told(config):
        run = _start(stage, config, paired=paired)
        try:
            return _loop(run)
        finally:
            run.log.close()


@dataclass(kw_only=True)
class _Run:
    """Everything that the loop holds."""

    stage: Stage
    config: RunConfig
    checkpoints: Checkpoints
    progress: Progress
    dataset: FaceBatches
    finish: Finisher
    validation: Validation | None
    skipped: SkippedFaces
    log: Log
    saved: float
    """When the last checkpoint was written."""
    saved_nimg: int = -1
    """The image that it stands for."""


def _start(stage: Stage, config: RunConfig, *, paired: bool) -> _Run:
    engine = stage.engine
    checkpoints = Checkpoints(config.out, config.keep, config.beginning)
    if engine.main:
        checkpoints.clear_partial()
    progress = checkpoints.load(engine, stage.modules)
    _check_shared(engine, progress, config)
    _keep_judgement(progress, config)
    if progress.nimg:
        logger.info("resumed at %d images from %s", progress.nimg, checkpoints.folder)
    share = Share(engine.rank, engine.world, config.accumulate)
    start = Start(progress.step, progress.nimg)
    dataset = FaceBatches(config.data, config.seed, paired=paired, share=share, start=start)
    finish = Finisher(config.data, config.seed, engine.device)
    validation = Validation(config, engine, paired=paired) if config.validation else None
    # Only now: what cannot begin leaves no folder.
    _make_folder(config.out)
    return _Run(
        stage=stage,
        config=config,
        checkpoints=checkpoints,
        progress=progress,
        dataset=dataset,
        finish=finish,
        validation=validation,
        skipped=SkippedFaces(dataset.faces, config.data.max_corrupt, progress.skipped),
        log=Log(config, engine, progress.nimg),
        saved=time.monotonic(),
    )


def _keep_judgement(progress: Progress, config: RunConfig) -> None:
    """Forget the best where figures are made otherwise from now on: no later one could beat it."""
    judgement = as_json(config.judgement)
    if progress.best is not None and progress.judgement not in (None, judgement):
        logger.info(
            "the recipe validates otherwise than before: the best, of %d images, no longer counts",
            progress.best_nimg,
        )
        progress.best = progress.best_nimg = None
    progress.judgement = judgement


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"out: {out}: cannot be made ({error.strerror or error}); name another folder"
        ) from error


def _check_validation(stage: Stage, config: RunConfig) -> None:
    """Refuse at the start what the first look at the validation faces would end with."""
    wanted, name = config.validation, type(stage).__name__
    if wanted is None:
        return
    if type(stage).validate is Stage.validate:
        raise ConfigError(f"validation: {name} has no figure to validate by; leave it out")
    if wanted.sheet and type(stage).pictures is Stage.pictures:
        raise ConfigError(
            f"validation.sheet: {name} draws no faces; expected 0, got {wanted.sheet}"
        )


def _check_shared(engine: Engine, progress: Progress, config: RunConfig) -> None:
    """Refuse processes that loaded different checkpoints: machines with an `out` each."""
    counters = engine.gather(torch.tensor([progress.nimg], device=engine.device)).tolist()
    if len(set(counters)) > 1:
        raise TrainingError(
            f"{config.out}: the processes found checkpoints of {min(counters)} to {max(counters)} "
            "images; `out` must be one folder that all machines share"
        )


def _loop(run: _Run) -> bool:
    progress, config = run.progress, run.config
    steps = math.ceil(max(config.images - progress.nimg, 0) / run.stage.engine.images_a_step)
    stop = progress.step + steps
    pin = run.stage.engine.device.type == "cuda"
    first, last = progress.step * config.accumulate, stop * config.accumulate
    loader = batches(run.dataset, first, last, pin=pin)
    while progress.step < stop:
        figures = _step(run, loader)
        progress.step += 1
        progress.nimg += run.stage.engine.images_a_step
        if progress.step % SHARE_EVERY == 0 or progress.step == stop:
            _share_skipped(run)
        run.log.add(figures, progress.nimg, skipped=len(progress.skipped))
        if not _validate_when_due(run, at_end=progress.step == stop) and (
            time.monotonic() - run.saved > config.checkpoint_every_s
        ):
            _checkpoint(run)
        if _out_of_time(run):
            _share_skipped(run)
            break
    if run.saved_nimg != progress.nimg:
        _checkpoint(run)
    run.log.flush()
    done = progress.step == stop
    if not done:
        logger.info(
            "stopped after %g s at %d of %d images; the same command goes on",
            config.max_seconds,
            progress.nimg,
            config.images,
        )
    return done


def _step(run: _Run, loader: Iterator[list[RawGroup]]) -> dict[str, Tensor]:
    """One step, of as many batches as make one; means of their figures."""
    engine, progress = run.stage.engine, run.progress
    engine.set_rates(_schedule(run.config, progress.nimg))
    figures: list[dict[str, Tensor]] = []
    for micro in range(run.config.accumulate):
        since = time.perf_counter()
        raw = next(loader)
        engine.timer.add("data", time.perf_counter() - since)
        run.skipped.add(reason for part in raw for reason in part.skipped)
        with engine.section("degrade"):
            batch = run.finish(raw, (progress.step, micro, engine.rank))
        engine.begin(progress.step, micro, progress.nimg)
        figures.append(run.stage.step(batch, progress.step, progress.nimg))
    engine.share_statistics(run.stage.modules)
    return _means(figures)


def _means(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over the batches that have a figure; the gradient's norm is that of the whole step."""
    names = dict.fromkeys(name for figures in batches for name in figures)
    means = {
        name: torch.stack([part[name] for part in batches if name in part]).float().mean()
        for name in names
    }
    last = batches[-1]
    return means | ({"norm": last["norm"]} if "norm" in last else {})


def _schedule(config: RunConfig, nimg: int) -> float:
    warmup = min(1.0, (nimg + 1) / max(config.warmup_images, 1))
    if config.schedule == "constant":
        return warmup
    progress = min(nimg / config.images, 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return warmup * (config.final_rate + (1 - config.final_rate) * cosine)


def _out_of_time(run: _Run) -> bool:
    engine, limit = run.stage.engine, run.config.max_seconds
    if limit is None:
        return False
    # Processes must agree, and asking them all at every step would make each wait for the others.
    if engine.world > 1 and run.progress.step % 10:
        return False
    return engine.any(time.monotonic() - engine.started > limit)


def _share_skipped(run: _Run) -> None:
    """Tell all processes what each has skipped: the first logs, and each judges, all of it."""
    run.skipped.add(run.stage.engine.gather_texts(run.skipped.take_new()))


def _validate_when_due(run: _Run, *, at_end: bool) -> bool:
    """Look at the validation faces if it is time; keep what is the best so far."""
    validation, progress, stage = run.validation, run.progress, run.stage
    if validation is None:
        return False
    every = validation.config.every
    if progress.nimg // every == progress.validated // every and not at_end:
        return False
    progress.validated = progress.nimg
    if not stage.engine.main:
        return True
    stage.engine.check()
    validation.check_faces()
    figures = validation.judge(stage)
    run.log.write(
        {"nimg": progress.nimg} | {f"validation_{name}": v for name, v in figures.items()},
        progress.nimg,
    )
    figure = next(iter(figures.values()))
    if _is_better(figure, progress.best):
        progress.best, progress.best_nimg = figure, progress.nimg
        stage.save(run.config.out / BEST, progress.nimg)
    _checkpoint(run)
    if validation.config.sheet:
        run.log.sheet(validation.pictures(stage), progress.nimg)
    return True


def _is_better(figure: float, best: float | None) -> bool:
    """Whether a figure is the least so far; NaN is less than nothing, and nothing than NaN."""
    return math.isfinite(figure) and (best is None or not math.isfinite(best) or figure < best)


def _checkpoint(run: _Run) -> None:
    """Write the run's state and its weights."""
    engine = run.stage.engine
    run.saved, run.saved_nimg = time.monotonic(), run.progress.nimg
    if not engine.main:
        return
    engine.check()
    run.checkpoints.save(engine, run.stage.modules, run.progress)
    run.stage.save(run.config.out, run.progress.nimg)


@contextmanager
def full_disk_told(config: RunConfig) -> Iterator[None]:
    """Say of whatever could not be written in `out` what to do about it.

    Raises:
        TrainingError: In place of what tells of a full disk.
    """
    try:
        yield
    except (OSError, ImageError, CheckpointError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            good = Checkpoints(config.out, config.keep).all()
            rest = f"{good[-1].name} is whole" if good else "there is no checkpoint yet"
            # Of what is no OSError the message names the file already.
            named = f"{cause.filename or config.out}: cannot be written ({cause.strerror})"
            raise TrainingError(
                f"{named if error is cause else error}; {rest}: make room on the disk and run the "
                "same command again"
            ) from error
        raise
