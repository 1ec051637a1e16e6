"""An untrained network around a prior: its parts agree, and it can be trained."""

from __future__ import annotations

import pytest
import torch

from panini.checkpoints.assemble import Plan, assemble, cut_prior, plan_config
from panini.errors import CheckpointError, ConfigError
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniNet, named_config, num_ws, prior_channels
from panini.models.prior import GanPrior, Window
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

STYLEGAN2 = StyleGAN2Config(
    size=128, style_dim=16, mapping_layers=2, channel_multiplier=1 / 32, max_channels=8
)
MOBILE = MobileStyleGANConfig(
    size=128, w_dim=16, mapping_layers=2, base_channels=8, channels=(8, 8, 8, 8)
)


def prior_of(config: StyleGAN2Config | MobileStyleGANConfig, seed: int = 0) -> GanPrior:
    torch.manual_seed(seed)
    prior = StyleGAN2(config) if isinstance(config, StyleGAN2Config) else MobileStyleGAN(config)
    prior.requires_grad_(False).estimate_w_avg(500, torch.Generator().manual_seed(seed))
    return prior.eval()


def random_ws(prior: GanPrior, count: int = 2) -> torch.Tensor:
    z = torch.randn(count, prior.z_dim, generator=torch.Generator().manual_seed(1))
    return prior.broadcast(prior.mapping(z))


@pytest.mark.parametrize("config", [STYLEGAN2, MOBILE], ids=["stylegan2", "mobile"])
def test_shapes_told_by_a_config_are_the_networks(config):
    prior = prior_of(config)
    assert num_ws(config) == prior.num_ws
    assert prior_channels(config) == prior.channels


@pytest.mark.parametrize("encoder", ["paper", "mobile"])
@pytest.mark.parametrize("config", [STYLEGAN2, MOBILE], ids=["stylegan2", "mobile"])
def test_an_assembled_network_restores_around_the_mean_face(config, encoder):
    prior = prior_of(config)
    net = assemble(prior, Plan(size=128, encoder=encoder))
    assert (net.config.in_size, net.config.out_size) == (128, 128)
    assert net.fusion.levels == (4, 8, 16, 32, 64)
    with torch.inference_mode():
        output = net(torch.zeros(1, 3, 128, 128))
    assert output.image.shape == (1, 3, 128, 128)
    assert output.image.isfinite().all()
    assert output.ws.shape == (1, prior.num_ws, 16)
    # What the encoder adds to the mean face is less than what faces differ by.
    spread = prior.mapping(torch.randn(500, 16)).std(dim=0).norm()
    assert (output.ws - prior.w_avg).norm(dim=-1).mean() < 3 * spread
    assert all(
        torch.equal(value, net.prior.state_dict()[name])
        for name, value in prior.state_dict().items()
    )


def test_light_branches_start_in_the_units_of_the_prior():
    prior = prior_of(STYLEGAN2)
    net = assemble(prior, Plan(size=128, encoder="mobile"))
    seen = {}
    prior.synthesis(random_ws(prior, 64), fuse=lambda level, x: seen.setdefault(level, x))
    for level in net.fusion.levels:
        branch = net.fusion.convs[str(level)]
        expected = seen[level].std(dim=(0, 2, 3))
        assert branch.std.mean().item() == pytest.approx(expected.mean().item(), rel=0.5), level


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_one_alone():
    prior = prior_of(STYLEGAN2)
    torch.manual_seed(5)
    first = assemble(prior, Plan(size=128, encoder="mobile")).state_dict()
    drawn = torch.rand(1)
    second = assemble(prior, Plan(size=128, encoder="mobile")).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = assemble(prior, Plan(size=128, encoder="mobile", seed=1)).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)


def test_a_mean_that_is_missing_is_estimated():
    prior = prior_of(STYLEGAN2)
    mean = prior.w_avg.clone()
    prior.w_avg.zero_()
    net = assemble(prior, Plan(size=128, encoder="mobile"))
    assert torch.allclose(net.prior.w_avg, mean, atol=0.2)
    assert torch.equal(net.encoder.get_buffer("w_avg"), net.prior.w_avg)


@pytest.mark.parametrize("config", [STYLEGAN2, MOBILE], ids=["stylegan2", "mobile"])
def test_a_larger_prior_is_cut_to_what_it_draws_at_the_size(config):
    prior = prior_of(config)
    assert isinstance(prior, StyleGAN2 | MobileStyleGAN)
    assert cut_prior(prior, 128) is prior
    small = cut_prior(prior, 64)
    assert (small.size, small.num_ws) == (64, num_ws(small.config))
    ws = random_ws(prior)
    expected = prior.synthesis(ws, size=64)
    torch.testing.assert_close(small.synthesis(ws[:, : small.num_ws]), expected)


@pytest.mark.parametrize(
    ("size", "task", "encoder", "in_size", "finest"),
    [
        (1024, "mfr", "paper", 512, 64),
        (512, "mfr", "paper", 512, 64),
        (256, "mfr", "paper", 256, 64),
        (1024, "sr16", "paper", 64, 64),
        (512, "sr16", "paper", 32, 32),
        (256, "sr16", "paper", 16, 16),
        (1024, "mfr", "mobile", 512, 64),
        (256, "mfr", "mobile", 256, 64),
        (1024, "sr16", "mobile", 64, 64),
    ],
)
def test_every_size_has_a_configuration(size, task, encoder, in_size, finest):
    config = plan_config(StyleGAN2Config(size=size), Plan(size=size, task=task, encoder=encoder))
    assert (config.in_size, config.out_size) == (in_size, size)
    assert max(config.fusion.prior_channels) == finest
    assert (config.degradation_encoder is None) == (task == "sr16")


def test_the_papers_plan_is_the_papers_network():
    for name in ("mfr-1024", "sr16-1024"):
        paper = named_config(name)
        config = plan_config(StyleGAN2Config(size=1024), Plan(size=1024, task=paper.task))
        assert (config.encoder, config.prior) == (paper.encoder, paper.prior)


def test_levels_that_the_encoder_has_not_are_left_to_the_prior():
    prior = prior_of(STYLEGAN2)
    net = assemble(prior, Plan(size=128, task="mfr"))
    config = net.config
    fusion = {
        "prior_channels": {4: 8, 8: 8},
        "image_channels": {4: 512, 8: 512},
    }
    fewer = PaniniNet(
        type(config)(
            task="mfr",
            prior=config.prior,
            encoder=config.encoder,
            fusion=type(config.fusion)(**fusion),
            degradation_encoder=config.degradation_encoder,
        )
    )
    output = fewer.eval()(torch.zeros(1, 3, 128, 128))
    assert output.masks.keys() == {4, 8}
    assert output.image.shape == (1, 3, 128, 128)


def test_what_cannot_be_assembled_is_refused():
    prior = prior_of(STYLEGAN2)
    with pytest.raises(CheckpointError, match="draws faces of 128 px, asked for 256; choose"):
        assemble(prior, Plan(size=256))
    with pytest.raises(ConfigError, match="takes faces from 64 px, got 8; use the paper's"):
        assemble(prior, Plan(size=128, task="sr16", encoder="mobile"))
    with pytest.raises(CheckpointError, match="expected a StyleGAN2 or mobile prior, got Other"):
        assemble(Other(), Plan(size=128))


class Other(GanPrior):
    """A generator of another kind."""

    def mapping(self, z, truncation_psi=1.0):
        return z

    def synthesis(self, ws, *, size=None, fuse=None, window=None, anchor=None):
        return ws

    def modules_above(self, level):
        return []


def test_a_step_of_training_changes_encoder_and_fusion():
    net = assemble(prior_of(STYLEGAN2), Plan(size=128, encoder="mobile")).train()
    net.prior.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    lq = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    net(lq, window=Window(top=0, left=0, side=32)).image.abs().mean().backward()
    optimizer.step()
    changed = {
        name.split(".")[0]
        for name, p in net.named_parameters()
        if not torch.equal(p.detach(), before[name])
    }
    assert changed == {"encoder", "fusion", "degradation_encoder"}
