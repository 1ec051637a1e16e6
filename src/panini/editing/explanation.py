"""How one face was made: masks, the two sources alone, θ, variations and the invention map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from panini.editing.evidence import evidence_of
from panini.editing.invention import Invention, invention_map
from panini.editing.variation import Variations, vary
from panini.images import to_tensor, to_uint8
from panini.models.fusion import FusionControl, PerLevel
from panini.restored import RestoredFace
from panini.restorer import Restorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """How one face was made, and how much of it was invented."""

    face: RestoredFace
    """Input and result."""
    theta: float
    """θ of Eq. 11: mean of the masks at the finest fused level; NaN without masks."""
    masks: dict[int, NDArray[np.float32]]
    """Level (px) → weight of the face generator for each channel, (C,) in (0, 1)."""
    y_ife: Image.Image
    """The result without the generator's features (Eq. 12): what comes from the photo."""
    y_gpb: Image.Image
    """The result without the photo's features (Eq. 13): what comes from the generator."""
    variations: Variations
    """Equally plausible faces."""
    invention: Invention
    """Where the face was invented."""
    prior_bias: PerLevel
    """As it was given."""
    seed: int
    """Of the variations."""


def explain(
    restorer: Restorer,
    face: RestoredFace,
    *,
    variations: int = 8,
    seed: int = 0,
    prior_bias: PerLevel = 0.0,
) -> Explanation:
    """Take the making of a face apart.

    Args:
        restorer: What restored the face.
        face: One of its faces.
        variations: So many plausible faces make the spread, 1 to 64.
        seed: Of the variations.
        prior_bias: The bias with which the face was restored.

    Returns:
        The parts; they are the same again for the same face and seed.

    Raises:
        ConfigError: A bad `variations` or `seed`.
    """
    varied = vary(restorer, face, variations, seed=seed, prior_bias=prior_bias)
    result = np.asarray(face.restored.convert("RGB"))
    pictures = [np.asarray(other.restored) for other in varied.faces]
    return Explanation(
        face=face,
        theta=face.theta,
        masks=_masks(restorer, face, prior_bias),
        y_ife=_draw(restorer, face, FusionControl(bias=prior_bias, prior_gain=0.0)),
        y_gpb=_draw(restorer, face, FusionControl(bias=prior_bias, image_gain=0.0)),
        variations=varied,
        invention=invention_map(evidence_of(face), result, pictures),
        prior_bias=prior_bias,
        seed=seed,
    )


def _lq(restorer: Restorer, face: RestoredFace) -> torch.Tensor:
    return to_tensor(np.asarray(face.lq.convert("RGB"))).to(restorer.device)


def _masks(
    restorer: Restorer, face: RestoredFace, bias: PerLevel
) -> dict[int, NDArray[np.float32]]:
    control = FusionControl(bias=bias) if bias else None
    with torch.inference_mode():
        model = restorer.model_of(face)
        masks = model.fusion.masks(model.degradation(_lq(restorer, face)), control)
    return {level: mask.float().flatten().cpu().numpy() for level, mask in sorted(masks.items())}


def _draw(restorer: Restorer, face: RestoredFace, control: FusionControl) -> Image.Image:
    with torch.inference_mode():
        output = restorer.model_of(face)(_lq(restorer, face), control=control)
    return Image.fromarray(to_uint8(output.image)[0])
