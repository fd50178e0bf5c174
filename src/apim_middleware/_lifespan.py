"""What ends with the server: told of the end of the lifespan (ASGI lifespan protocol) before the server is."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from apim_middleware.types import Message, Send

Ending: TypeAlias = Callable[[], Awaitable[None]]

_OVER = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"})


def ending_with(send: Send, endings: Iterable[Ending]) -> Send:
    """The ``send`` of a lifespan that runs these at its end, before the server hears of it and stops the event loop."""

    async def tell(message: Message) -> None:
        if message["type"] in _OVER:
            for end in endings:
                await end()
        await send(message)

    return tell
