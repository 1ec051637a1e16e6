"""`panini init`: from a prior's file to a network that the restoration stage takes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from panini.checkpoints import io, load_model, load_tensors, save_tensors
from panini.cli.main import app
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

SMALL = MobileStyleGANConfig(
    size=256, w_dim=8, mapping_layers=1, base_channels=8, channels=(8,) * 5
)

runner = CliRunner()


@pytest.fixture
def prior(tmp_path) -> Path:
    path = tmp_path / "prior.safetensors"
    torch.manual_seed(0)
    net = MobileStyleGAN(SMALL)
    net.estimate_w_avg(100, torch.Generator().manual_seed(0))
    save_tensors(net.state_dict(), path, kind="mobile-prior", meta={"config": asdict(SMALL)})
    return path


def invoke(prior: Path, out: Path, *more: str):
    return runner.invoke(app, ["init", "--prior", str(prior), str(out), *more])


def refused(prior: Path, out: Path, *more: str) -> str:
    result = invoke(prior, out, *more)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_init_writes_a_network_with_its_provenance(prior, tmp_path):
    out = tmp_path / "net.safetensors"
    result = invoke(prior, out, "--size", "256", "--encoder", "mobile", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "mfr, 256 px -> 256 px, fused at 4, 8, 16, 32, 64 px, 17 style vectors" in result.stdout
    _, meta = load_tensors(out, kind="panini-net")
    assert meta["provenance"] == {
        "trained": "not yet: assembled by panini init",
        "prior": "prior.safetensors",
        "prior_sha256": io.sha256_of(prior),
        "seed": 3,
    }
    net = load_model(out)
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 256, 256)).image.shape == (1, 3, 256, 256)


def test_init_takes_a_trained_degradation_encoder(prior, tmp_path):
    torch.manual_seed(1)
    encoder = DegradationEncoder(DegradationEncoderConfig(kind="mobile"))
    path, out = tmp_path / "dre.safetensors", tmp_path / "net.safetensors"
    meta = {"config": asdict(encoder.config)}
    save_tensors(encoder.state_dict(), path, kind="degradation-encoder", meta=meta)
    given = ["--size", "256", "--degradation-encoder", str(path)]
    message = refused(prior, out, *given)
    assert "a degradation encoder of kind mobile, dim 256; the network has one of" in message
    result = invoke(prior, out, *given, "--encoder", "mobile")
    assert result.exit_code == 0, result.output
    state = load_model(out).degradation_encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    _, meta = load_tensors(out, kind="panini-net")
    assert meta["provenance"]["degradation_encoder"] == "dre.safetensors"


def test_init_takes_a_stylegan2_prior(tmp_path):
    config = StyleGAN2Config(size=256, style_dim=16, mapping_layers=1, max_channels=8)
    path, out = tmp_path / "prior.safetensors", tmp_path / "net.safetensors"
    net = StyleGAN2(config)
    net.estimate_w_avg(100, torch.Generator().manual_seed(0))
    meta = {"config": asdict(config)}
    save_tensors(net.state_dict(), path, kind="stylegan2-prior", meta=meta)
    result = invoke(path, out, "--size", "256", "--encoder", "mobile")
    assert result.exit_code == 0, result.output
    assert load_model(out).config.prior == config


def test_init_refuses_in_a_line(prior, tmp_path):
    out = tmp_path / "net.safetensors"
    message = refused(prior, out, "--size", "512")
    assert message.startswith(f"error: {prior}: the prior draws faces of 256 px, asked for 512")
    message = refused(prior, out, "--size", "256", "--task", "sr16", "--encoder", "mobile")
    assert "the mobile encoder takes faces from 64 px, got 16" in message
    assert "x.pth: expected a name that ends in" in refused(
        prior, tmp_path / "x.pth", "--size", "256"
    )
    assert "no such file" in refused(tmp_path / "none.safetensors", out, "--size", "256")
    save_tensors({}, tmp_path / "dre.safetensors", kind="degradation-encoder", meta={})
    assert "dre.safetensors: " in refused(tmp_path / "dre.safetensors", out, "--size", "256")
    assert invoke(prior, out, "--size", "300").exit_code == 2
    assert not out.exists()


def test_init_keeps_a_file_that_is_there(prior, tmp_path):
    out = tmp_path / "net.safetensors"
    out.write_bytes(b"mine")
    message = refused(prior, out, "--size", "256")
    assert message == f"error: {out}: exists already; add --overwrite to replace it\n"
    assert out.read_bytes() == b"mine"
    result = invoke(prior, out, "--size", "256", "--encoder", "mobile", "--overwrite")
    assert result.exit_code == 0, result.output
