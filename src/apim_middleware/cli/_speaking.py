"""How commands speak: what was asked for on stdout, warnings on stderr, and what is wrong in one line."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from apim_middleware.errors import ApimError

_WIDE = 1_000_000
"""Columns of what is no terminal, where nothing need be folded."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in b"\n\t"}
"""The controls of C0 and C1 as they are shown: a terminal takes orders in them, whoever they come from."""

_C1 = re.compile("[\x80-\x9f]")


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream is not None and stream.isatty() else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


_out, _err = _console(), _console(stderr=True)


def harmless(text: str) -> str:
    """A text with the controls in it shown, and not obeyed; line feeds and tabs stay."""
    return text.translate(_CONTROLS)


def say(text: str, style: str = "") -> None:
    """A line of what was asked for."""
    _out.print(Text(harmless(text), style=style))


def say_body(text: str) -> None:
    """What an app answered: as it is, but for a terminal."""
    if _out.is_terminal:
        say(text)
    else:
        _out.file.write(f"{text}\n")


def say_json(value: object) -> None:
    """What was asked for as JSON, for programs, in characters that stdout has."""
    orders = _C1.search(json.dumps(value, ensure_ascii=False)) is not None
    _out.print_json(data=value, ensure_ascii=orders or not _out.encoding.startswith("utf"))


class Rows(Table):
    """A table of texts, whoever they come from."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """One more row."""
        shown = [Text(harmless(cell)) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*shown, style=style, end_section=end_section)


def table(*headings: str) -> Rows:
    """A table without rows; what is too long for a terminal is folded, and nothing left out."""
    made = Rows()
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def show(filled: Table) -> None:
    """A table as part of what was asked for."""
    _out.print(filled)


def warn(text: str, style: str = "yellow") -> None:
    """A line about what was asked for."""
    _err.print(Text(harmless(text), style=style))


@contextmanager
def told() -> Iterator[None]:
    """What is wrong is one line and an exit code, not a traceback."""
    try:
        yield
    except (ApimError, LookupError, ValueError) as error:
        warn(str(error), "red")
        raise typer.Exit(1) from None
