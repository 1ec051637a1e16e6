"""`panini serve` without its command line: the socket, the application, the end."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Callable

from panini.errors import ConfigError, MissingExtraError
from panini.restorer import Restorer
from panini.web.environment import set_environment
from panini.web.limits import Limits
from panini.web.service import Service, make_folder

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names under which a browser reaches a server on its own machine."""


def require_web() -> None:
    """Say now what is missing, before a model is loaded.

    Raises:
        MissingExtraError: Gradio, or what comes with it, is not installed.
    """
    for package in ("gradio", "fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("web", "panini serve")


def listen(host: str, port: int) -> socket.socket:
    """Take a port before anything slow is done; 0 takes a free one.

    Raises:
        ConfigError: The port is taken, or the host is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"{host}:{port}: {reason}; choose another --port") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Where a browser finds it: http://127.0.0.1:7860."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return listener.getsockname()[0] in LOOPBACK


def run(
    load: Callable[[], Restorer],
    limits: Limits,
    listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    """Serve until the process is told to stop.

    Args:
        load: Gives what restores.
        limits: What is taken on.
        listener: From `listen`.
        ready: Called when it starts.
    """
    folder = make_folder()
    # Before the packages that read it are imported.
    set_environment(folder)
    try:
        service = Service(load(), limits, folder)
        _serve(service, listener, ready)
        service.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(service: Service, listener: socket.socket, ready: Callable[[], None]) -> None:
    import uvicorn

    from panini.web.app import build_app

    # Another name for this machine is refused only where nobody else can ask.
    app = build_app(service, LOOPBACK if is_local(listener) else None, ready)
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_graceful_shutdown=5
    )
    uvicorn.Server(config).run(sockets=[listener])
