"""Reading and writing weights."""

from panini.checkpoints.io import (
    load_model,
    load_prior,
    load_state,
    load_tensors,
    save_model,
    save_tensors,
)
from panini.checkpoints.specs import SPECS, Spec

__all__ = [
    "SPECS",
    "Spec",
    "load_model",
    "load_prior",
    "load_state",
    "load_tensors",
    "save_model",
    "save_tensors",
]
