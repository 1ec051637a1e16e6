"""Reading and writing weights."""

from panini.checkpoints.discriminators import load_discriminator
from panini.checkpoints.formats import (
    convert,
    load_degradation_encoder,
    load_model,
    load_network_prior,
    load_prior,
    read,
    recognise,
)
from panini.checkpoints.io import load_state, load_tensors, save_model, save_tensors
from panini.checkpoints.kinds import Recognition, Weights
from panini.checkpoints.specs import SPECS, Spec

__all__ = [
    "SPECS",
    "Recognition",
    "Spec",
    "Weights",
    "convert",
    "load_degradation_encoder",
    "load_discriminator",
    "load_model",
    "load_network_prior",
    "load_prior",
    "load_state",
    "load_tensors",
    "read",
    "recognise",
    "save_model",
    "save_tensors",
]
