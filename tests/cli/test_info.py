"""`panini info`: what it says of our files and of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from panini.checkpoints import save_model
from panini.checkpoints.convert.stylegan2 import ROSINALITY, counted_names
from panini.cli.main import app
from panini.models.panini_net import PaniniNet
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

runner = CliRunner()


def lines_of(path: Path | str) -> dict[str, str]:
    """First word of each line → the rest."""
    result = runner.invoke(app, ["info", str(path)])
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first == str(path)
    return {line[2:12].strip(): line[14:] for line in lines}


def test_info_of_our_network(tmp_path):
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    path = tmp_path / "tiny.safetensors"
    save_model(net, path, provenance={"images": 7})
    said = lines_of(path)
    assert said["format"] == "panini-net weights (ours)"
    assert said["holds"] == "Panini-Net, task mfr, 128 px -> 128 px"
    parameters = sum(p.numel() for p in net.parameters())
    assert said["parameters"] == f"{parameters:,} in {len(net.state_dict())} tensors"
    assert json.loads(said["config"])["task"] == "mfr"
    assert json.loads(said["provenance"]) == {"images": 7}


def test_info_of_a_shipped_model():
    assert lines_of("mobile-mfr")["holds"] == "Panini-Net, task mfr, 512 px -> 1024 px"


def test_info_of_a_foreign_prior_writes_nothing(tmp_path):
    config = StyleGAN2Config(size=32, style_dim=8, max_channels=8, channel_multiplier=1 / 64)
    state = StyleGAN2(config).state_dict()
    tensors = {theirs: state[ours] for theirs, ours in counted_names(ROSINALITY, config).items()}
    path = tmp_path / "prior.pt"
    torch.save({"g_ema": tensors, "d": {"x": torch.zeros(1)}}, path)
    said = lines_of(path)
    assert said["format"] == "StyleGAN2 of rosinality's stylegan2-pytorch (rosinality)"
    assert said["holds"] == "StyleGAN2 prior, 32 px, channel multiplier 0.015625"
    assert said["weights"] == "moving average (EMA)"
    assert said["left aside"] == "d.* 1"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"junk" * 99, b"PK\3\4", b"\x80\x04", b"\x80\x02K\x01."])
def test_info_of_junk_is_one_line(tmp_path, content):
    path = tmp_path / "junk.pth"
    path.write_bytes(content)
    result = runner.invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {path}: ")
    assert result.stderr.count("\n") == 1
