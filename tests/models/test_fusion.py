"""DAFI: Eq. 6 and 7, and what `FusionControl` changes in them (Eq. 12 and 13)."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import torch

from panini.models.fusion import (
    DAFI,
    ConcatConv,
    DAFIConfig,
    Fusion,
    FusionControl,
    Method,
    build_fusion,
)

PRIOR = {4: 6, 8: 6, 16: 4}
IMAGE = {4: 3, 8: 5, 16: 2}


def build(**fields) -> DAFI:
    torch.manual_seed(0)
    config = DAFIConfig(prior_channels=PRIOR, image_channels=IMAGE, repr_dim=8, **fields)
    return DAFI(config).requires_grad_(False)


def degradation(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def features(level: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(level)
    shape = (count, PRIOR[level], level, level)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shared", [False, True])
def test_masks_are_a_softmax_over_the_two_sources(shared):
    fusion = build(shared_mlp=shared)
    logits, masks = fusion.mask_logits(degradation()), fusion.masks(degradation())
    assert list(masks) == [4, 8, 16]
    for level, channels in PRIOR.items():
        assert logits[level].shape == (2, 2, channels)
        assert masks[level].shape == (2, channels, 1, 1)
        prior, image = logits[level].softmax(dim=1).unbind(1)
        torch.testing.assert_close(masks[level][..., 0, 0], prior)
        torch.testing.assert_close(1 - masks[level][..., 0, 0], image)


def test_each_level_has_its_own_mlp_or_all_share_one():
    own, shared = build(), build(shared_mlp=True)
    hidden = 8 * 8 + 8
    outputs = sum(2 * channels * (8 + 1) for channels in PRIOR.values())

    def size(module: DAFI) -> int:
        return sum(p.numel() for name, p in module.named_parameters() if "mask_mlp" in name)

    assert size(own) == len(PRIOR) * hidden + outputs
    assert size(shared) == hidden + outputs

    before = own.masks(degradation())
    own.get_submodule("mask_mlps.8.0").weight.add_(1)
    after = own.masks(degradation())
    assert torch.equal(after[4], before[4])
    assert not torch.equal(after[8], before[8])


def test_the_shared_mlp_gives_its_outputs_to_the_levels_in_order():
    fusion = build(shared_mlp=True)
    raw = fusion.mask_mlp(degradation())
    joined = torch.cat([part.flatten(1) for part in fusion.mask_logits(degradation()).values()], 1)
    assert torch.equal(joined, raw)


@pytest.mark.parametrize("control", [None, FusionControl()])
@pytest.mark.parametrize("level", [4, 8, 16])
def test_fusion_interpolates_channel_by_channel(level, control):
    fusion = build()
    prior, image = features(level)
    mask = fusion.masks(degradation())[level]
    fused = fusion(level, prior, image, mask, control)
    torch.testing.assert_close(fused, mask * prior + (1 - mask) * image)


def test_a_source_can_be_switched_off():
    fusion = build()
    prior, image = features(8)
    mask = fusion.masks(degradation())[8]
    only_image = fusion(8, prior, image, mask, FusionControl(prior_gain=0))  # Eq. 12
    only_prior = fusion(8, prior, image, mask, FusionControl(image_gain=0))  # Eq. 13
    torch.testing.assert_close(only_image, (1 - mask) * image)
    torch.testing.assert_close(only_prior, mask * prior)
    torch.testing.assert_close(only_image + only_prior, fusion(8, prior, image, mask))


def test_gains_and_bias_are_chosen_by_level():
    control = FusionControl(bias={4: 2.0}, prior_gain={8: 0.5}, image_gain=3)
    assert control.at(4) == (2.0, 1.0, 3)
    assert control.at(8) == (0.0, 0.5, 3)

    fusion = build()
    plain, biased = fusion.masks(degradation()), fusion.masks(degradation(), control)
    assert torch.equal(plain[8], biased[8])
    torch.testing.assert_close(biased[4].logit(), plain[4].logit() + 2)
    prior, image = features(8)
    fused = fusion(8, prior, image, plain[8], control)
    torch.testing.assert_close(fused, 0.5 * plain[8] * prior + 3 * (1 - plain[8]) * image)


def test_a_bias_for_all_levels_moves_every_mask_the_same_way():
    fusion = build()
    plain = fusion.masks(degradation())
    for bias in (-3.0, 3.0):
        for level, mask in fusion.masks(degradation(), FusionControl(bias=bias)).items():
            torch.testing.assert_close(mask.logit(), plain[level].logit() + bias)


def test_initial_share_of_the_prior_is_the_configured_one():
    shares = {4: 0.9, 16: 0.2}
    masks = build(initial_prior=shares).masks(degradation(64))
    for level, share in shares.items():
        assert masks[level].mean().item() == pytest.approx(share, abs=0.03)
    assert masks[8].mean().item() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial_prior": {32: 0.5}}, "initial_prior names level 32, fused are "),
        ({"initial_prior": {8: 1.0}}, r"initial_prior of level 8 must be in \(0, 1\), got 1.0"),
        ({"initial_prior": {8: 0.5}, "shared_mlp": True}, "needs one MLP per level"),
    ],
)
def test_an_impossible_start_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


@pytest.mark.parametrize("branch", ["conv", "separable"])
def test_image_branch_brings_the_encoder_to_the_priors_channels(branch):
    fusion = build(branch=branch)
    for level in PRIOR:
        feature = fusion.image_feature(level, torch.ones(2, IMAGE[level], level, level))
        assert feature.shape == (2, PRIOR[level], level, level)


def test_separable_branch_speaks_in_the_priors_statistics():
    fusion = build(branch="separable")
    branch = fusion.convs["8"]
    branch.mean.fill_(5.0)
    branch.std.fill_(0.0)
    feature = fusion.image_feature(8, torch.randn(1, 5, 8, 8))
    torch.testing.assert_close(feature, torch.full((1, 6, 8, 8), 5.0))


OTHERS: tuple[Method, ...] = ("concat", "modulation", "noise", "latent")


def other(method: Method, **fields) -> Fusion:
    torch.manual_seed(0)
    config = DAFIConfig(
        prior_channels=PRIOR, image_channels=IMAGE, repr_dim=8, method=method, **fields
    )
    return build_fusion(config)


@pytest.mark.parametrize("branch", ["conv", "separable"])
@pytest.mark.parametrize("method", OTHERS)
def test_every_method_joins_features_and_learns(method, branch):
    fusion = other(method, branch=branch)
    masks = fusion.masks(degradation())
    loss = torch.zeros(())
    for level, channels in PRIOR.items():
        prior, _ = features(level)
        image = fusion.image_feature(level, torch.randn(2, IMAGE[level], level, level))
        fused = fusion(level, prior, image, masks.get(level))
        assert fused.shape == (2, channels, level, level)
        loss = loss + fused.square().mean()
    parameters = dict(fusion.named_parameters())
    if not parameters:
        assert method == "latent"
        return
    loss.backward()
    assert all(parameter.grad is not None for parameter in parameters.values())


@pytest.mark.parametrize("method", ["modulation", "noise", "latent"])
def test_these_methods_start_at_the_prior_alone(method):
    fusion = other(method)
    prior, image = features(8)
    torch.testing.assert_close(fusion(8, prior, image, None), prior)


@pytest.mark.parametrize("branch", ["conv", "separable"])
def test_concat_starts_near_the_interpolation_that_was_asked_for(branch):
    fusion = other("concat", branch=branch, initial_prior={8: 0.7})
    prior, image = features(8)
    start = 0.7 * prior + 0.3 * image
    assert (fusion(8, prior, image, None) - start).abs().mean() < 0.2 * start.abs().mean()


def test_concat_has_as_many_parameters_as_the_paper_says_it_costs():
    level = {64: 512}
    fusion = ConcatConv(DAFIConfig(prior_channels=level, image_channels=level, method="concat"))
    assert sum(p.numel() for p in fusion.joins.parameters()) == 4_719_104


@pytest.mark.parametrize("method", OTHERS)
def test_gains_switch_a_source_off_in_every_method(method):
    fusion = other(method)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    prior, image = features(8)
    no_prior = FusionControl(prior_gain=0.0)
    zeros = torch.zeros_like(prior)
    torch.testing.assert_close(
        fusion(8, prior, image, None, no_prior), fusion(8, zeros, image, None)
    )
    no_image = FusionControl(image_gain=0.0)
    torch.testing.assert_close(
        fusion(8, prior, image, None, no_image), fusion(8, prior, zeros, None)
    )


@pytest.mark.parametrize("method", OTHERS)
def test_a_bias_needs_masks(method):
    with pytest.raises(ValueError, match=f"'{method}' has no masks to bias"):
        other(method).masks(degradation(), FusionControl(bias={8: 1.0}))


def test_only_methods_that_weigh_have_masks():
    assert other("concat").masks(degradation()) == {}
    assert all(bool((mask == 1).all()) for mask in other("latent").masks(degradation()).values())


def test_unknown_method():
    with pytest.raises(ValueError, match="one of dafi, concat, modulation, noise, latent"):
        other("sum")


@pytest.mark.parametrize("method", get_args(Method))
def test_every_way_to_fuse_tells_its_equation_and_source(method):
    config = DAFIConfig(prior_channels=PRIOR, image_channels=IMAGE, repr_dim=8, method=method)
    text = " ".join((type(build_fusion(config)).__doc__ or "").split())
    assert "F = " in text
    assert re.search(r"\([A-Z]\w+( et al\.|, \w+ & \w+), (CVPR|AAAI) 20\d\d, (Eq|Sec)\. \d", text)
