"""How a good face becomes a bad one: Eq. 10 of the paper, and the 16x reduction of its SR task.

    X = JPEG_q[ (Y * k_sigma) down_r up_r + N_delta ]

Four numbers, a `DegradationParams`, say what is done to an image; the noise comes from a
generator that the caller passes. `degrade` is the reference (uint8 in, uint8 out): the same
image, numbers and seed give the same bytes again. `degrade_batch` is the fast one for training.
"""

from panini.degradations.batched import degrade_batch
from panini.degradations.params import (
    FLOOR_RANGE,
    MEASURED_RANGE,
    SAMPLERS,
    DegradationParams,
    DegradationRange,
    sample_floor,
    sample_measured,
    sample_paper,
)
from panini.degradations.reference import bilinear_antialias, degrade, downscale16

__all__ = [
    "FLOOR_RANGE",
    "MEASURED_RANGE",
    "SAMPLERS",
    "DegradationParams",
    "DegradationRange",
    "bilinear_antialias",
    "degrade",
    "degrade_batch",
    "downscale16",
    "sample_floor",
    "sample_measured",
    "sample_paper",
]
