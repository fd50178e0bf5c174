"""The commands of ``apim``, put together."""

import os
import sys
from contextlib import suppress
from importlib import metadata
from typing import Annotated

import typer

from apim_middleware.cli._commands.check import check
from apim_middleware.cli._commands.diff import diff
from apim_middleware.cli._commands.importing import importing
from apim_middleware.cli._commands.keys import keys
from apim_middleware.cli._commands.request import request
from apim_middleware.cli._commands.routes import routes
from apim_middleware.cli._commands.serve import serve

_HELP = "Serve a gateway, look at what guards what, compare two of them, and keep keys."

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_HELP)


def _tell(version: bool) -> None:
    if version:
        typer.echo(f"apim-middleware {metadata.version('apim-middleware')}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_tell, is_eager=True, help="say which it is")] = False,
) -> None:
    with suppress(FileNotFoundError):  # a folder that was removed holds no modules
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does


for _command in (serve, check, routes, diff, request):
    app.command()(_command)
app.add_typer(keys, name="keys")
app.add_typer(importing, name="import")
