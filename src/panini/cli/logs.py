"""What commands that take a while tell of their steps."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler


def show_log(*, stderr: bool = False) -> None:
    """Show the package's log from INFO on.

    Args:
        stderr: On the standard error, where the standard output is a report's.
    """
    handler = RichHandler(console=Console(stderr=stderr), show_path=False, markup=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
