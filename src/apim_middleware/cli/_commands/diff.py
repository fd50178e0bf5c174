"""``apim diff``."""

from typing import Annotated

import typer

from apim_middleware.cli._options import AsJson, Names, Target
from apim_middleware.cli._speaking import say, say_json, told
from apim_middleware.cli._targets import gateway
from apim_middleware.gateway import difference


def diff(
    old: Target,
    new: Target,
    *,
    names: Names = "",
    fail_on_loud: Annotated[bool, typer.Option(help="exit with 1 when protection goes")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a new gateway changes; what takes protection away is shouted."""
    with told():
        before = gateway(old, names)
        changes = difference(before, gateway(new, names, before))
    if as_json:
        say_json([vars(change) for change in changes])
    else:
        for change in changes:
            say(str(change), "bold red" if change.loud else "")
        say(f"changes: {len(changes)}" if changes else "nothing changes")
    if fail_on_loud and any(change.loud for change in changes):
        raise typer.Exit(1)
