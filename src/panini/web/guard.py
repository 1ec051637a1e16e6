"""What stands before every request: from where it may come, and how large it may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panini.web.api import error_response

_HEADERS = {
    # The page needs nothing from elsewhere, and so may load nothing from there.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

# Doors of Gradio's that fetch from elsewhere, write, or call functions past the page.
_CLOSED = re.compile(
    r"/gradio_api/(proxy=|file=https?:|stream/|run/|api/|call/|deep_link|custom_component/"
    r"|component_server|process_recording|vibe|undo-vibe|run-history|runs|dev/)"
    r"|/(login|logout|monitoring)\b"
)


class Guard:
    """ASGI middleware: refuses in JSON, before a byte of the body is read.

    Args:
        app: What it guards.
        max_body: Largest body of a request, bytes.
        hosts: Names under which the server may be asked for; None allows any. Without it, a page
            from elsewhere could point its own name to this machine and read photos.
    """

    def __init__(self, app: ASGIApp, max_body: int, hosts: Iterable[str] | None = None) -> None:
        self.app = app
        self.max_body = max_body
        self.hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers.update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal:
            await error_response(*refusal)(scope, receive, guarded)
        else:
            await self.app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        """Status, type and message; None lets the request pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 403, "forbidden", f"host {host!r}: ask for the server by its own address"
        if _CLOSED.match(scope["path"]):
            return 404, "not_found", "Not Found"
        if scope["method"] in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "forbidden", f"origin {origin!r}: pages from elsewhere may not ask"
        length = headers.get("content-length", "")
        # With both, the server reads what the chunks hold, however long, and not the length.
        if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
            reason = "send the length of the body in Content-Length, and no Transfer-Encoding"
            return 411, "length_required", reason
        if int(length) > self.max_body:
            limit = f"{self.max_body / 1e6:.1f} MB"
            return 413, "too_large", f"a body of {int(length) / 1e6:.1f} MB is more than {limit}"
        return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
