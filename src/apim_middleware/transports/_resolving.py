"""Asking the system where a name leads, in threads that nobody else has to wait for: a name server may be silent."""

import socket
import weakref
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from apim_middleware._loops import running_loop, start

_MOST = 100
"""Names that are asked for at once."""

Found: TypeAlias = list[tuple[socket.AddressFamily, Any]]
"""Families, and addresses as sockets of each have them."""


class Resolver:
    """Looks names up, each once at a time: who asks for one that is being looked up hears the same.

    A thread cannot be cancelled. Who gives up waiting leaves it behind, and it does not count as free before it is.
    """

    def __init__(self) -> None:
        """Nothing is looked up yet."""
        self._loops: weakref.WeakKeyDictionary[Any, _Asked] = weakref.WeakKeyDictionary()

    async def find(self, host: str, port: int) -> Found:
        """Where a name leads, in the system's order. Raises OSError and UnicodeError."""
        asked = self._loops.setdefault(running_loop(), _Asked())
        asking = asked.under_way.get((host, port))
        if asking is None:
            asked.under_way[host, port] = asking = _Asking(asked, host, port)
            start(asking.run)
        await asking.over.wait()
        if asking.error is not None:
            raise asking.error
        return asking.found


class _Asked:
    """What is being looked up in one event loop."""

    def __init__(self) -> None:
        self.threads = anyio.CapacityLimiter(_MOST)
        self.under_way: dict[tuple[str, int], _Asking] = {}


class _Asking:
    """One look-up, in a task of its own."""

    def __init__(self, asked: _Asked, host: str, port: int) -> None:
        self._asked, self._host, self._port = asked, host, port
        self.over = anyio.Event()
        self.found: Found = []
        self.error: Exception | None = None

    async def run(self) -> None:
        look = partial(socket.getaddrinfo, self._host, self._port, type=socket.SOCK_STREAM)
        try:
            found = await anyio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._asked.threads)
            self.found = [(family, address) for family, *_, address in found]
        except Exception as error:  # for those who wait
            self.error = error
        finally:
            del self._asked.under_way[self._host, self._port]
            self.over.set()
