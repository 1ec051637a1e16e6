"""What Panini-Net asks of a face generator: the GAN prior module (GPM) of the paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Fuse = Callable[[int, Tensor], Tensor]
"""Called with (level, feature) at every fusable level; returns the feature to go on with.

`level` is the feature's side in pixels, the feature is (N, channels[level], level, level).
"""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square cut-out of the feature at `level`, in pixels of that level.

    Above `level` only the window is synthesised: training on crops at full resolution costs
    the share of the area that the crop has.
    """

    top: int
    left: int
    side: int
    level: int = 64

    def crop(self, x: Tensor) -> Tensor:
        """The window's part of (N, C, S, S), a map of the whole frame at any size S."""
        scale, rest = divmod(x.shape[-1], self.level)
        if rest or self.top + self.side > self.level or self.left + self.side > self.level:
            raise ValueError(f"{self} does not fit a map of {x.shape[-1]} px")
        top, left, side = self.top * scale, self.left * scale, self.side * scale
        return x[..., top : top + side, left : left + side]


class GanPrior(nn.Module, ABC):
    """A style-based face generator whose features can be replaced on the way.

    Attributes:
        size: Side of the largest image, px.
        z_dim: Length of z.
        w_dim: Length of w.
        num_ws: Number of style vectors of `synthesis`.
        channels: Channels of the feature at each level that can be fused, `{4: 512, …}`.
        w_avg: Mean of w over the prior's distribution, (w_dim,).
    """

    size: int
    z_dim: int
    w_dim: int
    num_ws: int
    channels: dict[int, int]
    w_avg: Tensor

    @abstractmethod
    def mapping(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """Map latents to styles.

        Args:
            z: Standard normal latents, (N, z_dim).
            truncation_psi: 1 leaves w as it is, 0 gives `w_avg`.

        Returns:
            w, (N, w_dim).
        """

    @abstractmethod
    def synthesis(
        self,
        ws: Tensor,
        *,
        size: int | None = None,
        fuse: Fuse | None = None,
        window: Window | None = None,
        anchor: int | None = None,
    ) -> Tensor:
        """Draw faces.

        Args:
            ws: One style vector a layer (W+), (N, num_ws, w_dim).
            size: Side of the output, a power of two up to `self.size`; None is `self.size`.
            fuse: Replaces features at the levels of `channels`, coarse to fine.
            window: Synthesises only this part above its level.
            anchor: Side of a smaller image of the same pass which the result agrees with once it
                is reduced, px, where a prior draws one by a head of its own; None is none.

        Returns:
            RGB in about [-1, 1], (N, 3, size, size), or the window's share of it.
        """

    @abstractmethod
    def modules_above(self, level: int) -> list[nn.Module]:
        """What computes at larger sides than `level`, px, which is 4 or more."""

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeat (N, w_dim) for every layer: (N, num_ws, w_dim)."""
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    def forward(self, z: Tensor, truncation_psi: float = 1.0, size: int | None = None) -> Tensor:
        """Random faces from latents (N, z_dim): RGB in about [-1, 1], (N, 3, size, size)."""
        return self.synthesis(self.broadcast(self.mapping(z, truncation_psi)), size=size)

    @torch.no_grad()
    def estimate_w_avg(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Mean of w over `num_samples` random z, (w_dim,); also stored in `self.w_avg`."""
        z = torch.randn(num_samples, self.z_dim, generator=generator)
        mean = self.mapping(z.to(self.w_avg.device)).mean(dim=0)
        self.w_avg.copy_(mean)
        return mean
