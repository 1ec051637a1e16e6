"""The command `panini`: one sub-command a file."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from panini.cli.convert import convert
from panini.cli.degrade import degrade
from panini.cli.evaluate import evaluate
from panini.cli.explain import explain
from panini.cli.info import info
from panini.cli.init import init
from panini.cli.logs import errors_in_a_line
from panini.cli.probe import probe
from panini.cli.push import push
from panini.cli.reproduce import reproduce
from panini.cli.restore import restore
from panini.cli.sample import sample
from panini.cli.serve import serve
from panini.cli.train import train
from panini.cli.upscale import upscale


class OneLineErrors(TyperGroup):
    """Tells a user's mistake in one line instead of a traceback (unless `--debug`)."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run; help is written here too."""
        # Redirected on Windows, they take one code page, which has no θ: a mark stands for it.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with errors_in_a_line(ctx, code=1):
            return super().invoke(ctx)


app = typer.Typer(
    cls=OneLineErrors,
    help="Restore faces in photos by interpolating between the photo and a face prior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        # Asked for as an attribute, because the package computes it when it is first used.
        typer.echo(f"panini {importlib.import_module('panini').__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[
        bool, typer.Option("--debug", help="Log what happens; show tracebacks of errors.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show and exit."),
    ] = False,
) -> None:
    """Options that come before the sub-command."""
    from panini.runtime import keep_memory

    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        logging.getLogger("PIL").setLevel(logging.INFO)
    keep_memory()


app.command()(restore)
app.command()(upscale)
app.command()(explain)
app.command()(degrade)
app.command()(evaluate)
app.command()(train)
app.command()(convert)
app.command()(info)
app.command()(sample)
app.command()(serve)
app.command()(init)
app.command()(push)
app.command()(probe)
app.command()(reproduce)

if __name__ == "__main__":  # accelerate launch -m panini.cli.main
    app()
