"""What can be reproduced, in the order of what it costs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial, reduce
from operator import or_
from pathlib import Path

from panini.errors import ConfigError
from panini.reproduce import beyond, theta
from panini.reproduce.figure import figure, figure_needs
from panini.reproduce.fusion import TABLES, fusion_table, rows_of, table_needs
from panini.reproduce.inputs import Needs, check_needs
from panini.reproduce.study import Options, Study

logger = logging.getLogger(__name__)

ALL = "all"

PARTS: dict[str, Callable[[Study], list[Path]]] = {
    "table4": theta.theta_table,
    "figure7": figure,
    "table3": partial(fusion_table, name="table3"),
    "table2": partial(fusion_table, name="table2"),
    "table1": partial(fusion_table, name="table1"),
    "beyond": beyond.beyond,
}
"""Name → what makes it; table 3 is two rows of table 2, and beyond goes on from table 1."""

NEEDS: dict[str, Callable[[Study], Needs]] = {
    "table4": theta.theta_needs,
    "figure7": figure_needs,
    **{name: partial(table_needs, name=name) for name in TABLES},
    "beyond": beyond.beyond_needs,
}
"""Name → what it reads."""


def reproduce(what: str, options: Options) -> list[Path]:
    """Make a table, a figure, or all; what is there is not made again.

    Args:
        what: One of `PARTS`, or "all".
        options: Budget, folders, data.

    Returns:
        The files.

    Raises:
        ConfigError: An unknown part or row, or a folder of another budget.
        PaniniError: Data, weights or runs that do not fit.
    """
    if what != ALL and what not in PARTS:
        raise ConfigError(f"{what}: unknown; expected one of {', '.join(PARTS)}, {ALL}")
    names = list(PARTS) if what == ALL else [what]
    _check_only(options.only, names)
    if options.only:
        names = [name for name in names if set(options.only) & set(_rows(name))]
    study = Study(options)
    check_needs(study, reduce(or_, (NEEDS[name](study) for name in names)))
    study.claim()
    files = []
    for name in names:
        logger.info("%s", name)
        files += PARTS[name](study)
    return files


def _rows(name: str) -> tuple[str, ...]:
    """What `--only` can name of a part."""
    if name in TABLES:
        return rows_of(name)
    return tuple(beyond.PARTS) if name == "beyond" else ()


def _check_only(only: Iterable[str], names: Iterable[str]) -> None:
    known = list(dict.fromkeys(row for name in names for row in _rows(name)))
    for row in only:
        if row not in known:
            raise ConfigError(
                f"--only {row}: unknown here; expected one of {', '.join(known) or 'none'}"
            )
