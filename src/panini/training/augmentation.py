"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv 2006.06676), a small pipeline.

With few faces a discriminator learns them by heart and stops to teach. Augmenting all that it sees
prevents that, and does not leak into the generated faces as long as each change is made to less
than all of them. The share of faces changed follows how sure the discriminator is of the real ones.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from panini.config import Config

TRANSLATION = 0.125
"""Largest shift, as a share of the side."""
SCALE_STD = 0.2
CONTRAST_STD = 0.5
SATURATION_STD = 1.0
"""Standard deviations of the factors' base-2 logarithms."""
BRIGHTNESS_STD = 0.2
GREY = (0.299, 0.587, 0.114)


class AugmentConfig(Config):
    """How the share of augmented faces is found."""

    target: float = Field(default=0.6, gt=0, lt=1)
    """Mean sign of D(real) that is aimed at: above it the discriminator overfits."""
    kimg: float = Field(default=500.0, gt=0)
    """Thousands of images in which the share may rise from 0 to 1."""
    every: int = Field(default=4, gt=0)
    """Steps between adaptations."""
    start: float = Field(default=0.0, ge=0, le=1)
    """Share at the beginning."""


class Augmentation(nn.Module):
    """The pipeline and its share; both live in checkpoints."""

    share: Tensor
    signs: Tensor

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("share", torch.tensor(config.start))
        self.register_buffer("signs", torch.zeros(2))  # their sum, and how many

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change a share of the images, each kind of change on its own; see `augment`."""
        return augment(images, self.share, generator)

    @torch.no_grad()
    def note(self, sign: Tensor) -> None:
        """Note how sure the discriminator is.

        Args:
            sign: Mean sign of its logits for a batch of real images, a scalar.
        """
        self.signs += torch.stack([sign, torch.ones_like(sign)])

    @torch.no_grad()
    def adapt(self, images: int, step: int) -> None:
        """Move the share when it is time, by what was noted since the last time.

        Args:
            images: Images of a step, of all processes.
            step: Number of the step.
        """
        if (step + 1) % self.config.every:
            return
        above = self.signs[0] / self.signs[1] - self.config.target
        move = images * self.config.every / (self.config.kimg * 1000)
        self.share.add_(above.sign() * move).clamp_(0, 1)
        self.signs.zero_()


def augment(images: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, turn, shift, scale and recolour: each change is made to a share of the images.

    Differentiable once in the images.

    Args:
        images: RGB in about [-1, 1], (N, 3, S, S).
        share: Probability of each change, a scalar in [0, 1].
        generator: On the device of the images.

    Returns:
        (N, 3, S, S); what lies outside of an image is its mirror image.
    """
    draw = _Draw(images, share, generator)
    theta = _placement(draw, images.shape[-1])
    # In half precision a place is known to a pixel or two only, and the generator would be judged
    # on other places than the discriminator learns from.
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        placed = F.grid_sample(
            images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
        return _recolour(placed, draw)


class _Draw:
    """Random numbers, one for each image."""

    def __init__(self, images: Tensor, share: Tensor, generator: torch.Generator) -> None:
        self.count, self.device = images.shape[0], images.device
        self.share, self.generator = share, generator

    def uniform(self) -> Tensor:
        """In [0, 1), (N,)."""
        return torch.rand(self.count, generator=self.generator, device=self.device)

    def normal(self) -> Tensor:
        """Standard normal, (N,)."""
        return torch.randn(self.count, generator=self.generator, device=self.device)

    def some(self, changed: Tensor, unchanged: float) -> Tensor:
        """A share of the values, (N,); the others are what changes nothing."""
        return torch.where(self.uniform() < self.share, changed, unchanged)


def _placement(draw: _Draw, side: int) -> Tensor:
    """Inverse maps from output to input, in units of half a side: (N, 2, 3)."""
    mirror = draw.some(1 - 2 * (draw.uniform() * 2).floor(), 1.0)
    turns = draw.some((draw.uniform() * 4).floor(), 0.0)
    # Whole pixels: nothing is interpolated by a shift.
    reach = 2 * TRANSLATION * side
    right, down = (
        draw.some(((draw.uniform() - 0.5) * reach).round() * (2 / side), 0.0) for _ in range(2)
    )
    scale = draw.some(torch.exp2(draw.normal() * SCALE_STD), 1.0)
    # Cosine and sine of quarter turns, exactly.
    cosine = (1 - turns) * (turns < 2.5)
    sine = (2 - turns) * (turns > 0.5)
    rows = [mirror * cosine * scale, -mirror * sine * scale, right]
    rows += [sine * scale, cosine * scale, down]
    return torch.stack(rows, dim=1).unflatten(1, (2, 3))


def _recolour(images: Tensor, draw: _Draw) -> Tensor:
    """Brightness, contrast and saturation."""

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    images = images + each(draw.some(draw.normal() * BRIGHTNESS_STD, 0.0))
    images = images * each(draw.some(torch.exp2(draw.normal() * CONTRAST_STD), 1.0))
    red, green, blue = images.split(1, dim=1)
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    saturation = draw.some(torch.exp2(draw.normal() * SATURATION_STD), 1.0)
    return grey + each(saturation) * (images - grey)
