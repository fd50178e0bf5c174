"""Who is calling, for the endpoints of FastAPI: functions to give to ``Depends``, typed, with no import of FastAPI.

They read what the policies in front have established, and refuse where nobody is known.
On Starlette the same is ``request.user`` and ``request.auth``.
"""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection

from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription

__all__ = ["maybe_principal", "maybe_subscription", "principal", "principal_with", "subscription"]


async def principal(connection: HTTPConnection) -> Principal:
    """The authenticated caller: ``caller: Annotated[Principal, Depends(principal)]``.

    401 when no authenticator named one; a WebSocket is closed with 1008 before it is accepted.
    """
    caller = await maybe_principal(connection)
    if caller is None:
        _refuse(connection, 401, "It must be known who is calling.", challenge="Bearer")
    return caller


async def subscription(connection: HTTPConnection) -> Subscription:
    """The subscription whose key came with the request; 401 or 1008 when there is none."""
    found = await maybe_subscription(connection)
    if found is None:
        _refuse(connection, 401, "A subscription key is required.", challenge='AzureApiManagementKey realm="api"')
    return found


async def maybe_principal(connection: HTTPConnection) -> Principal | None:
    """The authenticated caller, if there is one."""
    exchange = Exchange.of(connection.scope)
    return None if exchange is None else exchange.principal


async def maybe_subscription(connection: HTTPConnection) -> Subscription | None:
    """The subscription whose key came with the request, if one did."""
    exchange = Exchange.of(connection.scope)
    return None if exchange is None else exchange.subscription


def principal_with(*scopes: str) -> Callable[[HTTPConnection], Awaitable[Principal]]:
    """The authenticated caller, who was granted all of these scopes: ``Depends(principal_with("orders.read"))``.

    401 when nobody is known, 403 when a scope is missing; a WebSocket is closed with 1008.
    """
    wanted = frozenset(scopes)

    async def granted(connection: HTTPConnection) -> Principal:
        caller = await principal(connection)
        if not wanted <= caller.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'  # RFC 6750 §3.1
            _refuse(connection, 403, "The caller was not granted what this needs.", challenge=challenge)
        return caller

    return granted


def _refuse(connection: HTTPConnection, status: int, detail: str, *, challenge: str) -> NoReturn:
    if connection.scope["type"] == "websocket":
        raise WebSocketException(1008, detail)
    raise HTTPException(status, detail, headers={"WWW-Authenticate": challenge})
