"""Request bodies that policies may look at: ``ReadBody``."""

from dataclasses import dataclass

from apim_middleware._http.targets import SAFE
from apim_middleware._ring import refuse, seats_of
from apim_middleware.bodies import may_have_body, read_body, too_large
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import ClientLeft, Refusal
from apim_middleware.exchange import KEY, Exchange, KnownBody
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, kw_only=True)
class ReadBody(Policy):
    """Read the body of a request before what stands behind is asked, so that policies can go by what it says.

    It is ``exchange.body`` then, and ``exchange.json()`` what it says; keys and conditions go by it with
    ``by.body("/model")`` and ``conditions.body("/stream", True)``. The app gets it as it came, byte by byte. Put it
    behind whatever decides who may come in: what strangers send is not worth the memory.

    Refused: 413 ``body-too-large``, and 415 ``content-encoding-unsupported`` for a body that is compressed, for nobody
    could see what it says. Whoever asks for JSON where there is none, or where the app could read it otherwise, has the
    request refused with 400 ``json-invalid``. Requests without a body and WebSockets pass.
    Follows what ``context.Request.Body`` is for in Azure API Management.
    """

    provides = frozenset({"body"})
    guards = False

    max_bytes: int = 1 << 20
    """Most bytes of a body, which is held in memory until the response is over. Default 1 MiB."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered to bodies that cannot be looked at."""
        answers = (
            Answer(400, ("json-invalid",)),
            Answer(413, ("body-too-large",)),
            Answer(415, ("content-encoding-unsupported",), ("accept-encoding",)),
        )
        return Documentation(answers=answers)

    def __post_init__(self) -> None:
        """There must be room for a body."""
        if self.max_bytes < 1:
            raise self.mistake("max_bytes", "leaves no room for a body", "Give a number of bytes")

    def on_request(self, exchange: Exchange) -> None:
        """Refuse at once what need not be read to know that it cannot be looked at."""
        if exchange.is_websocket:
            return
        length = exchange.header(b"content-length")  # of digits alone: hygiene has seen to that
        if length is not None and int(length) > self.max_bytes:
            raise too_large(self.max_bytes, exchange.scope)
        if any(value.strip().lower() not in (b"", b"identity") for value in exchange.headers(b"content-encoding")):
            detail = "A compressed body is not looked into. Send it as it is."
            asked = {"accept-encoding": "identity"}
            raise Refusal(415, "content-encoding-unsupported", detail, headers=asked)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy, and behind it what reads."""
        return ring(self, self, _Reading(app, self.max_bytes), env)


class _Reading:
    def __init__(self, app: ASGIApp, cap: int) -> None:
        self._app, self._cap = app, cap
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange: Exchange = scope[KEY]
        if scope.get("method") in SAFE and not may_have_body(scope):
            exchange.shared.body = KnownBody(b"", told=True)
            await self._app(scope, receive, send)
            return
        try:
            exchange.shared.body = KnownBody(await read_body(receive, self._cap))
        except ClientLeft:
            return
        except Refusal:
            await refuse(too_large(self._cap, scope), scope, send)
            return
        await self._app(scope, _telling(exchange, receive), send)


def _telling(exchange: Exchange, receive: Receive) -> Receive:
    """The body as it stands when it is asked for, in one message; then what the server tells."""
    told = False

    async def tell() -> Message:
        nonlocal told
        known = exchange.shared.body
        if told or known is None:
            return await receive()
        told = known.told = True
        return {"type": "http.request", "body": known.bytes, "more_body": False}

    return tell
