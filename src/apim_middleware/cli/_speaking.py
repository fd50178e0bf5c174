"""How commands speak: what was asked for on stdout, warnings on stderr, and what is wrong in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apim_middleware.errors import ApimError

_WIDE = 1_000_000
"""Columns of what is no terminal, where nothing need be folded."""


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream is not None and stream.isatty() else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


_out, _err = _console(), _console(stderr=True)


def say(text: str, style: str = "") -> None:
    """A line of what was asked for."""
    _out.print(Text(text, style=style))


def say_json(value: object) -> None:
    """What was asked for as JSON, for programs, in characters that stdout has."""
    _out.print_json(data=value, ensure_ascii=not _out.encoding.startswith("utf"))


def table(*headings: str) -> Table:
    """A table without rows; what is too long for a terminal is folded, and nothing left out."""
    made = Table()
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def show(filled: Table) -> None:
    """A table as part of what was asked for."""
    _out.print(filled)


def warn(text: str, style: str = "yellow") -> None:
    """A line about what was asked for."""
    _err.print(Text(text, style=style))


@contextmanager
def told() -> Iterator[None]:
    """What is wrong is one line and an exit code, not a traceback."""
    try:
        yield
    except (ApimError, LookupError, ValueError) as error:
        warn(str(error), "red")
        raise typer.Exit(1) from None
