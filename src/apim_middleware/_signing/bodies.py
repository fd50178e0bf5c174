"""Bodies that were signed: read whole before the app sees any of them, checked, and told again."""

from collections.abc import Awaitable, Callable

from apim_middleware._ring import refuse, seats_of
from apim_middleware.bodies import read_body
from apim_middleware.errors import ClientLeft
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

Check = Callable[[bytes], Awaitable[None]]
"""What is to be found out about a body; raises Refusal when it is not the one that was signed."""


class CheckedBody:
    """Stands right behind a policy that leaves a ``Check`` in the scope under a key of its own."""

    def __init__(self, app: ASGIApp, key: str, max_bytes: int) -> None:
        """The app gets bodies of at most ``max_bytes`` that have passed their check; others are refused."""
        self._app, self._key, self._max = app, key, max_bytes
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the body, if there is anything to check, and go on."""
        check: Check | None = scope.pop(self._key, None)
        if check is None:
            await self._app(scope, receive, send)
            return
        try:
            body = b"" if scope["type"] == "websocket" else await read_body(receive, self._max)
            await check(body)
        except ClientLeft:
            return
        except Exception as error:
            await refuse(error, scope, send)
            return
        told = scope["type"] == "websocket"

        async def tell() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, tell, send)
