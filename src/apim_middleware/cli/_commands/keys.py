"""``apim keys ...``."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, TypeAlias, TypeVar

import anyio
import typer

from apim_middleware.cli._key_stores import every, opened
from apim_middleware.cli._moments import WRITTEN, moment, moment_to_come, written
from apim_middleware.cli._options import AsJson, Names
from apim_middleware.cli._speaking import say, say_json, show, table, told, warn
from apim_middleware.cli._targets import gateway
from apim_middleware.errors import ConfigError
from apim_middleware.gateway.subscribing import subscribe
from apim_middleware.identity import Subscription
from apim_middleware.model import User
from apim_middleware.stores.keys import Keyring, NewSubscription
from apim_middleware.stores.record_keys import RecordKeys

Store: TypeAlias = Annotated[str, typer.Option(envvar="APIM_KEYS", help="keys.db, or redis://host/0")]
Id: TypeAlias = Annotated[str, typer.Argument(help="the id of the subscription")]
Slot: TypeAlias = Literal["primary", "secondary"]
Result = TypeVar("Result")

_CATALOG = "the gateway whose product it is, as a target; without it, nothing its products promise is asked"

keys = typer.Typer(no_args_is_help=True, help="Subscriptions and their keys, in SQLite or Redis.")


@keys.command("new")
def new(
    subscription: Id,
    *,
    store: Store,
    product: Annotated[str, typer.Option(help="the product it is for")] = "",
    api: Annotated[str, typer.Option(help="the API it is for; * for all")] = "",
    owner: Annotated[str, typer.Option(help="whose it is")] = "",
    expires: Annotated[str, typer.Option(help=f"when its keys stop working, {WRITTEN}; never when not given")] = "",
    group: Annotated[list[str] | None, typer.Option(help="a group the owner is in; may be given several times")] = None,
    catalog: Annotated[str, typer.Option("--gateway", envvar="APIM_GATEWAY", help=_CATALOG)] = "",
    names: Names = "",
    as_json: AsJson = False,
) -> None:
    """Add a subscription, and print its two keys, this once."""

    async def add() -> NewSubscription:
        async with opened(store, new=True) as held:
            if catalog and product:
                user = User(owner, groups=tuple(group or ()))
                return await subscribe(products, held, product, owner=user, subscription_id=subscription, expires=ends)
            wanted = Subscription(id=subscription, product=product, api=api, owner=owner)
            return await held.begin(wanted, expires=ends)

    with told():
        ends = moment_to_come("expires", expires) if expires else None
        _check_new(product, api, owner, group or (), catalog)
        products = gateway(catalog, names).products if catalog and product else ()
    made = _run(add)
    if not product and not api:
        warn("it opens no API of a gateway: --product or --api says which, --api '*' all")
    if as_json:
        say_json({**_row(made.keyring()), "primary": made.primary, "secondary": made.secondary})
        return
    say(f"primary: {made.primary}\nsecondary: {made.secondary}")
    if made.state == "submitted":
        warn(f"it waits for approval: apim keys approve {subscription}")


def _check_new(product: str, api: str, owner: str, groups: Sequence[str], catalog: str) -> None:
    if product and api:
        problem = "and product do not go together: a key opens one or the other"
        raise ConfigError("apim keys", "api", problem, "Give one of them")
    if groups and not catalog:
        raise ConfigError("apim keys", "group", "is asked for by the products of a gateway", "Give --gateway too")
    if catalog and product and not owner:
        problem = "is missing, whom the products of a gateway ask for"
        raise ConfigError("apim keys", "owner", problem, "Give --owner")


_MOVES: dict[str, tuple[Callable[[RecordKeys, str], Awaitable[None]], str]] = {
    "approve": (RecordKeys.approve, "Let the keys of a subscription work that waits for approval."),
    "reject": (RecordKeys.reject, "Turn down a subscription that waits for approval."),
    "suspend": (RecordKeys.suspend, "Let the keys of a subscription rest."),
    "resume": (RecordKeys.resume, "Let the keys of a subscription work, again or for the first time."),
    "cancel": (RecordKeys.cancel, "End a subscription; it is still known, and makes room for another."),
}


def _moving(move: Callable[[RecordKeys, str], Awaitable[None]]) -> Callable[..., None]:
    """The command that lets a subscription stand elsewhere."""

    def command(subscription: Id, *, store: Store, as_json: AsJson = False) -> None:
        async def change() -> Keyring:
            async with opened(store) as held:
                await move(held, subscription)
                return await held.keyring(subscription)

        ring = _run(change)
        if as_json:
            say_json(_row(ring))
        else:
            say(f"{subscription}: {ring.state}")

    return command


for _verb, (_move, _help) in _MOVES.items():
    keys.command(_verb, help=_help)(_moving(_move))


@keys.command("expire")
def expire(
    subscription: Id,
    *,
    store: Store,
    at: Annotated[str, typer.Option(help=f"{WRITTEN}; now when not given")] = "",
    as_json: AsJson = False,
) -> None:
    """Say when the keys of a subscription stop working."""

    async def change() -> Keyring:
        async with opened(store) as held:
            await held.expire(subscription, ends)
            return await held.keyring(subscription)

    with told():
        ends = moment("at", at) if at else None
    row = _row(_run(change))
    if as_json:
        say_json(row)
    else:
        say(f"{subscription}: expires {row['expires']}")


@keys.command("remove")
def remove(subscription: Id, *, store: Store) -> None:
    """Forget a subscription and its keys; cancel one that is to stay known."""

    async def forget() -> None:
        async with opened(store) as held:
            await held.remove(subscription)

    _run(forget)


@keys.command("rotate")
def rotate(
    subscription: Id,
    *,
    store: Store,
    slot: Annotated[Slot, typer.Option(help="which of the two")] = "primary",
    overlap: Annotated[float, typer.Option(min=0, help="seconds for which the old key works too")] = 86_400.0,
) -> None:
    """Make a new key, and print it, this once."""

    async def change() -> str:
        async with opened(store) as held:
            return await held.rotate(subscription, slot, overlap=overlap)

    say(_run(change))


@keys.command("revoke")
def revoke(
    subscription: Id,
    *,
    store: Store,
    slot: Annotated[Slot | None, typer.Option(help="which of the two; both when not given")] = None,
) -> None:
    """Let a key work no more."""

    async def change() -> None:
        async with opened(store) as held:
            for each in (slot,) if slot else ("primary", "secondary"):
                await held.revoke(subscription, each)

    _run(change)


@keys.command("list")
def listed(*, store: Store, as_json: AsJson = False) -> None:
    """Show the subscriptions; keys are kept as digests, and cannot be shown."""
    rows = [_row(ring) for ring in _run(lambda: every(store))]
    if as_json:
        say_json(rows)
        return
    shown = table("subscription", "product", "api", "owner", "state", "expires", "keys")
    for row in rows:
        shown.add_row(*row.values())
    show(shown)


def _row(ring: Keyring) -> dict[str, str]:
    """A subscription as it is listed."""
    subscription = ring.subscription
    return {
        "subscription": subscription.id,
        "product": subscription.product,
        "api": subscription.api,
        "owner": subscription.owner,
        "state": ring.state,
        "expires": "" if ring.expires is None else written(ring.expires),
        "keys": ", ".join(key.slot for key in ring.keys),
    }


def _run(work: Callable[[], Awaitable[Result]]) -> Result:
    with told():
        try:
            return anyio.run(work)
        except LookupError as error:
            raise LookupError(f"{error}. Name one of those that apim keys list shows.") from None
