"""``apim request``."""

import string
from collections.abc import Sequence
from functools import partial
from typing import Annotated
from urllib.parse import quote, unquote

import anyio
import typer

from apim_middleware.cli._observing import observed
from apim_middleware.cli._options import AsJson, Names, Target
from apim_middleware.cli._speaking import say, say_body, say_json, show, table, told, warn
from apim_middleware.cli._steps import Step, steps, veil_of
from apim_middleware.cli._targets import in_one_line, runnable
from apim_middleware.cli._veil import Veil
from apim_middleware.errors import ConfigError
from apim_middleware.testing import Answer, call
from apim_middleware.types import ASGIApp

_TYPED = "surrogateescape"
"""How texts become the bytes again that were typed."""


def request(
    target: Target,
    method: Annotated[str, typer.Argument(help="GET, POST, ...")],
    path: Annotated[str, typer.Argument(help="path and query, as /orders/7?full=1")],
    *,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="Name: value; may be given several times")
    ] = None,
    data: Annotated[str, typer.Option("--data", "-d", help="the body")] = "",
    client: Annotated[str, typer.Option(help="the address it seems to come from")] = "127.0.0.1",
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Send a request through a gateway or an app in this process, and show what each policy did."""
    with told():
        lines = [_line(each) for each in header or ()]
        watched, journal = observed(runnable(target, names))
    answer, wrong = _answer_of(watched, method, path, lines, data, client)
    veil = veil_of(journal)
    done, headers, body = steps(journal, veil), _headers(answer, veil), answer.body.decode("utf-8", "replace")
    if as_json:
        policies = [step._asdict() for step in done]
        say_json({"status": answer.status, "headers": headers, "body": body, "policies": policies})
    else:
        _show_steps(done)
        if answer.status:
            _show_answer(answer.status, headers, body)
    if wrong:
        warn(wrong, "red")
        raise typer.Exit(1)


def _answer_of(
    app: ASGIApp, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], data: str, client: str
) -> tuple[Answer, str]:
    """What the app answered, and in a line what went wrong, if anything did."""
    route, _, query = path.partition("?")
    raw = quote(route, safe=string.punctuation, errors=_TYPED)
    answer = Answer()
    ask = partial(
        call, app, method.upper(), unquote(raw), raw_path=raw.encode(), query=query.encode(errors=_TYPED),
        headers=headers, body=data.encode(errors=_TYPED), client=(client, 50_000), answer=answer,
    )  # fmt: skip
    try:
        anyio.run(ask)
    except (Exception, SystemExit) as error:  # whatever the app raises; what was seen until then is shown
        return answer, f"the app raised {in_one_line(error)}"
    return answer, "" if answer.status else "the app gave no answer"


def _line(text: str) -> tuple[bytes, bytes]:
    """The line of a header."""
    name, colon, value = text.partition(":")
    if not colon:
        raise ConfigError("apim request", "header", f"{text!r} is no header", "Write -H 'Name: value'")
    try:
        return name.strip().lower().encode("latin-1"), value.strip().encode("latin-1")
    except UnicodeEncodeError:
        problem = f"{text!r} holds characters that no header can"
        raise ConfigError("apim request", "header", problem, "Write what Latin-1 has, or encode it") from None


def _headers(answer: Answer, veil: Veil) -> list[tuple[str, str]]:
    """The headers of the answer as they may be shown."""
    sent = answer.headers if answer.status else ()
    lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent]
    return [(name, veil.header(name, value)) for name, value in lines]


def _show_steps(done: Sequence[Step]) -> None:
    shown = table("policy", "µs", "request", "response")
    for step in done:
        request_side = "answered" if step.answered else "\n".join(step.request)
        shown.add_row(step.policy, f"{step.took * 1e6:.0f}", request_side, "\n".join(step.response))
    show(shown)


def _show_answer(status: int, headers: Sequence[tuple[str, str]], body: str) -> None:
    say(f"{status}")
    for name, value in headers:
        say(f"{name}: {value}")
    say("")
    say_body(body)
