"""The paper's encoder at a small size."""

from __future__ import annotations

import pytest
import torch

from panini.models.encoder import MFR_ENCODER, SR_ENCODER, PaperEncoder, PaperEncoderConfig

SMALL = PaperEncoderConfig(
    in_size=64, rrdb_blocks=1, rrdb_growth=4, widths=(8, 16), latent_channels=8, num_ws=6, w_dim=16
)


def build(config: PaperEncoderConfig = SMALL) -> PaperEncoder:
    torch.manual_seed(0)
    return PaperEncoder(config).eval()


def test_features_of_every_level_and_styles():
    found = build()(torch.zeros(2, 3, 64, 64))
    assert {level: tuple(x.shape) for level, x in found.features.items()} == {
        level: (2, 16, level, level) for level in (4, 8, 16, 32)
    }
    assert list(found.features) == [4, 8, 16, 32]
    assert found.ws.shape == (2, 6, 16)


def test_samples_do_not_mix():
    encoder = build()
    lq = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together, alone = encoder(lq), encoder(lq[1:])
    torch.testing.assert_close(together.ws[1:], alone.ws, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.features[32][1:], alone.features[32], rtol=1e-4, atol=1e-5)


def test_every_weight_gets_a_gradient():
    encoder = build()
    lq = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    encoder(lq).ws.square().sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@pytest.mark.parametrize("shape", [(1, 3, 64, 32), (1, 3, 32, 32), (1, 1, 64, 64), (3, 64, 64)])
def test_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected lq of shape \(N, 3, 64, 64\), got"):
        build()(torch.zeros(shape))


def test_named_sizes_end_at_64_px():
    assert (MFR_ENCODER.in_size, MFR_ENCODER.top_level) == (512, 64)
    assert (SR_ENCODER.in_size, SR_ENCODER.top_level) == (64, 64)


@pytest.mark.parametrize(("in_size", "widths"), [(96, (8,)), (63, (8, 8)), (16, (8, 8, 8))])
def test_sizes_that_do_not_halve_to_4_px_are_refused(in_size, widths):
    with pytest.raises(ValueError, match=f"got in_size {in_size}"):
        PaperEncoderConfig(in_size=in_size, widths=widths)
