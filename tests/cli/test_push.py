"""`panini push` hands over what was asked for; the upload itself is tested with the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from panini.checkpoints import hub
from panini.cli.main import app
from panini.errors import CheckpointError

runner = CliRunner()


@pytest.fixture
def uploads(monkeypatch, tmp_path) -> list:
    calls = []

    def push(model, repo, **options):
        calls.append((model, repo, options))
        return "https://hub/commit/1"

    monkeypatch.setattr(hub, "push", push)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_model_is_pushed_with_its_own_card(uploads):
    Path("model_cards").mkdir()
    Path("model_cards/net.md").write_text("# Net\n")
    result = runner.invoke(app, ["push", "runs/net.safetensors", "me/net", "--private"])
    assert result.exit_code == 0, result.output
    assert "https://hub/commit/1" in result.stdout
    assert "use it as hf://me/net, card from model_cards/net.md" in result.stdout
    assert uploads == [
        (
            "runs/net.safetensors",
            "me/net",
            {
                "private": True,
                "message": "Upload a Panini-Net model",
                "card": Path("model_cards/net.md"),
            },
        )
    ]


def test_a_card_can_be_given_or_be_absent(uploads):
    arguments = ["push", "mobile-mfr", "me/net", "--message", "New"]
    assert "without a card" in runner.invoke(app, arguments).stdout
    runner.invoke(app, [*arguments, "--card", "other.md"])
    assert [options["card"] for _, _, options in uploads] == [None, Path("other.md")]
    assert {options["message"] for _, _, options in uploads} == {"New"}
    assert not any(options["private"] for _, _, options in uploads)


def test_a_refusal_is_one_line(uploads, monkeypatch):
    def push(*_, **__):
        raise CheckpointError("me/net: the hub refuses")

    monkeypatch.setattr(hub, "push", push)
    result = runner.invoke(app, ["push", "mobile-mfr", "me/net"])
    assert result.exit_code == 1
    assert result.stderr == "error: me/net: the hub refuses\n"
