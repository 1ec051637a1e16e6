"""`panini serve`: what is said before anything slow begins."""

from __future__ import annotations

import importlib.util
import socket

import pytest
from typer.testing import CliRunner

from panini.cli.main import app
from panini.errors import ConfigError, MissingExtraError
from panini.web.server import address_of, is_local, listen, require_web

runner = CliRunner()


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "gradio" else find(name)
    )
    with pytest.raises(MissingExtraError, match=r"panini serve needs the extra web: pip install"):
        require_web()
    result = runner.invoke(app, ["serve"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_ports() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        assert is_local(listener)
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: .*choose another --port"):
            listen("127.0.0.1", port)
    with listen("0.0.0.0", 0) as listener:
        assert not is_local(listener)
        assert address_of(listener).startswith("http://127.0.0.1:")
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:80"):
        listen("192.0.2.1", 80)


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(ConfigError, match="--host nowhere: Name or service not known"):
        listen("nowhere", 80)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--queue", "-1"], "queue: expected at least 0"),
        (["--timeout", "0"], "timeout: expected a number above 0"),
        (["--port", "0", "--model", "no-such-model"], "no-such-model: unknown model"),
        (["--port", "0", "--device", "tpu"], "device tpu: not available here"),
    ],
)
def test_mistakes_are_one_line(options: list[str], words: str) -> None:
    pytest.importorskip("gradio", reason="the extra web is not installed")
    result = runner.invoke(app, ["serve", *options])
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
