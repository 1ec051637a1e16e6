"""PULSE: latent optimisation through a prior, the row of the tables that needs no training.

Menon, Damian, Hu, Ravi and Rudin, "PULSE: Self-Supervised Photo Upsampling via Latent Space
Exploration of Generative Models", CVPR 2020, arXiv 2003.03808. Of all the faces that a prior can
draw, look for one that, once it is reduced as the input was, is the input:

    min over u on the sphere of  ‖ DS(G(w(u))) - DS(lq) ‖² + λ · GEOCROSS(u)

G draws, DS reduces to the side that the input still has. w(u) makes a style of u such that typical
u have a length of √D (`latents.Styles`): a search that stays on that sphere stays among faces that
the prior is likely to draw. GEOCROSS keeps the vectors of W+, one a layer, together.

Departures, for two CPU cores: G draws at a small size, and later on, every few steps, a face of
full size tells by how much that errs (c, held in between): DS(G_small(u)) + c is what is compared.
Without c the faces come out in other colours than were searched for. The first u is the best of
some random ones. Layers that the small size does not show take the direction of the mean of the
others. The noise maps of the prior stay as they are.

With the mobile prior, on three faces of CelebA-HQ at 64 px: 20.9 dB against the truth at 256 px and
22.5 dB against the input itself, where bicubic interpolation has 29.5 and 39.9; 21 s a face on one
CPU core. The faces are sharp and likely, and of somebody else: identity distance 0.70 (0.25).
On four, in 60 steps without c, W+ came nearer than W, and W than Z: 19.7, 18.8 and 17.9 dB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from panini.consistency import reduce
from panini.errors import ConfigError
from panini.evaluation.sizes import DEGRADED_SIZE
from panini.evaluation.systems import Drawn
from panini.models.panini_net import PaniniNet, Task
from panini.models.prior import GanPrior
from panini.peers.latents import Styles, geocross, layers_seen, on_sphere
from panini.peers.low_side import SMALLEST, estimate_side, known_side

Space = Literal["z", "w", "w+"]

_AT_A_TIME = 8  # Random faces drawn together.
_RISE, _FALL = 0.05, 0.75  # Shares of the steps over which the learning rate rises and falls.


@dataclass(frozen=True, kw_only=True)
class PulseConfig:
    """Where a face is looked for, and for how long."""

    space: Space = "w+"
    """"z": what the mapping makes of a z on the sphere. "w": one style for all layers. "w+": one
    for each."""
    steps: int = 100
    """Of Adam."""
    learning_rate: float = 0.4
    """Highest, in units of u, whose coordinates are about 1; it ends at 0."""
    geocross: float = 0.128
    """λ: weight of the squared angles, in radians, against the mean squared difference of images
    in [-1, 1]. The authors' 0.05 against 100, in these units."""
    drawn_size: int = 128
    """Side of the faces that are drawn on the way, px, a power of two; faces are compared at half
    of it at most. The prior's own size needs no correction."""
    correct_every: int = 10
    """Steps between faces of full size."""
    candidates: int = 32
    """Random faces of which the search starts at the nearest."""
    seed: int = 0
    """Of the random faces and of the styles that are measured."""

    def __post_init__(self) -> None:
        if self.space not in get_args(Space):
            known = ", ".join(get_args(Space))
            raise ConfigError(f"pulse: expected a space among {known}, got {self.space!r}")
        for name in ("steps", "correct_every", "candidates", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"pulse: expected {name} above 0, got {getattr(self, name)}")
        if self.geocross < 0:
            raise ConfigError(f"pulse: expected geocross of at least 0, got {self.geocross}")
        size = self.drawn_size
        if size < 2 * SMALLEST or size & (size - 1):
            raise ConfigError(
                f"pulse: expected drawn_size to be a power of two from {2 * SMALLEST}, got {size}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = (step + 1) / (_RISE * self.steps + 1)
        falling = (1 - step / self.steps) / _FALL
        return self.learning_rate * min(1.0, rising, falling)

    def corrects(self, step: int) -> bool:
        """Whether a face of full size is drawn at a step.

        Not while the search still runs from face to face: what the small size lacks of one face
        misleads about another.
        """
        return step >= (1 - _FALL) * self.steps and step % self.correct_every == 0


class Pulse:
    """Latent optimisation as a system of an evaluation; see `pulse_system`."""

    task: Task | None = None
    in_size = DEGRADED_SIZE

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, prior: GanPrior, config: PulseConfig, name: str) -> None:
        self.prior = prior
        self.config = config
        self.name = name
        self.drawn = min(config.drawn_size, prior.size)
        generator = torch.Generator().manual_seed(config.seed)
        self.styles = Styles.of(prior, generator)
        self.layers = layers_seen(prior, self.drawn) if config.space == "w+" else 1
        starts = torch.randn(config.candidates, 1, prior.z_dim, generator=generator)
        self._starts = on_sphere(starts).to(prior.w_avg.device)
        faces = [self._draw(self.ws(part)) for part in self._starts.split(_AT_A_TIME)]
        self._faces = torch.cat(faces)

    @property
    def identity(self) -> str:
        """Of the prior's weights, and how they are searched."""
        digest = hashlib.sha256(repr(self.config).encode())
        for name, tensor in sorted(self.prior.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @torch.inference_mode(False)
    def __call__(self, lq: Tensor, low_sides: Sequence[int] | None = None) -> Drawn:
        """Look for faces that the inputs may be of.

        Args:
            lq: RGB in [-1, 1], (N, 3, S, S). Up to half of `drawn_size` (64 px) it is compared as
                it is, which is 16× super-resolution; else it is a face that was degraded.
            low_sides: Side that each degraded face was reduced to, px; None estimates it.

        Returns:
            Faces of the prior's size, without θ.
        """
        lq = lq.float().clone()  # Tensors of inference mode know no gradient.
        sides = self._sides(lq, low_sides)
        image = lq.new_empty(len(lq), 3, self.prior.size, self.prior.size)
        for side in sorted(set(sides)):
            chosen = [index for index, found in enumerate(sides) if found == side]
            ws = self.search(reduce(lq[chosen], side))
            with torch.no_grad():
                image[chosen] = self.prior.synthesis(ws)
        return Drawn(image)

    def search(self, target: Tensor) -> Tensor:
        """Styles of faces that, reduced, come near to the targets.

        Faces do not meet: the result of one does not hang on those beside it.

        Args:
            target: RGB in [-1, 1], (N, 3, s, s), s at most half of `drawn_size`.

        Returns:
            ws, (N, num_ws, w_dim): of what was seen at full size, the nearest.
        """
        side = target.shape[-1]
        best = _Best(target)
        offset = torch.zeros_like(target)
        u = self._start(target).requires_grad_()
        adam = torch.optim.Adam([u])
        for step in range(self.config.steps):
            for group in adam.param_groups:
                group["lr"] = self.config.rate(step)
            with torch.enable_grad():
                ws = self.ws(u)
                small = reduce(self._draw(ws), side)
                if self.config.corrects(step):
                    offset = best.look(ws.detach(), self._full(ws, side)) - small.detach()
                loss = _distance(small + offset, target).sum()
                if self.layers > 1:
                    loss = loss + self.config.geocross * geocross(u).sum()
                # Not `backward`: the prior's weights shall keep no gradient.
                (u.grad,) = torch.autograd.grad(loss, u)
            adam.step()
            with torch.no_grad():
                u.copy_(on_sphere(u))
        with torch.no_grad():
            ws = self.ws(u)
            best.look(ws, self._full(ws, side))
        return best.ws

    def ws(self, u: Tensor) -> Tensor:
        """Styles of all layers, (N, num_ws, w_dim), of vectors on the sphere, (N, L, D)."""
        if self.config.space == "z":
            return self.prior.broadcast(self.prior.mapping(u[:, 0]))
        if u.shape[1] == 1:
            return self.prior.broadcast(self.styles(u[:, 0]))
        others = on_sphere(u.mean(dim=1, keepdim=True))
        others = others.expand(-1, self.prior.num_ws - u.shape[1], -1)
        return self.styles(torch.cat([u, others], dim=1))

    def _draw(self, ws: Tensor) -> Tensor:
        return self.prior.synthesis(ws, size=self.drawn)

    @torch.no_grad()
    def _full(self, ws: Tensor, side: int) -> Tensor:
        """Faces of the prior's own size, reduced to `side` px."""
        return reduce(self.prior.synthesis(ws), side)

    @torch.no_grad()
    def _start(self, target: Tensor) -> Tensor:
        """Of the random vectors, the nearest to each target, one a layer: (N, layers, D)."""
        faces = reduce(self._faces, target.shape[-1])
        nearest = [int(_distance(faces, one).argmin()) for one in target]
        return self._starts[nearest].expand(-1, self.layers, -1).clone()

    def _sides(self, lq: Tensor, low_sides: Sequence[int] | None) -> list[int]:
        largest = self.drawn // 2
        if lq.shape[-1] <= largest:
            return [lq.shape[-1]] * len(lq)
        if low_sides is None:
            return estimate_side(lq, largest)
        return [known_side(side, largest) for side in low_sides]


class _Best:
    """The nearest styles so far, a face each."""

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.distance = target.new_full((len(target),), torch.inf)
        self.ws = target.new_empty(0)

    @torch.no_grad()
    def look(self, ws: Tensor, reduced: Tensor) -> Tensor:
        """Keep what is nearer; hands `reduced`, the full face at the target's side, back."""
        distance = _distance(reduced, self.target)
        nearer = distance < self.distance
        self.ws = torch.where(nearer[:, None, None], ws, self.ws) if len(self.ws) else ws
        self.distance = distance.minimum(self.distance)
        return reduced


def _distance(images: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference a face, (N,)."""
    return (images - target).square().mean(dim=(1, 2, 3))


def pulse_system(
    prior_or_net: GanPrior | PaniniNet, config: PulseConfig | None = None, name: str = "pulse"
) -> Pulse:
    """Latent optimisation as `evaluation.run` takes it; for either task.

    Args:
        prior_or_net: A face generator, or a network that has one; on the device of the evaluation.
        config: Where to look and for how long; None takes the defaults.
        name: What tables and folders call it.
    """
    prior = prior_or_net.prior if isinstance(prior_or_net, PaniniNet) else prior_or_net
    return Pulse(prior, config or PulseConfig(), name)
