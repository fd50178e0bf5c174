"""``apim routes``."""

from typing import Annotated

import typer
from rich.text import Text

from apim_middleware.cli._options import AsJson, Names, Target
from apim_middleware.cli._speaking import show, table, told
from apim_middleware.cli._targets import found
from apim_middleware.errors import ConfigError
from apim_middleware.guarding import Coverage, Covered, coverage
from apim_middleware.guarding.coverage import called


def routes(
    target: Target,
    *,
    names: Names = "",
    as_json: AsJson = False,
    as_html: Annotated[bool, typer.Option("--html", help="write HTML")] = False,
) -> None:
    """Show which policies stand in front of which route."""
    with told():
        if as_json and as_html:
            raise ConfigError("apim routes", "html", "and json do not go together", "Give one of them")
        rows = coverage(found(target, names))
    if as_json or as_html:
        typer.echo(rows.as_json() if as_json else rows.as_html())
    else:
        _show(rows)


def _show(rows: Coverage) -> None:
    shown = table("method", "path", "version", "product", "policies, outermost first")
    for row in rows:
        shown.add_row(row.method, row.path, row.version, row.product, _policies(row))
    show(shown)


def _policies(row: Covered) -> Text:
    said = [", ".join(map(called, row.layers)) or "none", *(f"({each})" for each in row.notes)]
    return Text(" ".join(said), style="" if row.layers else "red")
