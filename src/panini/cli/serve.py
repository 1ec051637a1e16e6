"""`panini serve`: the page and the JSON API, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    model: Annotated[
        str,
        typer.Option(
            metavar="auto|NAME|PATH", help="A shipped model, a file, or auto: by the face's size."
        ),
    ] = "mobile-mfr",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    max_mb: Annotated[float, typer.Option(help="Largest file that is taken, MB.")] = 20.0,
    max_megapixels: Annotated[float, typer.Option(help="Largest photo that is taken.")] = 24.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds for one request, its waiting included.")
    ] = 120.0,
    queue: Annotated[
        int, typer.Option(help="Requests that may wait; further ones are told to come again.")
    ] = 8,
) -> None:
    """Open the page, and answer the JSON API, until Ctrl-C.

    Photos stay on this machine, in a temporary folder that goes with the server. docs/web.md
    tells the API.
    """
    from panini.web.limits import Limits
    from panini.web.server import address_of, is_local, listen, require_web, run

    require_web()
    limits = Limits(max_mb=max_mb, max_megapixels=max_megapixels, timeout=timeout, queue=queue)

    from panini.restorer import Restorer

    with listen(host, port) as listener:
        if not is_local(listener):
            typer.echo("warning: everybody who reaches this machine can use the page", err=True)
        try:
            run(
                lambda: Restorer.from_pretrained(model, device),
                limits,
                listener,
                lambda: typer.echo(f"Panini is at {address_of(listener)} (Ctrl-C stops it)"),
            )
        except KeyboardInterrupt:
            typer.echo("stopped; all photos are forgotten")
