"""A connection of our own: what is said in one tick is one packet, and replies need no task to wait for them.

redis-py spends about 100 microseconds of CPU on a command; this spends about 30, and a batch of hits is one command.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from apim_middleware.credentials.secret import Reader
from apim_middleware.errors import NotDone, StoreError
from apim_middleware.stores.redis.link import Silence, Unreached, kind_of, rejected
from apim_middleware.stores.redis.target import Target

_pack: Callable[[tuple[bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # says: one word only


class Wire(asyncio.Protocol):
    """One connection: replies come in the order of the commands."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._left = False
        self._closed = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready to speak."""
        self._transport = cast("asyncio.Transport", transport)
        made = transport.get_extra_info("socket")
        if made is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are whole."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                future = waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):  # nonsense, or more replies than questions
            self.abort()
        if self._left and not waiting:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody who still waits will know whether they were heard."""
        if not self._closed.done():
            self._closed.set_result(None)
        for future in self._waiting:
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the server closed the connection"))
        self._waiting.clear()

    @property
    def open(self) -> bool:
        """Whether it can be used, as far as anybody knows."""
        return not (self._left or self._transport.is_closing())

    def say(self, *words: bytes) -> "asyncio.Future[Any]":
        """The reply to a command, some time; what the server says of an error is a reply too."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        self._transport.write(_pack(words))
        return future

    def leave(self) -> None:
        """Be used no more, and end with the last reply that is on its way."""
        self._left = True
        if not self._waiting:
            self.abort()

    def abort(self) -> None:
        """Break off, for nobody knows what the next reply would be to."""
        self._transport.abort()

    async def aclose(self) -> None:
        """Close, and wait until that is done."""
        self._transport.close()
        await self._closed


class OwnLink:
    """A way to the server of a URL: one wire, laid when it is needed."""

    def __init__(self, target: Target, password: Reader, connect: float, timeout: float) -> None:
        """``connect`` and ``timeout`` are seconds, for a connection that is ready and for an answer.

        ``password`` is asked for each connection, so that it can be changed while this is in use.
        """
        self.address = target.address
        self._password = password
        self._target, self._connect, self._timeout = target, connect, timeout
        self._wire: Wire | None = None
        self._closed = False
        self._laying = asyncio.Lock()

    async def say(self, *words: bytes) -> Any:  # noqa: ANN401
        """The reply to a command. Raises StoreError."""
        wire = self._wire
        if wire is None or not wire.open:
            wire = await self._laid()
        try:
            async with asyncio.timeout(self._timeout):
                reply = await wire.say(*words)
        except TimeoutError as error:
            wire.abort()
            raise Silence(f"the store on {self.address} did not answer in time") from error
        except OSError as error:
            raise StoreError(f"the connection to the store on {self.address} was lost") from error
        if isinstance(reply, hiredis.HiredisError):
            raise rejected(self.address, kind_of(told := str(reply)), told) from reply
        return reply

    async def _laid(self) -> Wire:
        try:
            async with asyncio.timeout(self._connect), self._laying:  # who waits for another waits no longer for that
                if self._wire is None or not self._wire.open:
                    self._wire = await self._lay()
                return self._wire
        except TimeoutError as error:
            raise Unreached(f"the store on {self.address} cannot be reached in time") from error
        except OSError as error:
            raise NotDone(f"the store on {self.address} cannot be reached") from error

    async def _lay(self) -> Wire:
        target, loop = self._target, asyncio.get_running_loop()
        greeting = target.greeting(await self._password_now())
        if target.path:
            _, wire = await loop.create_unix_connection(Wire, target.path)
        else:
            _, wire = await loop.create_connection(Wire, target.host, target.port, ssl=target.tls)
        try:
            for reply in await asyncio.gather(*[wire.say(*words) for words in greeting]):
                if isinstance(reply, hiredis.HiredisError):
                    raise rejected(self.address, kind_of(told := str(reply)), told) from reply
            if self._closed:  # meanwhile, by somebody who found nothing to close yet
                raise NotDone(f"the store on {self.address} is closed")
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _password_now(self) -> str:
        try:
            return await self._password()
        except StoreError:
            raise
        except Exception as error:
            problem = f"the password for the store on {self.address} cannot be had ({type(error).__name__})"
            raise NotDone(problem) from error

    def leave(self) -> None:
        """Let who asks from now on have another connection."""
        if self._wire is not None:
            self._wire.leave()

    async def aclose(self) -> None:
        """Close the connection, and make no other."""
        self._closed = True
        if self._wire is not None and self._wire.open:
            await self._wire.aclose()
