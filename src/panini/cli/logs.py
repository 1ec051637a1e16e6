"""What commands tell: of their steps where they take a while, and of a user's mistakes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from panini.errors import PaniniError

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended."""


def show_log(*, stderr: bool = False) -> None:
    """Show the package's log from INFO on.

    Args:
        stderr: On the standard error, where the standard output is a report's.
    """
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=stderr), show_path=False, markup=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


@contextmanager
def errors_in_a_line(ctx: typer.Context, code: int) -> Iterator[None]:
    """End with a line and an exit code where the library refuses; `--debug` shows the traceback."""
    try:
        yield
    except PaniniError as error:
        if ctx.find_root().params.get("debug"):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code) from error


@contextmanager
def resumable() -> Iterator[None]:
    """Where Ctrl-C ends a command that can go on, say so."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
