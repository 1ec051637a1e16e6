"""StyleGAN2: shapes, the fusion hook, windows, truncation, gradients, the critic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from panini.models.ops import blur_kernel, modulated_conv2d, upfirdn2d
from panini.models.prior import Window
from panini.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    StyledConv,
    StyleGAN2,
    StyleGAN2Config,
    minibatch_stddev,
)


def small(size: int = 128) -> StyleGAN2:
    torch.manual_seed(0)
    prior = StyleGAN2(StyleGAN2Config(size=size, style_dim=32, mapping_layers=2, max_channels=16))
    for module in prior.modules():
        if isinstance(module, StyledConv):
            torch.nn.init.constant_(module.noise_strength, 0.3)
    return prior.eval()


def styles(prior: StyleGAN2, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, prior.num_ws, prior.w_dim, generator=generator)


@pytest.mark.parametrize(("up", "down", "pad"), [(1, 1, (1, 1)), (2, 1, (2, 1)), (1, 2, (1, 1))])
def test_upfirdn2d_is_zero_insertion_padding_filtering_and_striding(up, down, pad):
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    kernel = torch.arange(12.0).reshape(3, 4)
    wide = torch.zeros(2, 3, 5 * up, 6 * up)
    wide[..., ::up, ::up] = x
    wide = F.pad(wide, (*pad, *pad))
    expected = F.conv2d(wide.flatten(0, 1)[:, None], kernel.flip((0, 1))[None, None])
    expected = expected[:, 0].unflatten(0, (2, 3))[..., ::down, ::down]
    torch.testing.assert_close(upfirdn2d(x, kernel, up, down, pad), expected)


def test_upfirdn2d_with_negative_padding_crops():
    x = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    kernel = blur_kernel()
    whole = upfirdn2d(x, kernel)
    torch.testing.assert_close(upfirdn2d(x, kernel, pad=(-1, -2)), whole[..., 1:-2, 1:-2])


@pytest.mark.parametrize("upsampling", [None, blur_kernel(4.0)])
def test_modulated_conv2d_equals_modulated_weights_per_sample(upsampling):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    weight = torch.randn(5, 4, 3, 3, generator=generator)
    style = 1 + torch.randn(2, 4, generator=generator)
    ours = modulated_conv2d(x, weight, style, upsampling=upsampling)
    for sample in range(2):
        w = weight * style[sample, :, None, None]
        w = w / w.square().sum(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()
        if upsampling is None:
            expected = F.conv2d(x[sample, None], w, padding=1)
        else:
            expected = F.conv_transpose2d(x[sample, None], w.transpose(0, 1), stride=2)
            expected = upfirdn2d(expected, upsampling, pad=(1, 1))
        torch.testing.assert_close(ours[sample, None], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_shapes_follow_the_size(size):
    prior = small(size)
    levels = size.bit_length() - 2
    assert prior.num_ws == 2 * levels
    top = min(64, size // 2)
    assert list(prior.channels) == [4 << i for i in range(levels) if 4 << i <= top]
    assert prior(torch.zeros(2, 32)).shape == (2, 3, size, size)


def test_channels_of_the_paper_size():
    config = StyleGAN2Config()
    assert [config.channels_at(4 << i) for i in range(9)] == [512] * 5 + [256, 128, 64, 32]


def test_a_smaller_size_is_the_skip_image_of_that_level():
    prior = small(64)
    ws = styles(prior)
    coarse = prior.synthesis(ws, size=32)
    assert coarse.shape == (2, 3, 32, 32)
    # The last block adds its own RGB to this image: without that, both sizes show the same.
    with torch.no_grad():
        prior.blocks["64"].to_rgb.weight.zero_()
    blurred = F.avg_pool2d(prior.synthesis(ws), 2)
    assert F.l1_loss(blurred, coarse) < 0.3 * coarse.std()


def test_fuse_sees_every_level_once_and_feeds_the_next_one():
    prior = small(128)
    ws = styles(prior)
    seen = []

    def note(level: int, x: Tensor) -> Tensor:
        assert x.shape == (2, prior.channels[level], level, level)
        seen.append(level)
        return x

    plain = prior.synthesis(ws)
    assert torch.equal(prior.synthesis(ws, fuse=note), plain)
    assert seen == [4, 8, 16, 32, 64]
    replaced = prior.synthesis(ws, fuse=lambda lvl, x: torch.zeros_like(x) if lvl == 64 else x)
    assert not torch.allclose(replaced, plain)


def test_the_rgb_of_a_level_is_drawn_before_its_fusion():
    prior = small(64)
    ws = styles(prior)
    # 32 px is the last level below the output: its RGB must not see what fuse does there.
    plain = prior.synthesis(ws, size=32)
    fused = prior.synthesis(ws, size=32, fuse=lambda lvl, x: x * (100.0 if lvl == 32 else 1.0))
    assert torch.equal(plain, fused)
    with torch.no_grad():
        prior.blocks["64"].to_rgb.weight.zero_()
        prior.blocks["64"].to_rgb.bias.zero_()
    whole = prior.synthesis(ws, fuse=lambda lvl, x: x * (100.0 if lvl == 32 else 1.0))
    assert torch.equal(whole, prior.synthesis(ws))


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize(
    "window",
    [
        Window(top=20, left=30, side=16),
        Window(top=0, left=48, side=16),
        Window(top=0, left=0, side=64),
        Window(top=3, left=5, side=7, level=32),
        Window(top=1, left=0, side=2, level=8),
    ],
)
def test_a_window_is_its_part_of_the_whole_image(size, window):
    prior = small(256)
    ws = styles(prior, batch=1)
    scale = size // window.level
    rows = slice(window.top * scale, (window.top + window.side) * scale)
    columns = slice(window.left * scale, (window.left + window.side) * scale)
    whole = prior.synthesis(ws, size=size)[..., rows, columns]
    torch.testing.assert_close(
        prior.synthesis(ws, size=size, window=window), whole, rtol=1e-4, atol=1e-4
    )


def test_synthesis_refuses_what_does_not_fit():
    prior = small(128)
    ws = styles(prior)
    with pytest.raises(ValueError, match=r"ws of shape \(N, 12, 32\), got \(2, 11, 32\)"):
        prior.synthesis(ws[:, 1:])
    with pytest.raises(ValueError, match="got 100"):
        prior.synthesis(ws, size=100)
    with pytest.raises(ValueError, match="at a level up to 32 px"):
        prior.synthesis(ws, size=32, window=Window(top=0, left=0, side=8))
    with pytest.raises(ValueError, match="inside its level"):
        prior.synthesis(ws, window=Window(top=0, left=60, side=8))
    with pytest.raises(ValueError, match="inside its level"):
        prior.synthesis(ws, window=Window(top=-1, left=0, side=8))
    with pytest.raises(ValueError, match="above the fused levels"):
        prior.synthesis(
            ws, window=Window(top=0, left=0, side=8, level=32), fuse=lambda _level, x: x
        )
    with pytest.raises(ValueError, match=r"z of shape \(N, 32\)"):
        prior.mapping(torch.zeros(2, 31))
    with pytest.raises(ValueError, match="got 48"):
        StyleGAN2Config(size=48)


def test_truncation_goes_from_the_mean_to_w():
    prior = small(32)
    mean = prior.estimate_w_avg(64, torch.Generator().manual_seed(2))
    assert torch.equal(prior.w_avg, mean)
    z = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    w = prior.mapping(z)
    torch.testing.assert_close(prior.mapping(z, 0.0), mean.expand(3, -1))
    torch.testing.assert_close(prior.mapping(z, 0.5), (w + mean) / 2)
    assert prior.mapping(z, 1.0).std(dim=0).min() > 0


def test_every_weight_of_the_synthesis_gets_a_gradient():
    prior = small(32)
    prior.synthesis(styles(prior)).square().mean().backward()
    without = {name for name, p in prior.named_parameters() if p.grad is None}
    assert without == {n for n, _ in prior.named_parameters() if n.startswith("mapping_network.")}


def test_the_state_dict_comes_back():
    prior = small(32)
    other = StyleGAN2(prior.config)
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.synthesis(styles(prior)), prior.synthesis(styles(prior)))
    assert not any("blur" in key for key in prior.state_dict())


def critic(size: int) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(DiscriminatorConfig(size=size, max_channels=8))


@pytest.mark.parametrize("size", [32, 128])
def test_discriminator_judges_any_size(size):
    assert critic(size)(torch.zeros(3, 3, size, size)).shape == (3, 1)


def test_discriminator_refuses_another_size():
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\), got \(1, 3, 64, 64\)"):
        critic(32)(torch.zeros(1, 3, 64, 64))


def test_discriminator_has_the_second_derivative_that_r1_needs():
    judge = critic(32)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(judge(image).sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert judge.from_rgb.weight.grad is not None
    assert judge.from_rgb.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (4, 1), (8, 2), (6, 2), (5, 5)])
def test_minibatch_stddev_groups_up_to_four(batch, groups):
    x = torch.randn(batch, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    result = minibatch_stddev(x, 4)
    assert result.shape == (batch, 1, 4, 4)
    if batch == 5:  # prime: every sample is alone and differs from nothing
        torch.testing.assert_close(result, torch.full_like(result, 1e-4))
    else:
        assert len(result[:, 0, 0, 0].unique()) == groups
    members = x[::groups]
    expected = (members.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    torch.testing.assert_close(result[0, 0, 0, 0], expected)


def test_noise_is_stored_unless_a_generator_draws_it():
    prior = small(32).requires_grad_(False)
    for name, parameter in prior.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    ws = styles(prior)
    assert torch.equal(prior.synthesis(ws), prior.synthesis(ws))

    def drawn(seed: int) -> torch.Tensor:
        return prior.synthesis(ws, random=torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.allclose(drawn(0), drawn(1))
    # Each face has its own.
    same = prior.synthesis(ws[:1].expand(2, -1, -1), random=torch.Generator().manual_seed(0))
    assert not torch.allclose(same[0], same[1])
    window = Window(top=2, left=1, side=4, level=8)
    part = prior.synthesis(ws, window=window, random=torch.Generator().manual_seed(0))
    assert part.shape == (2, 3, 16, 16)


def test_the_generator_has_the_second_derivative_that_path_length_needs():
    prior = small(32)
    ws = styles(prior).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(prior.synthesis(ws).sum(), ws, create_graph=True)
    gradient.square().sum().backward()
    weight = prior.blocks["8"].conv1.weight
    assert weight.grad.abs().max() > 0


def test_there_is_no_anchor_and_blocks_above_a_level_are_told():
    prior = small(32)
    with pytest.raises(ValueError, match="all sizes, got anchor 16"):
        prior.synthesis(styles(prior), anchor=16)
    assert prior.modules_above(8) == [prior.blocks["16"], prior.blocks["32"]]
