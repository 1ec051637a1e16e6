"""The command as a whole: help, version, errors in a line, nothing heavy until it is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import panini
from panini.cli.main import app
from panini.errors import PaniniError

COMMANDS = {
    *("restore", "upscale", "explain", "serve", "degrade", "evaluate", "train", "probe"),
    *("convert", "info", "init", "push", "reproduce", "sample"),
}

runner = CliRunner()


def test_help_names_every_command() -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    words = set(result.output.split())
    assert words >= COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_a_code_page_without_theta_gets_a_mark() -> None:
    """As Windows has it where the output goes into a file; and the module is the command."""
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "panini", "restore", "--help"]
    found = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert b"Usage: panini restore" in found.stdout


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == f"panini {panini.__version__}"


def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ["restore", "a.jpg", "-o", "x/y.png", "--aligned", "--upscale", "2"]
    result = runner.invoke(app, missing)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: --upscale")
    assert result.stderr.count("\n") == 1


def test_debug_shows_the_traceback_of_an_evaluation(tmp_path) -> None:
    options = ["evaluate", "--model", "nothing", "--data", "x", "--out", str(tmp_path / "out")]
    short = runner.invoke(app, options)
    assert short.exit_code == 2
    whole = runner.invoke(app, ["--debug", *options])
    assert isinstance(whole.exception, PaniniError)


def test_debug_shows_the_traceback() -> None:
    result = runner.invoke(
        app, ["--debug", "restore", "a.jpg", "-o", "x", "--aligned", "--upscale", "2"]
    )
    assert isinstance(result.exception, PaniniError)


def test_torch_waits_until_it_is_needed() -> None:
    code = "import sys, panini.cli.main; print([m for m in ('torch', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
