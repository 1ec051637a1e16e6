"""Faces to train on: tar shards, folders, samples of a prior; degraded on the way out."""

from panini.data.batch import (
    FaceBatches,
    RawGroup,
    Share,
    Start,
    batches,
    resize,
    resize_batch,
    to_float,
)
from panini.data.config import DataConfig, DegradationConfig, GroupConfig, SourceConfig
from panini.data.device import Finisher, GroupBatch, to_levels
from panini.data.sources import Sample, draw_prior_faces, load_live_prior, open_source

__all__ = [
    "DataConfig",
    "DegradationConfig",
    "FaceBatches",
    "Finisher",
    "GroupBatch",
    "GroupConfig",
    "RawGroup",
    "Sample",
    "Share",
    "SourceConfig",
    "Start",
    "batches",
    "draw_prior_faces",
    "load_live_prior",
    "open_source",
    "resize",
    "resize_batch",
    "to_float",
    "to_levels",
]
