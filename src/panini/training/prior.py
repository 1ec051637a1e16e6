"""The prior stage: a StyleGAN2 face generator from scratch or from a checkpoint, or a light one
that learns to draw like it.

StyleGAN2's recipe (Karras et al. 2020): non-saturating loss, lazy R1 and path length
regularisation, style mixing, a moving average, and adaptive augmentation of what the
discriminator sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from panini.checkpoints import load_discriminator, load_prior
from panini.config import Config
from panini.data import GroupBatch, to_float
from panini.errors import ConfigError
from panini.losses import discriminator_adversarial, generator_adversarial, r1_penalty
from panini.models.stylegan2 import Discriminator, DiscriminatorConfig, StyleGAN2, StyleGAN2Config
from panini.training.augmentation import Augmentation, AugmentConfig
from panini.training.config import Share
from panini.training.distillation import PRIOR, DistilConfig, DistilStage, write_prior
from panini.training.engine import Engine
from panini.training.inputs import check_inputs
from panini.training.network import check_validation_size, update_ema
from panini.training.run import RunConfig, Stage, fit

CLIP_NORM = 1e3
"""Of both gradients: StyleGAN2 clips nothing, this only tames accidents."""
W_AVG_DECAY = 0.995
"""Of the mean of w, a step."""
THUMBNAIL = 16
"""Side at which validation compares, px."""
SHEET_TRUNCATION = 0.7


class NetworkConfig(Config):
    """Shape of a generator that starts from scratch; its discriminator has the same widths."""

    size: int = 64
    """Side of the faces, px."""
    style_dim: int = 512
    mapping_layers: int = 8
    channel_multiplier: float = 2.0
    """Channels at side r are 16384 · channel_multiplier / r, at most `max_channels`."""
    max_channels: int = 512

    def build(self) -> StyleGAN2Config:
        """The network's own configuration."""
        return StyleGAN2Config(**self.model_dump())


class PathLengthConfig(Config):
    """Path length regularisation: equal steps in w should change the image equally."""

    weight: float = Field(default=2.0, ge=0)
    every: int = Field(default=4, gt=0)
    """Steps between penalties."""
    decay: float = Field(default=0.01, gt=0, le=1)
    """Share of a new batch in the mean length."""
    batch_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the batch that it is measured on."""


class GanConfig(Config):
    """Adversarial training of a StyleGAN2."""

    network: NetworkConfig | None = None
    """From scratch. None: `init` says the shape."""
    init: Path | None = None
    """A StyleGAN2 prior to go on from, of any format that loads."""
    discriminator_init: Path | None = None
    """A file with the discriminator that was trained beside it; None = a new one."""
    r1_gamma: float = Field(default=1.0, ge=0)
    """Of the gradient penalty (γ / 2 is its weight)."""
    r1_every: int = Field(default=16, gt=0)
    """Steps between penalties."""
    path_length: PathLengthConfig | None = PathLengthConfig()
    """None: not regularised."""
    style_mixing: float = Field(default=0.9, ge=0, le=1)
    """Share of faces whose coarse and fine layers have different w."""
    augment: AugmentConfig | None = AugmentConfig()
    """None: the discriminator sees faces as they are."""
    discriminator_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the discriminator, as a factor."""

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        if (self.network is None) == (self.init is None):
            raise ValueError("expected either network (from scratch) or init (a prior's file)")
        return self


class PriorRunConfig(RunConfig):
    """Recipe of the prior stage: exactly one of `gan` and `distil`."""

    betas: tuple[Share, Share] = (0.0, 0.99)
    clip_norm: float = Field(default=CLIP_NORM, gt=0)
    gan: GanConfig | None = None
    """Train a StyleGAN2 on faces."""
    distil: DistilConfig | None = None
    """Train a light prior on the faces of a heavy one."""

    @model_validator(mode="after")
    def _has_one_task(self) -> Self:
        if (self.gan is None) == (self.distil is None):
            raise ValueError("expected exactly one of gan and distil")
        return self

    @property
    def beginning(self) -> dict[str, object]:
        """The weights that it begins with."""
        return {
            "gan.init": self.gan and self.gan.init,
            "gan.discriminator_init": self.gan and self.gan.discriminator_init,
            "distil.teacher": self.distil and self.distil.teacher,
        }


class PathLength(nn.Module):
    """The running mean of how far the image moves with w."""

    mean: Tensor

    def __init__(self, config: PathLengthConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, prior: StyleGAN2, ws: Tensor, random: torch.Generator) -> Tensor:
        """Lengths of the Jacobian along random image directions, (N,).

        Args:
            prior: The generator.
            ws: (N, num_ws, w_dim).
            random: Draws the noise and the directions.
        """
        images = prior.synthesis(ws, random=random)
        direction = torch.randn(images.shape, generator=random, device=images.device)
        along = (images * direction).sum() / images.shape[-1]
        (gradient,) = torch.autograd.grad(along, ws, create_graph=True)
        return gradient.square().sum(dim=2).mean(dim=1).sqrt()


class GanStage(Stage):
    """Generator, its average, and the discriminator."""

    def __init__(self, config: PriorRunConfig) -> None:
        assert config.gan is not None
        self.config, self.gan = config, config.gan
        self.engine = Engine(config)
        self.net, self.ema = _build(self.gan, config.seed), _build(self.gan, config.seed)
        self.ema.requires_grad_(False).eval()
        self._check_data()
        torch.manual_seed(config.seed + 1)
        self.discriminator = Discriminator(discriminator_config(self.net.config))
        if self.gan.discriminator_init is not None:
            load_discriminator(self.discriminator, self.gan.discriminator_init)
        self.modules = {"net": self.net, "ema": self.ema, "discriminator": self.discriminator}
        if self.gan.augment is not None:
            self.modules["augmentation"] = Augmentation(self.gan.augment)
        if self.gan.path_length is not None:
            self.modules["path_length"] = PathLength(self.gan.path_length)
        # Differentiated twice, where they are penalised.
        twice = {"path_length"} | ({"discriminator"} if self.gan.r1_gamma else set())
        for name, module in self.modules.items():
            self.engine.place(module, compiled=name not in twice)
        self.engine.add_optimizer("net", (list(self.net.parameters()), 1.0))
        parameters = list(self.discriminator.parameters())
        self.engine.add_optimizer("discriminator", (parameters, self.gan.discriminator_rate))

    def _check_data(self) -> None:
        for group in self.config.data.groups:
            if group.gt_size != self.net.size:
                raise ConfigError(
                    f"data.groups.gt_size: the prior draws {self.net.size} px, got {group.gt_size}"
                )
        check_validation_size(self.config, self.net.size)

    def step(self, batch: list[GroupBatch], step: int, nimg: int) -> dict[str, Tensor]:
        """One update of the generator, then one of the discriminator."""
        engine = self.engine
        seed = np.random.SeedSequence([self.config.seed, step, engine.micro, engine.rank, 1])
        random = torch.Generator(engine.device).manual_seed(int(seed.generate_state(1)[0]))
        real = to_float(torch.cat([group.gt for group in batch]))
        figures: dict[str, Tensor] = {}
        with engine.section("forward"):
            fake, loss = self._listen(len(real), random, figures)
            loss = loss + self._regularise(len(real), step, random, figures)
        figures["norm"] = engine.update("net", loss)
        if engine.stepping:
            update_ema(
                self.ema, self.net, self.engine.images_a_step, self.config.ema_half_life, nimg
            )
        with engine.section("discriminator"):
            figures |= self._learn(real, fake, step, random)
        return figures

    def draw_ws(self, count: int, random: torch.Generator) -> Tensor:
        """Styles of new faces, some mixed of two: (count, num_ws, w_dim)."""
        net, device = self.net, self.engine.device
        z = torch.randn(2 * count, net.z_dim, generator=random, device=device)
        first, second = net.mapping(z).chunk(2)
        with torch.no_grad():
            mean = self.engine.gather(first.mean(dim=0, keepdim=True)).mean(dim=0)
            net.w_avg.lerp_(mean.float(), 1 - W_AVG_DECAY)
        mixed = torch.rand(count, generator=random, device=device) < self.gan.style_mixing
        cut = torch.randint(1, net.num_ws, (count,), generator=random, device=device)
        layer = torch.arange(net.num_ws, device=device)
        other = mixed[:, None] & (layer >= cut[:, None])  # (count, num_ws)
        return torch.where(other[..., None], second[:, None], first[:, None])

    def _see(self, images: Tensor, random: torch.Generator) -> Tensor:
        """What the discriminator is shown of images."""
        augmentation = self.modules.get("augmentation")
        return images if augmentation is None else augmentation(images, random)

    def _listen(
        self, count: int, random: torch.Generator, figures: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """New faces, detached, and the generator's loss on them."""
        self.discriminator.requires_grad_(False)
        with self.engine.autocast():
            fake = self.net.synthesis(self.draw_ws(count, random), random=random)
            logits = self.discriminator(self._see(fake.float(), random))
        self.discriminator.requires_grad_(True)
        loss = generator_adversarial(logits.float())
        figures["generator"] = loss.detach()
        return fake.detach().float(), loss

    def _regularise(
        self, count: int, step: int, random: torch.Generator, figures: dict[str, Tensor]
    ) -> Tensor:
        """The path length's penalty on the steps that have one, else 0."""
        lengths = self.modules.get("path_length")
        if not isinstance(lengths, PathLength) or step % lengths.config.every:
            return torch.zeros((), device=self.engine.device)
        config = lengths.config
        measured = max(1, round(count * config.batch_share))
        found = lengths(self.net, self.draw_ws(measured, random), random)
        with torch.no_grad():
            new = self.engine.gather(found.detach().mean().view(1)).mean()
            # The first batch is the mean: it need not be climbed to from 0.
            lengths.mean.copy_(torch.where(lengths.mean == 0, new, lengths.mean))
            lengths.mean.lerp_(new, config.decay)
        figures["path_length"] = found.detach().mean()
        return config.weight * config.every * (found - lengths.mean).square().mean()

    def _learn(
        self, real: Tensor, fake: Tensor, step: int, random: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the discriminator, and the share of faces that are augmented."""
        config = self.gan
        penalise = config.r1_gamma > 0 and step % config.r1_every == 0
        with torch.no_grad():
            real, fake = self._see(real, random), self._see(fake, random)
        # The penalty is on the gradient at what the discriminator sees.
        real.requires_grad_(penalise)
        with self.engine.autocast():
            fake_logits = self.discriminator(fake).float()
            real_logits = None if penalise else self.discriminator(real).float()
        if real_logits is None:
            real_logits = self.discriminator(real)
        loss = discriminator_adversarial(real_logits, fake_logits)
        if penalise:
            loss = loss + config.r1_gamma / 2 * config.r1_every * r1_penalty(real, real_logits)
        self.engine.update("discriminator", loss)
        sign = self.engine.gather(real_logits.detach().sign().mean().view(1)).mean()
        figures = {"d_real": real_logits.detach().mean(), "d_fake": fake_logits.detach().mean()}
        augmentation = self.modules.get("augmentation")
        if isinstance(augmentation, Augmentation):
            augmentation.note(sign)
            if self.engine.stepping:
                augmentation.adapt(self.engine.images_a_step, step)
            figures["augmented"] = augmentation.share.clone()
        return figures | {"sign_real": sign}

    @torch.no_grad()
    def validate(self, batch: list[GroupBatch]) -> dict[str, Tensor]:
        """How far mean and deviation of the average's thumbnails are from the faces'.

        It sees colours, layout and a collapse of variety, but no detail: look at the sheets.
        """
        real = to_float(torch.cat([group.gt for group in batch]))
        fake = self._samples(len(real), 1.0)
        return {"thumbnails": _thumbnail_distance(fake, real)}

    @torch.no_grad()
    def pictures(self, batch: list[GroupBatch]) -> list[Tensor]:
        """Real faces, samples, and samples near the mean."""
        real = to_float(torch.cat([group.gt for group in batch]))
        return [real, *(self._samples(len(real), psi) for psi in (1.0, SHEET_TRUNCATION))]

    def _samples(self, count: int, truncation: float) -> Tensor:
        """Faces of the average, always of the same latents."""
        random = torch.Generator().manual_seed(self.config.seed)
        z = torch.randn(count, self.ema.z_dim, generator=random).to(self.engine.device)
        return self.ema(z, truncation)

    def save(self, folder: Path, nimg: int) -> None:
        """Write the average."""
        start = "scratch" if self.gan.init is None else self.gan.init.name
        write_prior(self.ema, folder / PRIOR, {"init": start, "prior_images": nimg})


def prior_config(config: GanConfig) -> StyleGAN2Config:
    """Shape of the generator.

    Raises:
        CheckpointError: `init` cannot be read.
        ConfigError: `init` is no StyleGAN2, or there is no network of such a shape.
    """
    return _start(config).config if config.network is None else _shape(config.network)


def discriminator_config(prior: StyleGAN2Config) -> DiscriminatorConfig:
    """Shape of the discriminator beside a generator: as wide."""
    return DiscriminatorConfig(
        size=prior.size,
        channel_multiplier=prior.channel_multiplier,
        max_channels=prior.max_channels,
    )


def _shape(config: NetworkConfig) -> StyleGAN2Config:
    try:
        return config.build()
    except ValueError as error:
        raise ConfigError(f"gan.network: {error}") from error


def _start(config: GanConfig) -> StyleGAN2:
    """The prior that `init` names."""
    assert config.init is not None  # the recipe saw to it
    prior = load_prior(config.init)
    if not isinstance(prior, StyleGAN2):
        raise ConfigError(f"gan.init: {config.init} is no StyleGAN2; a light prior is distilled")
    return prior


def _build(config: GanConfig, seed: int) -> StyleGAN2:
    torch.manual_seed(seed)
    if config.network is not None:
        return StyleGAN2(_shape(config.network))
    return _start(config).train().requires_grad_(True)


def _thumbnail_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Root mean square difference of the pixels' means and deviations over the batch."""
    statistics = []
    for images in (fake, real):
        small = F.interpolate(images.float(), (THUMBNAIL, THUMBNAIL), mode="area")
        # Of one face the deviation is 0, not NaN.
        deviation = small.std(dim=0, correction=min(1, len(small) - 1))
        statistics.append(torch.stack([small.mean(dim=0), deviation]))
    return (statistics[0] - statistics[1]).square().mean().sqrt()


def train(config: PriorRunConfig) -> bool:
    """Run the prior stage; whether it is at its end."""
    check_inputs(config)
    if config.distil is None:
        return fit(GanStage(config), config)
    return fit(DistilStage(config, config.distil), config)
