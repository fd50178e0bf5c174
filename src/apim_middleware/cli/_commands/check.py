"""``apim check``."""

from typing import Annotated

import typer

from apim_middleware.cli._apart import kept_apart
from apim_middleware.cli._lint import advice_on
from apim_middleware.cli._options import AsJson, Names, Target
from apim_middleware.cli._speaking import say, say_json, told
from apim_middleware.cli._targets import found
from apim_middleware.guarding import coverage


def check(
    target: Target,
    *,
    strict: Annotated[bool, typer.Option(help="exit with 1 when there is advice")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes it is to be served by")] = 1,
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Build everything, and say what could be better."""
    with told():
        app = found(target, names)
        table = coverage(app)
    advice = [*advice_on(table, app), *kept_apart(app, workers)]
    if as_json:
        say_json({"routes": len(table), "advice": advice})
    else:
        for each in advice:
            say(f"- {each}", "yellow")
        say(f"{target}: {len(table)} routes, no mistakes" + (f"; hints: {len(advice)}" if advice else ""))
    if strict and advice:
        raise typer.Exit(1)
