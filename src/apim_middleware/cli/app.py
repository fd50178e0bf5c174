"""The commands of ``apim``. Each is a thin shell around what the package offers in Python."""

import json
import os
import string
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, unquote

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apim_middleware.cli import _explaining, _keys, _lint, _serving, _workers
from apim_middleware.cli._targets import found, gateway, in_one_line, is_file
from apim_middleware.configuration import dumps
from apim_middleware.errors import ApimError, ConfigError
from apim_middleware.gateway import Gateway, difference
from apim_middleware.gateway.subscribing import subscribe
from apim_middleware.guarding import Covered, coverage
from apim_middleware.guarding.coverage import called
from apim_middleware.identity import Subscription
from apim_middleware.model import User
from apim_middleware.serving.certificates import server_context
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.stores.keys import Keyring, MemoryKeys, NewSubscription
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.testing import Answer, call

_HELP = "Serve a gateway, look at what guards what, compare two of them, and keep keys."

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_HELP)
keys = typer.Typer(no_args_is_help=True, help="Subscriptions and their keys, in SQLite or Redis.")
importing = typer.Typer(no_args_is_help=True, help="Make APIs of what is described elsewhere.")
app.add_typer(keys, name="keys")
app.add_typer(importing, name="import")

_out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

Target = Annotated[str, typer.Argument(help="module:attribute, file.py:attribute, or a .toml, .yaml or .json file")]
Names = Annotated[str, typer.Option(help="module:attribute of a dict of the objects a file refers to with ref")]
AsJson = Annotated[bool, typer.Option("--json", help="write JSON")]
Store = Annotated[str, typer.Option(envvar="APIM_KEYS", help="keys.db, or redis://host/0")]
Slot = Literal["primary", "secondary"]

_MOMENT = "as 2026-12-31 or 2026-12-31T18:00:00Z, of UTC unless it says otherwise"
_CATALOG = "the gateway whose product it is, as a target; without it, nothing its products promise is asked"


def _tell(version: bool) -> None:
    if version:
        typer.echo(f"apim-middleware {metadata.version('apim-middleware')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_tell, is_eager=True, help="say which it is")] = False,
) -> None:
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does


@contextmanager
def _told() -> Any:  # noqa: ANN401 - a context manager
    """What is wrong is one line and an exit code, not a traceback."""
    try:
        yield
    except (ApimError, LookupError, ValueError) as error:
        _err.print(Text(str(error), style="red"))
        raise typer.Exit(1) from None


# Serving


@app.command()
def serve(
    target: Target,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="the port to listen on")] = 8080,
    server: Annotated[Literal["uvicorn", "granian"], typer.Option(help="the ASGI server")] = "uvicorn",
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    reload: Annotated[bool, typer.Option(help="take changes of the file or the code over")] = False,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of the certificate, for TLS")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key")] = None,
    stop_after: Annotated[int, typer.Option(min=1, help="seconds requests have to end when the server is to")] = 30,
    names: Names = "",
) -> None:
    """Serve a gateway, or any ASGI app."""
    with _told():
        if (certificate is None) != (key is None):
            raise ConfigError("apim", "certificate", "and key do not go together", "Give both, or neither")
        if certificate is not None:
            server_context(certificate, key)  # so that mistakes show here and now
        served = found(target, names)
    for each in _workers.kept_apart(served, workers):
        _err.print(Text(f"warning: {each}", style="yellow"))
    os.environ[_serving.TARGET], os.environ[_serving.NAMES] = target, names
    by_file = reload and is_file(target)
    if by_file:
        os.environ[_serving.RELOAD] = "1"
    run = _with_uvicorn if server == "uvicorn" else _with_granian
    logs = not _workers.has_access_log(served)
    run(_How(host, port, workers, reload and not by_file, certificate, key, stop_after, logs))


class _How(NamedTuple):
    """How something is served, on whichever server."""

    host: str
    port: int
    workers: int
    restart: bool
    certificate: Path | None
    key: Path | None
    stop_after: int
    logs: bool
    """Whether the server writes lines of its own about requests, where it would."""


def _with_uvicorn(how: _How) -> None:
    import uvicorn

    tls: dict[str, Any] = {}
    if how.certificate is not None and how.key is not None:
        os.environ[_serving.CERTIFICATE], os.environ[_serving.KEY] = str(how.certificate), str(how.key)
        tls["ssl_context_factory"] = _serving.tls
    uvicorn.run(
        "apim_middleware.cli._serving:app",
        factory=True,
        host=how.host,
        port=how.port,
        workers=how.workers,
        reload=how.restart,
        date_header=False,
        access_log=how.logs,
        **uvicorn_options(timeout_graceful_shutdown=how.stop_after),
        **tls,
    )


def _with_granian(how: _How) -> None:
    try:
        from granian.constants import Interfaces
        from granian.log import LOGGING_CONFIG
        from granian.server import Server
    except ModuleNotFoundError:
        sys.exit("granian is not installed: pip install 'apim-middleware[granian]'")
    said: dict[str, Any] = LOGGING_CONFIG
    handlers = {name: {**each, "stream": "ext://sys.stderr"} for name, each in said["handlers"].items()}
    Server(
        "apim_middleware.cli._serving:app",
        factory=True,
        address=how.host,
        port=how.port,
        interface=Interfaces.ASGI,
        workers=how.workers,
        reload=how.restart,
        ssl_cert=how.certificate,
        ssl_key=how.key,
        workers_kill_timeout=how.stop_after,
        log_dictconfig={"handlers": handlers},  # as uvicorn does, so that stdout is left to access logs
    ).serve()


# Looking


@app.command()
def check(
    target: Target,
    strict: Annotated[bool, typer.Option(help="exit with 1 when there is advice")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes it is to be served by")] = 1,
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Build everything, and say what could be better."""
    with _told():
        looked_at = found(target, names)
        table = coverage(looked_at)
    advice = [*_lint.advice(table, looked_at), *_workers.kept_apart(looked_at, workers)]
    if as_json:
        _out.print_json(json.dumps({"routes": len(table), "advice": advice}))
    else:
        for each in advice:
            _out.print(Text(f"- {each}", style="yellow"))
        _out.print(f"{target}: {len(table)} routes, no mistakes" + (f"; hints: {len(advice)}" if advice else ""))
    if strict and advice:
        raise typer.Exit(1)


@app.command()
def routes(
    target: Target,
    names: Names = "",
    as_json: AsJson = False,
    as_html: Annotated[bool, typer.Option("--html", help="write HTML")] = False,
) -> None:
    """Show which policies stand in front of which route."""
    with _told():
        if as_json and as_html:
            raise ConfigError("apim routes", "html", "and json do not go together", "Give one of them")
        table = coverage(found(target, names))
    if as_json or as_html:
        typer.echo(table.as_json() if as_json else table.as_html())
        return
    shown = Table("method", "path", "version", "product", "policies, outermost first")
    for row in table:
        shown.add_row(Text(row.method), Text(row.path), Text(row.version), Text(row.product), _policies(row))
    _out.print(shown)


def _policies(row: Covered) -> Text:
    names = ", ".join(map(called, row.layers))
    return Text(names or "none", style="" if row.layers else "red")


@app.command()
def diff(
    old: Target,
    new: Target,
    names: Names = "",
    fail_on_loud: Annotated[bool, typer.Option(help="exit with 1 when protection goes")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a new gateway changes; what takes protection away is shouted."""
    with _told():
        before = gateway(old, names)
        changes = difference(before, gateway(new, names, before))
    if as_json:
        _out.print_json(json.dumps([vars(change) for change in changes]))
    else:
        for change in changes:
            _out.print(Text(str(change), style="bold red" if change.loud else ""))
        _out.print(f"changes: {len(changes)}" if changes else "nothing changes")
    if fail_on_loud and any(change.loud for change in changes):
        raise typer.Exit(1)


@app.command()
def request(
    target: Target,
    method: Annotated[str, typer.Argument(help="GET, POST, ...")],
    path: Annotated[str, typer.Argument(help="path and query, as /orders/7?full=1")],
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="Name: value")] = None,
    data: Annotated[str, typer.Option("--data", "-d", help="the body")] = "",
    client: Annotated[str, typer.Option(help="the address it seems to come from")] = "127.0.0.1",
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Send a request through a gateway or an app in this process, and show what each policy did."""
    with _told():
        lines = [_line(each) for each in header or ()]
        watched, journal = _explaining.observed(found(target, names))
    route, _, query = path.partition("?")
    answer, wrong = Answer(), ""
    ask = partial(
        call, watched, method.upper(), unquote(route), query=query.encode(), headers=lines, body=data.encode(),
        client=(client, 50_000), raw_path=quote(route, safe=string.punctuation).encode(), answer=answer,
    )  # fmt: skip
    try:
        anyio.run(ask)
    except Exception as error:  # whatever the app raises; what was seen until then is shown
        wrong = f"the app raised {in_one_line(error)}"
    status = answer.status
    wrong = wrong or ("" if status else "the app gave no answer")
    veil = _explaining.veil_of(journal)
    steps = _explaining.steps(journal, veil)
    sent = answer.headers if status else ()
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in sent]
    headers = [[name, veil.header(name, value)] for name, value in headers]
    body = answer.body.decode("utf-8", "replace")
    if as_json:
        told = [step._asdict() for step in steps]
        _out.print_json(json.dumps({"status": status, "headers": headers, "body": body, "policies": told}))
    else:
        _show(steps, status, headers, body)
    if wrong:
        _err.print(Text(wrong, style="red"))
        raise typer.Exit(1)


def _show(steps: Sequence[_explaining.Step], status: int, headers: Sequence[Sequence[str]], body: str) -> None:
    shown = Table("policy", "µs", "request", "response")
    for step in steps:
        request_side = "answered" if step.answered else "\n".join(step.request)
        shown.add_row(step.policy, f"{step.took * 1e6:.0f}", Text(request_side), Text("\n".join(step.response)))
    _out.print(shown)
    if not status:
        return
    _out.print(f"{status}")
    for name, value in headers:
        _out.print(Text(f"{name}: {value}"))
    _out.print(Text(f"\n{body}"))


def _line(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ConfigError("apim request", "header", f"{text!r} is no header", "Write -H 'Name: value'")
    try:
        return name.strip().lower().encode("latin-1"), value.strip().encode("latin-1")
    except UnicodeEncodeError:
        problem = f"{text!r} holds characters that no header can"
        raise ConfigError("apim request", "header", problem, "Write what Latin-1 has, or encode it") from None


# Importing


@importing.command("openapi")
def openapi(
    document: Annotated[Path, typer.Argument(help="an OpenAPI 3.0 or 3.1 document, JSON or YAML")],
    name: Annotated[str, typer.Option(help="what to call the API")],
    backend: Annotated[str, typer.Option(help="the URL behind it")],
    path: Annotated[str, typer.Option(help="where it begins")] = "/",
    is_open: Annotated[bool, typer.Option("--open", help="let anybody call it, without a subscription key")] = False,
    form: Annotated[Literal["toml", "yaml", "json"], typer.Option("--format", help="how to write it")] = "toml",
) -> None:
    """Write the API that a document describes, as a gateway file; its keys are the object "keys" of --names."""
    from apim_middleware.openapi import api_from_openapi

    with _told():
        api = api_from_openapi(document, name=name, path=path, backend=backend)
        keys = MemoryKeys()  # stands for those of the program
        gateway = Gateway(apis=(replace(api, subscription_required=not is_open),), keys=None if is_open else keys)
        typer.echo(dumps(gateway, form, names={"keys": keys}), nl=False)


# Keys


@keys.command("new")
def new(
    subscription: Annotated[str, typer.Argument(help="the id of the subscription")],
    store: Store,
    product: Annotated[str, typer.Option(help="the product it is for")] = "",
    api: Annotated[str, typer.Option(help="the API it is for; * for all")] = "",
    owner: Annotated[str, typer.Option(help="whose it is")] = "",
    expires: Annotated[str, typer.Option(help=f"when its keys stop working, {_MOMENT}; never when not given")] = "",
    group: Annotated[list[str] | None, typer.Option(help="a group the owner is in; may be given several times")] = None,
    catalog: Annotated[str, typer.Option("--gateway", envvar="APIM_GATEWAY", help=_CATALOG)] = "",
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Add a subscription, and print its two keys, this once."""

    async def add() -> NewSubscription:
        async with _keys.opened(store, new=True) as held:
            if catalog and product:
                user = User(owner, groups=tuple(group or ()))
                return await subscribe(products, held, product, owner=user, subscription_id=subscription, expires=ends)
            wanted = Subscription(id=subscription, product=product, api=api, owner=owner)
            return await held.begin(wanted, expires=ends)

    with _told():
        ends = _moment("expires", expires) if expires else None
        if ends is not None and ends <= datetime.now(UTC).timestamp():
            raise ConfigError("apim keys", "expires", f"{expires} has passed", "Give a moment that lies ahead")
        if product and api:
            problem = "and product do not go together: a key opens one or the other"
            raise ConfigError("apim keys", "api", problem, "Give one of them")
        if group and not catalog:
            raise ConfigError("apim keys", "group", "is asked for by the products of a gateway", "Give --gateway too")
        if catalog and product and not owner:
            raise ConfigError(
                "apim keys", "owner", "is missing, whom the products of a gateway ask for", "Give --owner"
            )
        products = gateway(catalog, names).products if catalog and product else ()
    made: NewSubscription = _run(add)
    if as_json:
        _out.print_json(json.dumps({**_told_of(made.keyring()), "primary": made.primary, "secondary": made.secondary}))
        return
    typer.echo(f"primary: {made.primary}\nsecondary: {made.secondary}")
    if made.state == "submitted":
        _err.print(Text(f"it waits for approval: apim keys approve {subscription}", style="yellow"))


_MOVES: dict[str, tuple[Callable[[RecordKeys, str], Awaitable[None]], str]] = {
    "approve": (RecordKeys.approve, "Let the keys of a subscription work that waits for approval."),
    "reject": (RecordKeys.reject, "Turn down a subscription that waits for approval."),
    "suspend": (RecordKeys.suspend, "Let the keys of a subscription rest."),
    "resume": (RecordKeys.resume, "Let the keys of a subscription work, again or for the first time."),
    "cancel": (RecordKeys.cancel, "End a subscription; it is still known, and makes room for another."),
}


def _moving(move: Callable[[RecordKeys, str], Awaitable[None]]) -> Callable[..., None]:
    """The command that lets a subscription stand elsewhere."""

    def command(
        subscription: Annotated[str, typer.Argument(help="the id of the subscription")],
        store: Store,
        as_json: AsJson = False,
    ) -> None:
        async def change() -> Keyring:
            async with _keys.opened(store) as held:
                await move(held, subscription)
                return await held.keyring(subscription)

        ring: Keyring = _run(change)
        if as_json:
            _out.print_json(json.dumps(_told_of(ring)))
        else:
            typer.echo(f"{subscription}: {ring.state}")

    return command


for _verb, (_move, _help) in _MOVES.items():
    keys.command(_verb, help=_help)(_moving(_move))


@keys.command("expire")
def expire(
    subscription: Annotated[str, typer.Argument(help="the id of the subscription")],
    store: Store,
    at: Annotated[str, typer.Option(help=f"{_MOMENT}; now when not given")] = "",
    as_json: AsJson = False,
) -> None:
    """Say when the keys of a subscription stop working."""

    async def change() -> Keyring:
        async with _keys.opened(store) as held:
            await held.expire(subscription, ends)
            return await held.keyring(subscription)

    with _told():
        ends = _moment("at", at) if at else None
    told = _told_of(_run(change))
    if as_json:
        _out.print_json(json.dumps(told))
    else:
        typer.echo(f"{subscription}: expires {told['expires']}")


@keys.command("remove")
def remove(
    subscription: Annotated[str, typer.Argument(help="the id of the subscription")],
    store: Store,
) -> None:
    """Forget a subscription and its keys; cancel one that is to stay known."""

    async def forget() -> None:
        async with _keys.opened(store) as held:
            await held.remove(subscription)

    _run(forget)


@keys.command("rotate")
def rotate(
    subscription: Annotated[str, typer.Argument(help="the id of the subscription")],
    store: Store,
    slot: Annotated[Slot, typer.Option(help="which of the two")] = "primary",
    overlap: Annotated[float, typer.Option(min=0, help="seconds for which the old key works too")] = 86_400.0,
) -> None:
    """Make a new key, and print it, this once."""

    async def change() -> str:
        async with _keys.opened(store) as held:
            return await held.rotate(subscription, slot, overlap=overlap)

    typer.echo(_run(change))


@keys.command("revoke")
def revoke(
    subscription: Annotated[str, typer.Argument(help="the id of the subscription")],
    store: Store,
    slot: Annotated[Slot | None, typer.Option(help="which of the two; both when not given")] = None,
) -> None:
    """Let a key work no more."""

    async def change() -> None:
        async with _keys.opened(store) as held:
            for each in (slot,) if slot else ("primary", "secondary"):
                await held.revoke(subscription, each)

    _run(change)


@keys.command("list")
def listed(store: Store, as_json: AsJson = False) -> None:
    """Show the subscriptions; keys are kept as digests, and cannot be shown."""
    found_keys = _run(lambda: _keys.every(store))
    if as_json:
        _out.print_json(json.dumps([_told_of(ring) for ring in found_keys]))
        return
    shown = Table("subscription", "product", "api", "owner", "state", "expires", "keys")
    for ring in found_keys:
        shown.add_row(*(str(each) for each in _told_of(ring).values()))
    _out.print(shown)


def _moment(option: str, text: str) -> float:
    """A moment as seconds since 1970-01-01 UTC. Raises ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        cure = "Write 2026-12-31, or 2026-12-31T18:00:00+01:00"
        raise ConfigError("apim keys", option, f"{text!r} is no moment", cure) from None


def _written(moment: float) -> str:
    """A moment for people; its seconds, where that is too far away."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment:g}"


def _told_of(ring: Keyring) -> dict[str, str]:
    expires = "" if ring.expires is None else _written(ring.expires)
    subscription = ring.subscription
    return {
        "subscription": subscription.id,
        "product": subscription.product,
        "api": subscription.api,
        "owner": subscription.owner,
        "state": ring.state,
        "expires": expires,
        "keys": ", ".join(key.slot for key in ring.keys),
    }


def _run(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
    with _told():
        return anyio.run(work)
