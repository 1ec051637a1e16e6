"""Where a search through a prior may go: the sphere of typical latents, and what keeps W+ together.

The notions are PULSE's, see `panini.peers.pulse`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from panini.models.prior import GanPrior

LEAKY_SLOPE = 0.2
"""Of the activation that ends the mapping of every StyleGAN."""
STYLE_SAMPLES = 8192
"""Random styles whose mean and axes are taken: sixteen for each of 512 coordinates."""


@dataclass(frozen=True)
class Styles:
    """A prior's styles as what a standard normal u becomes: w = LReLU(mean + u · axes).

    Before the last activation of the mapping, styles are nearly Gaussian.
    """

    mean: Tensor
    """(w_dim,)."""
    axes: Tensor
    """Principal axes in rows, as long as the deviation along them, (w_dim, w_dim)."""

    @classmethod
    @torch.inference_mode(False)
    @torch.no_grad()
    def of(cls, prior: GanPrior, generator: torch.Generator) -> Styles:
        """Measure a prior's; `generator` draws `STYLE_SAMPLES` latents on the CPU."""
        z = torch.randn(STYLE_SAMPLES, prior.z_dim, generator=generator)
        w = prior.mapping(z.to(prior.w_avg.device)).cpu().double()
        before = torch.where(w < 0, w / LEAKY_SLOPE, w)
        variances, directions = torch.linalg.eigh(torch.cov(before.T))
        axes = (directions * variances.clamp(min=0).sqrt()).T
        mean = before.mean(dim=0)
        return cls(*(x.float().contiguous().to(prior.w_avg.device) for x in (mean, axes)))

    def __call__(self, u: Tensor) -> Tensor:
        """Styles of u, (…, w_dim) both."""
        return F.leaky_relu(self.mean + u @ self.axes, LEAKY_SLOPE)


def on_sphere(u: Tensor) -> Tensor:
    """Bring u (…, D) to a length of √D, near which all of a standard normal's vectors are."""
    return u * (u.shape[-1] ** 0.5 / u.norm(dim=-1, keepdim=True))


def geocross(u: Tensor) -> Tensor:
    """How far the vectors of each face are apart: the mean of their squared angles.

    The angle between x and y of one length is 2 atan2(‖x - y‖, ‖x + y‖), whose slope is finite
    where an arc cosine's is not.

    Args:
        u: On a sphere, (N, L, D).

    Returns:
        Radians squared, (N,): 0 where all are equal, π² / 8 for two at right angles.
    """
    one, other = u[:, :, None], u[:, None]
    tiny = 1e-9  # The root of 0 has no slope.
    near = ((one - other).square().sum(dim=-1) + tiny).sqrt()
    far = ((one + other).square().sum(dim=-1) + tiny).sqrt()
    return (2 * torch.atan2(near, far)).square().mean(dim=(1, 2))


@torch.inference_mode(False)
@torch.enable_grad()
def layers_seen(prior: GanPrior, size: int) -> int:
    """How many of the first style vectors a face drawn at `size` px depends on."""
    ws = prior.w_avg.expand(1, prior.num_ws, -1).clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior.synthesis(ws, size=size).square().sum(), ws)
    return int(slope.abs().amax(dim=(0, 2)).nonzero().max()) + 1
