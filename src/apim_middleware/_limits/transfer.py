"""How many bytes of bodies go through: in requests as they are read, in responses as they are sent."""

from apim_middleware._ring import seats_of
from apim_middleware.exchange import Exchange
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

_KEY = "apim_middleware.transfer"
"""The scope key under which a gate hands its transfer to the layer right behind it."""


class Transfer:
    """The bytes of one request and its response, header lines not among them."""

    __slots__ = ("read", "sent")

    def __init__(self) -> None:
        self.read = 0
        self.sent = 0

    def sent_too(self, chunk: bytes, last: bool) -> bytes:
        """Count one more chunk of the response: a tap on its body."""
        self.sent += len(chunk)
        return chunk

    def bytes(self, units: str) -> int:
        """As many as count."""
        return {"request-bytes": self.read, "response-bytes": self.sent, "bytes": self.read + self.sent}.get(units, 0)


def begin(exchange: Exchange) -> Transfer:
    """The transfer of a request whose body is to be counted by the ``Reading`` right behind its gate."""
    transfer = exchange.scope[_KEY] = Transfer()
    return transfer


class Reading:
    """Counts the bytes of request bodies as the app reads them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.seats = app, seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transfer: Transfer | None = scope.pop(_KEY, None)

        async def counted() -> Message:
            message = await receive()
            if transfer is not None and message["type"] == "http.request":
                transfer.read += len(message.get("body", b""))
            return message

        await self.app(scope, receive if transfer is None else counted, send)
