"""`panini convert` and `panini sample`: what they write, and what they refuse."""

from __future__ import annotations

import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from panini.checkpoints import load_prior, load_tensors, save_tensors
from panini.checkpoints.convert import mobile_prior
from panini.cli.main import app
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig

SMALL = MobileStyleGANConfig(size=16, w_dim=8, mapping_layers=1, base_channels=8, channels=(8,))

runner = CliRunner()


def invoke(*arguments: str | Path):
    return runner.invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    return result.stderr


def write_prior(path: Path) -> MobileStyleGAN:
    torch.manual_seed(0)
    prior = MobileStyleGAN(SMALL).requires_grad_(False)
    save_tensors(prior.state_dict(), path, kind="mobile-prior", meta={"config": asdict(SMALL)})
    return prior


@pytest.fixture
def small_wheel(tmp_path, monkeypatch) -> Path:
    """A wheel, said to hold a prior small enough to convert in no time."""
    torch.manual_seed(0)
    state = MobileStyleGAN(SMALL).state_dict()
    derived = ("w_avg", "heads.8.")
    state = {name: value for name, value in state.items() if not name.startswith(derived)}
    monkeypatch.setattr(mobile_prior, "read_mobile_prior", lambda _: state)
    monkeypatch.setattr(mobile_prior, "MobileStyleGAN", lambda: MobileStyleGAN(SMALL))
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{mobile_prior.FOLDER}/SynthesisNetwork.xml", "")
    return path


@pytest.mark.parametrize("former", [[], ["mobile-prior"]], ids=["today", "former spelling"])
def test_convert_writes_a_prior_with_its_mean_and_heads(small_wheel, tmp_path, former):
    out = tmp_path / "prior.safetensors"
    result = invoke("convert", *former, small_wheel, out)
    assert result.exit_code == 0, result.output
    assert "image head 8 px derived" in result.stdout
    assert f"written: {out}" in result.stdout
    prior = load_prior(out)
    assert prior.config == SMALL
    assert prior.w_avg.abs().sum() > 0
    _, meta = load_tensors(out, kind="mobile-prior")
    assert meta["provenance"]["source"] == mobile_prior.WHEEL


def test_convert_keeps_a_file_that_is_there(small_wheel, tmp_path):
    out = tmp_path / "prior.safetensors"
    out.write_bytes(b"mine")
    message = refused("convert", small_wheel, out)
    assert message == f"error: {out}: exists already; add --overwrite to replace it\n"
    assert out.read_bytes() == b"mine"
    assert invoke("convert", small_wheel, out, "--overwrite").exit_code == 0
    assert load_prior(out).config == SMALL


def test_convert_refuses_another_file_in_a_line(tmp_path):
    out = tmp_path / "prior.safetensors"
    missing = tmp_path / "x.pth"
    assert refused("convert", missing, out) == f"error: {missing}: no such file\n"
    missing.write_bytes(b"<html>not found</html>")
    assert "neither a zip file, nor a pickle, nor safetensors" in refused("convert", missing, out)
    wheel = tmp_path / mobile_prior.WHEEL
    assert "no such file or folder; expected random_face-2021" in refused("convert", wheel, out)
    assert not out.exists()


def test_convert_needs_two_files(tmp_path):
    result = invoke("convert", "caffe", tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 2
    assert "expected FILE and OUT" in result.stderr


def test_sample_draws_faces_of_a_prior(tmp_path):
    write_prior(tmp_path / "prior.safetensors")
    result = invoke("sample", tmp_path / "prior.safetensors", tmp_path / "faces", "--count", 3)
    assert result.exit_code == 0, result.output
    assert "3 faces in" in result.stdout
    assert np.load(tmp_path / "faces" / "images.npy").shape == (3, 16, 16, 3)
    assert np.load(tmp_path / "faces" / "w.npy").shape == (3, 8)


def test_sample_keeps_faces_that_are_there(tmp_path):
    prior, out = tmp_path / "prior.safetensors", tmp_path / "faces"
    write_prior(prior)
    assert invoke("sample", prior, out, "--count", 1).exit_code == 0
    message = refused("sample", prior, out, "--count", 2)
    assert message == f"error: {out}: holds faces already; add --overwrite to replace them\n"
    assert len(np.load(out / "w.npy")) == 1
    assert invoke("sample", prior, out, "--count", 2, "--overwrite").exit_code == 0
    assert len(np.load(out / "w.npy")) == 2


def test_sample_keeps_images_that_have_no_w(tmp_path):
    prior, out = tmp_path / "prior.safetensors", tmp_path / "faces"
    write_prior(prior)
    out.mkdir()
    (out / "images.npy").write_bytes(b"mine")
    message = refused("sample", prior, out, "--count", 1)
    assert message == f"error: {out}: holds faces already; add --overwrite to replace them\n"
    assert (out / "images.npy").read_bytes() == b"mine"
    assert invoke("sample", prior, out, "--count", 1, "--overwrite").exit_code == 0
    assert len(np.load(out / "images.npy")) == 1


def test_sample_says_where_it_cannot_write(tmp_path):
    prior, out = tmp_path / "prior.safetensors", tmp_path / "faces"
    write_prior(prior)
    out.write_bytes(b"mine")
    message = refused("sample", prior, out, "--count", 1)
    assert message == f"error: {out}: is a file, expected a folder; name another place\n"
    message = refused("sample", prior, out / "below", "--count", 1)
    assert message.startswith(f"error: {out / 'below'}: cannot be written (Not a directory)")
    assert out.read_bytes() == b"mine"
