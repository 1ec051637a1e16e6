"""`panini info`: what it says of our files and of others."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from panini.checkpoints import save_model, save_tensors
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


STEERS = "\x1b[2J\x9b31m"
"""Clears a terminal and makes its letters red."""


def said_of(path: Path) -> str:
    result = runner.invoke(app, ["info", str(path)])
    said = result.stdout + result.stderr
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert all(letter.isprintable() for letter in said.replace("\n", "")), said
    return said


def test_a_strangers_text_does_not_steer_the_terminal(tmp_path):
    path = tmp_path / "a.pt"
    config = StyleGAN2Config(size=32, style_dim=8, max_channels=8, channel_multiplier=1 / 64)
    state = StyleGAN2(config).state_dict()
    tensors = {theirs: state[ours] for theirs, ours in counted_names(ROSINALITY, config).items()}
    torch.save({STEERS: torch.zeros(1)}, path)
    assert "tensors of no known format" in said_of(path)
    torch.save({"g_ema": tensors | {STEERS: torch.zeros(1)}}, path)
    assert "1 of its tensors are unknown: '\\x1b[2J\\x9b31m'" in said_of(path)
    torch.save({"g_ema": tensors | {f"{STEERS}.kernel": torch.zeros(1)}}, path)
    assert "is not [1, 3, 3, 1]" in said_of(path)
    net = PaniniNet.named("tiny")
    save_model(net, path, provenance={STEERS: STEERS})
    assert "provenance" in said_of(path)
    meta = {"config": net.config.to_dict()}
    save_tensors(net.state_dict() | {STEERS: torch.zeros(1)}, path, kind="panini-net", meta=meta)
    assert "1 unknown tensors" in said_of(path)
    save_tensors(state, path, kind="stylegan2-prior", meta={"config": {STEERS: 1}})
    assert "configuration is unusable" in said_of(path)
    save_tensors(state, path, kind=STEERS, meta={})
    assert "which this version does not know" in said_of(path)
    header = json.dumps({STEERS: {"dtype": STEERS}}, ensure_ascii=False).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "not a whole safetensors file" in said_of(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(said_of(path)), daemon=True)
    thread.start()
    thread.join(60)
    assert said == [
        f"error: {path}: is a pipe or a device, expected a file of weights; write it to a file"
        " first\n"
    ]
