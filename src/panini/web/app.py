"""Page, API and guard as one application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

import gradio as gr
from fastapi import FastAPI, Response
from starlette.concurrency import run_in_threadpool

from panini.errors import PaniniError
from panini.web import texts
from panini.web.api import build_api, picture_response, tell_error
from panini.web.environment import set_environment
from panini.web.guard import Guard
from panini.web.page import build_page, theme
from panini.web.service import Service

_FORM = 64 * 1024  # Bytes of a body beside the photo.


def build_app(
    service: Service, hosts: Iterable[str] | None = None, ready: Callable[[], None] | None = None
) -> FastAPI:
    """The application; it closes the service when it stops.

    Args:
        service: What restores.
        hosts: Names under which it may be asked for; None allows any.
        ready: Called when it starts.
    """
    set_environment(service.folder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        if ready is not None:
            ready()
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/download/{token}")
    def download(token: str) -> Response:
        try:
            return picture_response(*service.download(token))
        except PaniniError as error:
            return tell_error(error)

    app.mount("/api/v1", build_api(service))
    gr.mount_gradio_app(
        app,
        build_page(service),
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        # What a bug says stays in the log; users' mistakes are told by the page itself.
        show_error=False,
        max_file_size=service.limits.max_bytes,
        ssr_mode=False,
        mcp_server=False,
        theme=theme(),
        css=texts.CSS,
    )
    # Base64 takes four letters for three bytes.
    app.add_middleware(Guard, max_body=service.limits.max_bytes * 4 // 3 + _FORM, hosts=hosts)
    return app
