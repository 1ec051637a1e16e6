"""The probe, on encoders whose knowledge is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from panini.checkpoints import save_model, save_tensors
from panini.cli.main import app
from panini.degradations import DegradationParams
from panini.errors import DataError
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.panini_net import PaniniNet
from panini.training import probe as probing
from panini.training.probe import TARGETS, _errors, _probe_r2, _same_face, probe


def faces(count: int, side: int = 64) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    flat = generator.integers(60, 190, (count, 1, 1, 3), dtype=np.uint8)
    return [np.broadcast_to(colour, (side, side, 3)).copy() for colour in flat]


class NoiseAndColour(nn.Module):
    """Knows how noisy an image is and, if asked to, which colour it has."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self.colour = colour
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, lq):
        fine = lq - nn.functional.avg_pool2d(lq, 3, 1, 1)
        noise = fine[..., 2:-2, 2:-2].flatten(1).std(dim=1, keepdim=True)
        return torch.cat([noise, *([lq.mean(dim=(2, 3))] if self.colour else [])], dim=1)

    def project(self, degradation):
        return degradation[:, :1]


def only_noise(generator: np.random.Generator) -> DegradationParams:
    sigma, jpeg = generator.uniform(0, 2), int(generator.integers(90, 100))
    return DegradationParams(sigma=sigma, rate=1.0, noise=generator.uniform(0, 20), jpeg=jpeg)


def test_an_encoder_of_noise_tells_the_noise_and_nothing_else():
    found = probe(NoiseAndColour(colour=False), faces(40), sampler=only_noise, size=64, views=3)
    assert list(found.v_dr.r2) == list(TARGETS)
    assert found.v_dr.r2["noise"] > 0.95
    assert found.v_dr.r2["sigma"] < 0.3
    assert found.v_dr.r2["log2_low_side"] == 0  # all are equal
    assert (found.faces, found.views, found.chance) == (40, 3, 1 / 40)
    assert found.v_dr.same_face < 0.25
    assert set(found.v_dr.intervals) == {*TARGETS, "same_face"}
    assert found.v_dr.intervals["same_face"].count == 40


def test_an_encoder_of_content_finds_the_same_face():
    """And a head that leaves the content out does not."""
    encoder = NoiseAndColour(colour=True)
    found = probe(encoder, faces(40), sampler=only_noise, size=64, views=2)
    assert found.v_dr.same_face > 0.5
    assert found.contrast.same_face < 0.25


def test_the_probe_is_ridge_regression():
    generator = np.random.default_rng(0)
    x, new_x = generator.normal(size=(60, 1, 5)), generator.normal(size=(30, 1, 5))
    weights = generator.normal(size=5)
    y, new_y = x @ weights + 3, new_x @ weights + 3
    assert _errors(x, y, new_x, new_y, 1e-6).max() < 1e-6
    # A huge ridge leaves the mean.
    left = _errors(x, y, new_x, new_y, 1e9)
    assert left.mean() == pytest.approx(np.mean((new_y - y.mean()) ** 2), 1e-3)
    assert _probe_r2(np.concatenate([x, new_x]), np.concatenate([y, new_y])).low > 0.99


def test_noise_alone_has_no_r2():
    generator = np.random.default_rng(1)
    vectors, target = generator.normal(size=(100, 2, 30)), generator.normal(size=(100, 2))
    assert _probe_r2(vectors, target).mean < 0.1


def test_retrieval_counts_own_faces():
    vectors = np.random.default_rng(0).normal(size=(10, 1, 4)).repeat(2, axis=1)
    assert _same_face(vectors).tolist() == [1] * 10
    vectors[:, 1] = np.roll(vectors[:, 1], 1, axis=0)
    assert _same_face(vectors).tolist() == [0] * 10


def test_intervals_are_over_the_faces_that_the_probe_did_not_see():
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(100, 3, 4))
    target = vectors @ generator.normal(size=4) + generator.normal(size=(100, 3))
    found = _probe_r2(vectors, target)
    assert found.count == 50
    assert found.low < found.mean < found.high < 1
    equal = _probe_r2(vectors, np.ones((100, 3)))
    assert (equal.low, equal.mean, equal.high) == (0, 0, 0)


def test_too_few_faces_are_refused():
    with pytest.raises(DataError, match="a probe needs at least 20 faces, got 3"):
        probe(NoiseAndColour(colour=False), faces(3))


def test_the_command_takes_networks_and_encoders(tmp_path, monkeypatch, shard):
    monkeypatch.setattr(probing, "LEAST_FACES", 8)
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    save_model(net, tmp_path / "net.safetensors", provenance={})
    encoder = DegradationEncoder(DegradationEncoderConfig(kind="mobile"))
    encoder.load_state_dict(net.degradation_encoder.state_dict())
    path, meta = tmp_path / "dre.safetensors", {"config": {"kind": "mobile"}}
    save_tensors(encoder.state_dict(), path, kind="degradation-encoder", meta=meta)
    answers = []
    for weights in (tmp_path / "net.safetensors", path):
        arguments = ["probe", str(weights), "--data", str(shard), "--size", "128", "--views", "2"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout))
    assert answers[0] == answers[1]
    assert answers[0]["faces"] == 8
    assert set(answers[0]["v_dr"]["r2"]) == set(answers[0]["contrast"]["r2"]) == set(TARGETS)
