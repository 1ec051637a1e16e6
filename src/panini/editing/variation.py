"""Other faces that explain the same input as well: what the face generator adds, drawn again.

The photo fixes the masks and the image features. Free is what the generator brings: its latent
codes and its noise. A variation mixes the code of a random face into the codes that were
predicted from the photo,

    w_i' = w_avg + √(1 - p) (w_i - w_avg) + √p ψ (f(z) - w_avg),    z ~ N(0, 1),

for the layers i up to the finest fused level; p is the share of the variance that is new. Above
that level the codes carry colours, which the photo tells: there only the noise is moved. Then
what changed at the input's own resolution is put back, and p is lowered until the variation
agrees with the input as well as the result does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from panini.editing.evidence import Evidence, Levels, evidence_of, low_band, rms, shrink
from panini.errors import ConfigError
from panini.images import to_tensor, to_uint8
from panini.models.fusion import FusionControl, PerLevel
from panini.models.mobile_stylegan import MobileStyleGAN
from panini.models.prior import GanPrior
from panini.restored import RestoredFace, is_colourless
from panini.restorer import Restorer

MOST_VARIATIONS = 64
"""More are refused: each costs one or two passes of the network."""

TOLERANCE = 0.5
"""dB by which a variation may agree less with the input than the result does."""

TRUNCATION = 0.7
"""ψ of the random faces: likely ones, as the generator's samples are usually shown."""

_ATTEMPTS = 4
_LEAST_LIMIT = 1.0  # Levels; a result that equals its input still has the step of 8 bits.


@dataclass(frozen=True, kw_only=True, eq=False)
class Variations:
    """Equally plausible faces, and how far they may be called so."""

    faces: list[RestoredFace]
    """The variations, in the order of their numbers."""
    own_side: int
    """The input's own resolution, px: there, all of them agree with it."""
    result_agreement: float
    """PSNR of the result with the input at the own resolution, dB."""
    agreement: list[float]
    """The same of every variation, dB."""
    shares: list[float]
    """Share p of the codes' variance that is new in every variation, (0, 1]."""


def variations(
    restorer: Restorer,
    face: RestoredFace,
    count: int,
    *,
    seed: int,
    strength: float = 1.0,
    prior_bias: PerLevel = 0.0,
) -> list[RestoredFace]:
    """`vary` without its numbers: only the faces."""
    options = {"seed": seed, "strength": strength, "prior_bias": prior_bias}
    return vary(restorer, face, count, **options).faces


def vary(
    restorer: Restorer,
    face: RestoredFace,
    count: int,
    *,
    seed: int,
    strength: float = 1.0,
    prior_bias: PerLevel = 0.0,
) -> Variations:
    """Draw other faces that agree with the same input.

    Args:
        restorer: What drew the face.
        face: A restored face.
        count: So many variations, 1 to 64. Number k is the same whatever the count.
        seed: At least 0; the same seed gives the same variations.
        strength: In (0, 2]: half the share of the codes' variance that is drawn anew, as long as
            the input agrees.
        prior_bias: The bias with which the face was restored.

    Returns:
        The variations, grey where the face is; θ, box and matrix are the face's.

    Raises:
        ConfigError: A bad `count`, `seed` or `strength`.
    """
    _check(count, seed, strength)
    studio = _Studio(restorer, face, prior_bias)
    drawn = [studio.variation(np.random.default_rng([seed, k]), strength) for k in range(count)]
    return Variations(
        faces=[replace(face, restored=Image.fromarray(picture)) for picture, _, _ in drawn],
        own_side=studio.evidence.side,
        result_agreement=studio.agreement,
        agreement=[agreement for _, agreement, _ in drawn],
        shares=[share for _, _, share in drawn],
    )


class _Studio:
    """One face, its result and its evidence, ready to be drawn again."""

    def __init__(self, restorer: Restorer, face: RestoredFace, prior_bias: PerLevel) -> None:
        self.model = restorer.model_of(face)
        self.control = FusionControl(bias=prior_bias) if prior_bias else None
        self.lq = to_tensor(np.asarray(face.lq.convert("RGB"))).to(restorer.device)
        self.evidence: Evidence = evidence_of(face)
        result = np.asarray(face.restored.convert("RGB"))
        self.grey = is_colourless(result)
        self.result = result.astype(np.float32)
        self.agreement = self.evidence.agreement(self.result)
        # A variation may leave the result as far as the result has left the input.
        self.limit = max(_LEAST_LIMIT, rms(self.evidence.error(self.result)))
        with torch.inference_mode():
            self.ws: Tensor = self.model.encoder(self.lq).ws

    def variation(
        self, generator: np.random.Generator, strength: float
    ) -> tuple[np.ndarray, float, float]:
        """Picture (uint8), agreement in dB, and the share p that was used."""
        prior = self.model.prior
        z = torch.from_numpy(generator.standard_normal((1, prior.z_dim), dtype=np.float32))
        with torch.inference_mode():
            w = prior.mapping(z.to(self.lq.device), TRUNCATION)
        noise = rolled_noise(self.model, generator)
        share = strength / 2
        picture, agreement = self.result, self.agreement
        for attempt in range(_ATTEMPTS):
            drawn = self._draw(mix(prior, self.ws, w, share), noise)
            moved = rms(shrink(drawn - self.result, self.evidence.side))
            # What the photo tells stays: only what it cannot hold differs from the result.
            picture = drawn - low_band(drawn - self.result, self.evidence.side)
            picture = np.rint(picture.clip(0, 255))
            agreement = self.evidence.agreement(picture)
            agrees = moved <= 1.05 * self.limit and agreement >= self.agreement - TOLERANCE
            if agrees or attempt == _ATTEMPTS - 1:
                break
            # The change grows with √p.
            share *= min(0.5, 0.9 * (self.limit / moved) ** 2)
        return picture.astype(np.uint8), agreement, share

    def _draw(self, ws: Tensor, noise: dict[str, Tensor]) -> Levels:
        with torch.inference_mode():
            output = torch.func.functional_call(
                self.model, noise, (self.lq,), {"control": self.control, "ws": ws}
            )
        picture = to_uint8(output.image)[0]
        if self.grey:
            # As the result was: its colours would count as a change.
            picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return np.asarray(picture, dtype=np.float32)


def mix(prior: GanPrior, ws: Tensor, w: Tensor, share: float) -> Tensor:
    """Put the style of another face into the codes of one, keeping their variance.

    Args:
        prior: Whose codes they are.
        ws: (N, num_ws, w_dim).
        w: (N, w_dim).
        share: Share p of the variance that is to come from `w`, [0, 1].

    Returns:
        (N, num_ws, w_dim); the layers above the finest fused level are those of `ws`.
    """
    moved = structural_ws(prior)
    kept, new = math.sqrt(1 - share), math.sqrt(share)
    mixed = prior.w_avg + kept * (ws - prior.w_avg) + new * (w - prior.w_avg).unsqueeze(1)
    return torch.cat([mixed[:, :moved], ws[:, moved:]], dim=1)


def structural_ws(prior: GanPrior) -> int:
    """How many of the first style vectors draw the levels that can be fused."""
    levels = len(prior.channels)
    # One vector at 4 px and three a block; StyleGAN2 has two a level.
    return 3 * levels - 2 if isinstance(prior, MobileStyleGAN) else 2 * levels


def rolled_noise(model: nn.Module, generator: np.random.Generator) -> dict[str, Tensor]:
    """The generator's noise maps, each shifted around by a random way: equally likely ones.

    Returns:
        Buffer's name in the model → map, for `torch.func.functional_call`.
    """
    maps: dict[str, Tensor] = {}
    for name, noise in model.named_buffers():
        if name.startswith("prior.") and name.endswith(".noise"):
            height, width = noise.shape[-2:]
            shifts = int(generator.integers(height)), int(generator.integers(width))
            maps[name] = torch.roll(noise, shifts, dims=(-2, -1))
    return maps


def _check(count: int, seed: int, strength: float) -> None:
    if not 1 <= count <= MOST_VARIATIONS:
        raise ConfigError(f"variations: expected 1 to {MOST_VARIATIONS}, got {count}")
    if seed < 0:
        raise ConfigError(f"seed: expected 0 or more, got {seed}")
    if not 0 < strength <= 2:
        raise ConfigError(f"strength: expected more than 0 and at most 2, got {strength}")
