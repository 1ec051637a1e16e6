"""Variations: seeded, distinct, and true to the input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from panini.editing import variations, vary
from panini.editing.evidence import evidence_of, rms
from panini.editing.variation import TOLERANCE, mix, rolled_noise, structural_ws
from panini.errors import ConfigError
from panini.models.panini_net import PaniniNet
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config
from panini.restored import is_colourless
from panini.restorer import RestoredFace, Restorer


def pixels(faces: list[RestoredFace]) -> list[np.ndarray]:
    return [np.asarray(face.restored).astype(np.float32) for face in faces]


def test_the_same_seed_gives_the_same_and_another_other_faces(
    restorer: Restorer, face: RestoredFace
) -> None:
    first, again, other = (pixels(variations(restorer, face, 2, seed=seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(rms(a - b) > 0.3 for a, b in zip(first, other, strict=True))
    assert rms(first[0] - first[1]) > 0.3


def test_a_number_means_the_same_face_in_any_count(restorer: Restorer, face: RestoredFace) -> None:
    one, three = (variations(restorer, face, count, seed=0) for count in (1, 3))
    assert np.array_equal(pixels(one)[0], pixels(three)[0])


def test_variations_agree_with_the_input_as_the_result_does(
    restorer: Restorer, face: RestoredFace
) -> None:
    varied = vary(restorer, face, 3, seed=0)
    evidence = evidence_of(face)
    assert varied.own_side == evidence.side
    assert varied.result_agreement == pytest.approx(evidence.agreement(pixels([face])[0]))
    for picture, agreement in zip(pixels(varied.faces), varied.agreement, strict=True):
        assert agreement == pytest.approx(evidence.agreement(picture), abs=1e-3)
        assert agreement >= varied.result_agreement - TOLERANCE


def test_only_the_picture_changes(restorer: Restorer, face: RestoredFace) -> None:
    (other,) = variations(restorer, face, 1, seed=0)
    assert other.theta == face.theta
    assert other.box == face.box
    assert other.lq is face.lq
    assert other.matrix is face.matrix
    assert other.restored.size == face.restored.size
    assert not np.array_equal(np.asarray(other.restored), np.asarray(face.restored))


def test_a_grey_face_varies_in_grey(restorer: Restorer, face: RestoredFace) -> None:
    grey = face.lq.convert("L").convert("RGB")
    (kept,) = restorer.restore_aligned(grey).faces
    (coloured,) = restorer.restore_aligned(grey, keep_colour=True).faces
    for one, is_grey in ((kept, True), (coloured, False)):
        pictures = [np.asarray(other.restored) for other in variations(restorer, one, 2, seed=0)]
        assert [is_colourless(picture) for picture in pictures] == [is_grey] * 2
        assert not np.array_equal(pictures[0], pictures[1])


def test_strength_moves_further(restorer: Restorer, face: RestoredFace) -> None:
    result = pixels([face])[0]
    weak, strong = (
        rms(pixels(variations(restorer, face, 1, seed=0, strength=strength))[0] - result)
        for strength in (0.05, 2.0)
    )
    assert weak < strong


def test_the_perturbation_shrinks_where_the_result_equals_its_input(
    restorer: Restorer, face: RestoredFace
) -> None:
    # A result that is the input: no variation may move at the input's own resolution.
    exact = replace(face, restored=face.lq.copy())
    varied = vary(restorer, exact, 1, seed=0)
    assert varied.result_agreement == 100
    assert varied.shares[0] < 0.1


def test_the_network_is_left_as_it_was(restorer: Restorer, face: RestoredFace) -> None:
    before = {name: buffer.clone() for name, buffer in restorer.model.named_buffers()}
    variations(restorer, face, 1, seed=0)
    for name, buffer in restorer.model.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0, "seed": 0}, "variations: expected 1 to 64, got 0"),
        ({"count": 65, "seed": 0}, "variations: expected 1 to 64, got 65"),
        ({"count": 1, "seed": -1}, "seed: expected 0 or more, got -1"),
        ({"count": 1, "seed": 0, "strength": 0.0}, "strength: expected more than 0"),
        ({"count": 1, "seed": 0, "strength": 2.5}, "at most 2, got 2.5"),
    ],
)
def test_bad_options(restorer: Restorer, face: RestoredFace, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vary(restorer, face, options.pop("count"), **options)


def test_mixing_keeps_the_variance_and_the_fine_layers() -> None:
    prior = PaniniNet.named("tiny").prior
    generator = torch.Generator().manual_seed(0)
    ws = torch.randn(1, prior.num_ws, prior.w_dim, generator=generator)
    w = torch.randn(1, prior.w_dim, generator=generator)
    moved = structural_ws(prior)
    assert torch.equal(mix(prior, ws, w, 0.0), ws)
    mixed = mix(prior, ws, w, 0.5)
    assert torch.equal(mixed[:, moved:], ws[:, moved:])
    assert not torch.equal(mixed[:, 0], ws[:, 0])
    assert torch.allclose(mix(prior, ws, w, 1.0)[0, :moved], w.expand(moved, -1))
    assert 0.7 < mixed[:, :moved].var() / ws[:, :moved].var() < 1.3


def test_structural_codes_are_those_of_the_fused_levels() -> None:
    # 1 + 3 blocks up to 64 px; StyleGAN2 has two a level, at 4, 8, 16, 32, 64 px.
    assert structural_ws(PaniniNet.named("tiny").prior) == 13
    prior = StyleGAN2(StyleGAN2Config(size=128, style_dim=8, channel_multiplier=0.01))
    fused = len(prior.channels)
    assert structural_ws(prior) == 2 * fused < prior.num_ws


def test_noise_is_moved_not_made(restorer: Restorer) -> None:
    maps = rolled_noise(restorer.model, np.random.default_rng(0))
    buffers = dict(restorer.model.named_buffers())
    assert len(maps) == 9
    for name, noise in maps.items():
        assert torch.equal(noise.flatten().sort().values, buffers[name].flatten().sort().values)
    assert any(not torch.equal(noise, buffers[name]) for name, noise in maps.items())


def test_reads_the_bias(restorer: Restorer, face: RestoredFace) -> None:
    plain, biased = (
        pixels(variations(restorer, face, 1, seed=0, prior_bias=bias))[0] for bias in (0.0, {64: 3})
    )
    assert not np.array_equal(plain, biased)
