"""The assembled network: configurations, forward pass, control."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from panini.consistency import back_project
from panini.models.fusion import FusionControl
from panini.models.mobile_stylegan import ANCHOR_STEPS
from panini.models.panini_net import PaniniConfig, PaniniNet, named_config, named_sizes
from panini.models.prior import Window

LEVELS = [4, 8, 16, 32, 64]


def faces(count: int = 2, side: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, side, side, generator=generator) * 2 - 1


@pytest.fixture(scope="module")
def tiny() -> PaniniNet:
    torch.manual_seed(0)
    return PaniniNet.named("tiny").eval().requires_grad_(False)


@pytest.mark.parametrize("name", named_sizes())
def test_configuration_survives_json(name):
    config = named_config(name)
    again = PaniniConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


def test_named_sizes_are_those_that_the_pages_tell_of():
    assert named_sizes() == ("mfr-1024", "sr16-1024", "mobile-mfr", "mobile-sr16", "tiny")
    sides = {
        name: (named_config(name).in_size, named_config(name).out_size) for name in named_sizes()
    }
    assert sides == {
        "mfr-1024": (512, 1024),
        "sr16-1024": (64, 1024),
        "mobile-mfr": (512, 1024),
        "mobile-sr16": (64, 1024),
        "tiny": (128, 128),
    }


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="unknown size 'huge'; known: mfr-1024, sr16-1024"):
        PaniniNet.named("huge")


def malformed(**changes) -> dict:
    return named_config("tiny").to_dict() | changes


@pytest.mark.parametrize(
    "data",
    [
        {},
        malformed(task="colour"),
        malformed(extra=1),
        malformed(prior={"kind": "diffusion"}),
        malformed(prior={"size": 128}),
        malformed(encoder={"kind": "mobile", "depth": 3}),
        malformed(encoder=7),
        malformed(fusion=[1, 2]),
        malformed(degradation_encoder={"kind": "x"}),
    ],
    ids=range(9),
)
def test_malformed_configurations_are_refused(data):
    with pytest.raises(ValueError, match=r".+"):
        PaniniConfig.from_dict(data)


def test_super_resolution_has_no_degradation_encoder():
    with pytest.raises(ValueError, match="task sr16 has one degradation"):
        replace(named_config("tiny"), task="sr16")


def test_theta_is_not_a_number_where_nothing_is_weighed(tiny):
    config = tiny.config
    net = PaniniNet(replace(config, fusion=replace(config.fusion, method="concat")))
    output = net(faces())
    assert output.masks == {}
    assert output.theta.isnan().all()


def test_without_a_degradation_encoder_masks_are_constant(tiny):
    net = PaniniNet(replace(tiny.config, degradation_encoder=None))
    output = net(faces())
    assert torch.equal(output.theta[0], output.theta[1])


@pytest.mark.parametrize("name", ["mobile-mfr", "mobile-sr16"])
def test_shipped_sizes_have_at_most_30_million_parameters(name):
    with torch.device("meta"):
        config = named_config(name)
        # The start of the masks reads values, which the meta device has not.
        net = PaniniNet(replace(config, fusion=replace(config.fusion, initial_prior={})))
    count = sum(p.numel() for p in net.parameters())
    print(f"\n{name}: {count / 1e6:.2f} M parameters")
    assert count <= 30_000_000


def test_forward_gives_images_and_how_they_were_made(tiny):
    output = tiny(faces())
    assert output.image.shape == (2, 3, 128, 128)
    assert output.ws.shape == (2, tiny.prior.num_ws, 32)
    assert output.degradation.shape == (2, 256)
    assert {level: tuple(mask.shape) for level, mask in output.masks.items()} == dict.fromkeys(
        LEVELS, (2, 32, 1, 1)
    )
    assert all(mask.min() > 0 and mask.max() < 1 for mask in output.masks.values())


def test_theta_is_the_priors_mean_share_at_the_finest_level(tiny):
    output = tiny(faces(3))
    assert output.theta.shape == (3,)
    torch.testing.assert_close(output.theta, output.masks[64][..., 0, 0].mean(dim=1))


def test_every_part_is_heard(tiny):
    """The image depends on features, latents and degradation, each by its own way."""
    lq = faces(1)
    image = tiny(lq).image
    for part in ("encoder.stem", "encoder.latent_common", "degradation_encoder.pointwise"):
        module = tiny.get_submodule(part)
        before = module.weight.clone()
        module.weight.mul_(-1)
        changed = tiny(lq).image
        module.weight.copy_(before)
        assert not torch.allclose(changed, image, atol=1e-6), part


def test_a_large_bias_leaves_the_prior_alone(tiny):
    output = tiny(faces(), FusionControl(bias=100.0))
    torch.testing.assert_close(output.image, tiny.prior.synthesis(output.ws))
    assert output.theta.tolist() == [1.0, 1.0]


def test_a_large_negative_bias_leaves_the_image_alone(tiny):
    output = tiny(faces(), FusionControl(bias=-200.0))
    assert output.theta.max() < 1e-6
    torch.testing.assert_close(
        tiny(faces(), FusionControl(prior_gain=0.0, bias=-200.0)).image, output.image
    )


def test_control_leaves_ws_and_degradation_as_they_are(tiny):
    plain, biased = tiny(faces()), tiny(faces(), FusionControl(bias=1.0))
    assert torch.equal(plain.ws, biased.ws)
    assert torch.equal(plain.degradation, biased.degradation)
    assert (biased.theta > plain.theta).all()


def test_size_and_window_reach_the_prior(tiny):
    assert tiny(faces(1), size=32).image.shape == (1, 3, 32, 32)
    window = Window(top=16, left=0, side=32)
    part, whole = tiny(faces(1), window=window).image, tiny(faces(1)).image
    torch.testing.assert_close(part, window.crop(whole))


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 64), (1, 3, 128, 96), (1, 1, 128, 128), (3, 128, 128)]
)
def test_faces_of_another_size_are_refused(tiny, shape):
    with pytest.raises(ValueError, match=r"expected faces of shape \(N, 3, 128, 128\), got"):
        tiny(torch.zeros(shape))


def test_sr_has_a_constant_in_place_of_the_degradation_encoder():
    config = replace(named_config("tiny"), task="sr16", degradation_encoder=None)
    net = PaniniNet(config).requires_grad_(False)
    assert not hasattr(net, "degradation_encoder")
    output = net(faces(2))
    assert torch.equal(output.degradation, net.degradation_constant.expand(2, -1))
    assert torch.equal(output.masks[64][0], output.masks[64][1])
    assert "degradation_constant" in dict(net.named_parameters())


def test_back_projection_ends_the_pass_of_super_resolution():
    small = replace(named_config("tiny").encoder, in_size=64, unshuffle=1)
    config = replace(named_config("tiny"), task="sr16", degradation_encoder=None, encoder=small)
    plain = PaniniNet(config).requires_grad_(False).eval()
    net = PaniniNet(replace(config, consistency_steps=2)).requires_grad_(False).eval()
    net.load_state_dict(plain.state_dict())
    lq = torch.nn.functional.interpolate(faces(2), (64, 64), mode="bilinear", antialias=True)
    drawn = net(lq).image
    torch.testing.assert_close(drawn, back_project(plain(lq).image, lq, 2))
    window = Window(top=8, left=16, side=32)
    part = net(lq, window=window).image
    torch.testing.assert_close(
        part, back_project(plain(lq, window=window).image, window.crop(lq), 2)
    )


def test_back_projection_is_for_super_resolution():
    with pytest.raises(ValueError, match="only the reduction of task sr16 is known"):
        replace(named_config("tiny"), consistency_steps=1)


def test_the_anchor_is_the_priors():
    plain = PaniniNet(named_config("tiny")).requires_grad_(False).eval()
    net = PaniniNet(replace(named_config("tiny"), anchor_size=64)).requires_grad_(False).eval()
    net.load_state_dict(plain.state_dict())
    found, without = net(faces(1)).image, plain(faces(1)).image
    assert not torch.allclose(found, without)
    torch.testing.assert_close(
        found, back_project(without, plain(faces(1), size=64).image, ANCHOR_STEPS)
    )
    assert PaniniConfig.from_dict(net.config.to_dict()).anchor_size == 64
    with pytest.raises(ValueError, match="anchor_size: StyleGAN2 adds up the images of all sizes"):
        replace(named_config("mfr-1024"), anchor_size=256)
    for size in (48, 128):  # the network draws 128 px
        with pytest.raises(ValueError, match=rf"anchor_size: expected one of \[64\], got {size}"):
            replace(named_config("tiny"), anchor_size=size)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder", {"num_ws": 13}, "the prior reads 14 ws of length 32, the encoder gives 13 of"),
        ("encoder", {"w_dim": 16}, "the prior reads 14 ws of length 32, the encoder gives 14 of"),
        ("prior", {"w_dim": 16}, "the prior reads 14 ws of length 16"),
        ("prior", {"base_channels": 8}, "fusion.prior_channels has 32 at 4 px, the prior 8"),
        ("encoder", {"channels": (8,) * 5}, "image_channels has 16 at 4 px, the encoder 8"),
        ("fusion", {"prior_channels": {128: 32}}, "prior_channels has 32 at 128 px, the prior N"),
        ("fusion", {"repr_dim": 8}, "repr_dim is 8, the degradation encoder gives 256"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, changes, message):
    config = named_config("tiny")
    with pytest.raises(ValueError, match=message):
        replace(config, **{part: replace(getattr(config, part), **changes)})
