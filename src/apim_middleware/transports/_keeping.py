"""The connections of one event loop: who gets one, who waits for one, and how long a free one is kept."""

import asyncio
import contextvars
from collections import OrderedDict
from math import inf
from typing import NamedTuple

from apim_middleware.errors import ConnectFailed, NoConnectionFree
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._connection import Connection
from apim_middleware.transports._dialling import Dialling
from apim_middleware.transports._origins import parsed


class Limits(NamedTuple):
    """How many connections there may be to one origin, how many may wait for one, and how long free ones are kept."""

    max_connections: int
    max_idle: int
    max_waiting: int
    idle: float


class _Place:
    """What there is of one origin."""

    __slots__ = ("free", "open", "origin", "waiting")

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.free: OrderedDict[Connection, None] = OrderedDict()  # the one used last at the end
        self.open = 0  # free ones, those in use, those being made
        self.waiting: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()


class Pool:
    """The connections of one event loop. Nothing awaits between looking and taking, so there is nothing to lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, dialling: Dialling) -> None:
        """Nothing is open yet."""
        self.loop = loop
        self.closed = False
        self._max_connections, self._max_idle, self._max_waiting, self._idle = limits
        self._dialling = dialling
        self._places: dict[str, _Place] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many there are, those being made included."""
        return sum(place.open for place in self._places.values())

    def free(self, origin: str) -> Connection | None:
        """The free connection used last, for it is the least likely to be closing; None when there is none."""
        place = self._places.get(origin)
        while place is not None and place.free:
            connection, _ = place.free.popitem()
            if self.loop.time() - connection.idle_since < self._idle and connection.reusable():
                return connection
            connection.close()
        return None

    async def take(self, request: UpstreamRequest) -> Connection:
        """A new connection, or, where there are as many as there may be, one in turn. Raises ConnectFailed."""
        while True:
            place = self._places.get(request.origin) or self._new_place(request.origin)
            if place.open < self._max_connections:
                place.open += 1
                return await self._dial(request)
            if place.free:  # which this request does not want
                next(iter(place.free)).close()
                continue
            handed = await self._turn(place, request.connect)
            if handed is None:
                return await self._dial(request)
            if handed.reusable():
                return handed
            handed.close()

    def _new_place(self, origin: str) -> _Place:
        parsed(origin)  # which says so if it is none
        self._places[origin] = place = _Place(origin)
        return place

    async def _dial(self, request: UpstreamRequest) -> Connection:
        """Make a connection, for which there is a place already."""
        connection = Connection(self.loop, self, request.origin)
        tls = request.connect if request.tls is None else request.tls
        try:
            await self._dialling.dial(connection, parsed(request.origin), request.connect, tls)
            if connection.closed:
                raise ConnectFailed("no connection to the upstream: it hung up")
        except BaseException:
            connection.abort()
            raise
        return connection

    # Taking turns

    async def _turn(self, place: _Place, seconds: float | None) -> Connection | None:
        """Wait for a connection, or for a place to make one. Raises NoConnectionFree."""
        if len(place.waiting) >= self._max_waiting:
            raise NoConnectionFree("every connection is in use, and too many requests wait for one")
        turn: asyncio.Future[Connection | None] = self.loop.create_future()
        place.waiting[turn] = None
        try:
            async with asyncio.timeout(None if seconds == inf else seconds):
                return await turn
        except BaseException as error:
            place.waiting.pop(turn, None)
            if turn.done() and not turn.cancelled():  # it came too late for this one
                self._take_back(place, turn.result())
            if isinstance(error, TimeoutError):
                raise NoConnectionFree("every connection is in use") from error
            raise

    def _take_back(self, place: _Place, connection: Connection | None) -> None:
        if connection is None:
            self._leave(place)
        elif not connection.closed:
            self.give_back(connection)

    def _next(self, place: _Place) -> "asyncio.Future[Connection | None] | None":
        """Whose turn it is; those given up in this very tick have not left the queue themselves yet."""
        while place.waiting:
            turn, _ = place.waiting.popitem(last=False)
            if not turn.done():
                return turn
        return None

    def _leave(self, place: _Place) -> None:
        """One connection fewer: the next in the queue may make another."""
        if (turn := self._next(place)) is not None:
            turn.set_result(None)
            return
        place.open -= 1
        if not place.open:
            del self._places[place.origin]

    # What connections tell

    def give_back(self, connection: Connection) -> None:
        """A connection is free: it goes to the next in the queue, or is kept."""
        place = self._places[connection.origin]
        free = place.free
        if self.closed or len(free) >= self._max_idle:
            connection.close()
        elif place.waiting and (turn := self._next(place)) is not None:
            turn.set_result(connection)
        else:
            free[connection] = None
            if self._timer is None:
                self._wind(connection.idle_since)

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        place = self._places[connection.origin]
        place.free.pop(connection, None)
        self._leave(place)

    # Time

    def _wind(self, oldest: float) -> None:
        at = oldest + self._idle
        if at != inf:
            self._timer = self.loop.call_at(at, self._sweep, context=contextvars.Context())

    def _sweep(self) -> None:
        """Close what has been free for too long."""
        self._timer = None
        deadline = self.loop.time() - self._idle
        for place in list(self._places.values()):
            while place.free and (oldest := next(iter(place.free))).idle_since <= deadline:
                oldest.close()
        since = [next(iter(place.free)).idle_since for place in self._places.values() if place.free]
        if since:
            self._wind(min(since))

    async def aclose(self) -> None:
        """Close what is free now, and from now on what comes back."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        free = [connection for place in self._places.values() for connection in place.free]
        for connection in free:
            connection.close()
        if free:
            await asyncio.wait([connection.gone for connection in free])


class Pools:
    """A pool for each event loop."""

    def __init__(self, limits: Limits, dialling: Dialling) -> None:
        """None is made yet."""
        self._limits, self._dialling = limits, dialling
        self._made: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._latest: Pool | None = None

    def others(self) -> "Pools":
        """Pools of the same kind, whose connections are counted for themselves."""
        return Pools(self._limits, self._dialling)

    def here(self) -> Pool:
        """The pool of the running event loop. Raises RuntimeError when it is none of asyncio."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise RuntimeError("Http1Transport needs asyncio; HttpxTransport runs on trio as well") from error
        pool = self._latest
        if pool is None or pool.loop is not loop or pool.closed:
            self._latest = pool = self._made.get(loop) or self._new(loop)
        return pool

    async def aclose(self) -> None:
        """Close what is free in that of the running event loop, and from now on what comes back."""
        pool = self._made.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()

    def _new(self, loop: asyncio.AbstractEventLoop) -> Pool:
        for each in [each for each in self._made if each.is_closed()]:  # nobody said goodbye there
            del self._made[each]
        self._made[loop] = pool = Pool(loop, self._limits, self._dialling)
        return pool
