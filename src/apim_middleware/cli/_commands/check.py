"""``apim check``."""

from collections.abc import Sequence
from typing import Annotated

import typer

from apim_middleware.cli._apart import kept_apart
from apim_middleware.cli._lint import advice_on
from apim_middleware.cli._options import AsJson, Names, Target
from apim_middleware.cli._speaking import say, say_json, told
from apim_middleware.cli._targets import found
from apim_middleware.guarding import coverage

_ENDS = (" ", ",", ":", ".", "")
"""What stands behind the last word of an acceptance, so that ``GET /health`` accepts nothing of ``/healthy``."""


def check(
    target: Target,
    *,
    strict: Annotated[bool, typer.Option(help="exit with 1 when there is advice that was not accepted")] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(help="accept the advice that begins with these words; may be given several times"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes it is to be served by")] = 1,
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Build everything, and say what could be better."""
    with told():
        app = found(target, names)
        table = coverage(app)
    given = [*advice_on(table, app), *kept_apart(app, workers)]
    advice, accepted = _judged(given, accept or ())
    if as_json:
        say_json({"routes": len(table), "advice": advice, "accepted": accepted})
    else:
        for each in advice:
            say(f"- {each}", "yellow")
        counts = {"advice": len(advice), "accepted": len(accepted)}
        counted = ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
        say(f"{target}: {len(table)} routes, no mistakes" + (f"; {counted}" if counted else ""))
    if strict and advice:
        raise typer.Exit(1)


def _judged(given: Sequence[str], accept: Sequence[str]) -> tuple[list[str], list[str]]:
    """The advice that stands and the advice that was accepted; an acceptance that accepts nothing is advice, too."""
    accepted = [each for each in given if any(_begins(each, text) for text in accept)]
    idle = [text for text in dict.fromkeys(accept) if not any(_begins(each, text) for each in given)]
    told = [f"--accept {text!r} accepts nothing: no advice begins with these words. Leave it out." for text in idle]
    return [*(each for each in given if each not in accepted), *told], accepted


def _begins(advice: str, text: str) -> bool:
    return bool(text) and advice.startswith(text) and advice[len(text) : len(text) + 1] in _ENDS
