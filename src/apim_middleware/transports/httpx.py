"""The way to an upstream on the connections under httpx: HTTP/1.1, and HTTP/2 where wanted, on asyncio and trio.

It uses httpx's connections (httpcore), not ``httpx.AsyncHTTPTransport`` around them, for what cannot be had from
above: bytes beyond a response never reach the next one, an answer is heard while the request body is still on its way,
interim responses are bounded, and a free connection is found without walking all of them.

``HttpxTransport`` sends, ``_Pool`` keeps the free lines of one event loop, ``_Line`` is one connection in the hands of
one exchange, ``_Wire`` is the bytes of that connection, ``_Answer`` the response.
"""

import re
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any, Self, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import httpcore
import httpx

from apim_middleware._http.headers import get
from apim_middleware.errors import ConfigError, ConnectFailed, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._framing import body_of, length_of
from apim_middleware.transports._origins import parsed
from apim_middleware.transports._requests import framing, repeatable
from apim_middleware.transports._strictness import MAX_FIELDS, MAX_HEAD, check_breaks, check_lengths, check_text
from apim_middleware.types import RawHeaders

Reach: TypeAlias = Callable[[bytes], int]
"""How many of these bytes of a connection still belong to the response."""

Connection: TypeAlias = Callable[[httpcore.Origin, "_Wire"], httpcore.AsyncHTTPConnection]
"""A new connection to an origin, over this wire."""

_READ = 65536
_BLANK_LINE = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/\d\.\d 1(?!01)\d\d[ \r\n]")


class HttpxTransport:
    """Asks upstreams over pooled keep-alive connections; adds nothing to a request and decodes nothing of a response.

    ``verify`` is True (the usual certificate authorities), False (no check: for tests), or an SSL context of your own.
    ``http2`` lets TLS upstreams choose HTTP/2 (needs httpx's extra ``http2``), one exchange at a time on a connection.
    ``max_connections`` are in use at once; a request that gets none within its ``connect`` seconds is ConnectFailed.
    ``max_idle`` are kept open between requests, each for ``idle`` seconds: less than the five after which many servers
    hang up, so that a request seldom meets a closing connection.
    ``uds`` is the path of a Unix socket to connect to, whatever the request's origin.
    ``admits`` says of an address, as text, whether it may be connected to: the first address of a name that it admits
    is dialled. Without one it is ConnectFailed.

    A response whose framing is ambiguous (RFC 9112 §6.3), whose status is outside 200 to 599, or whose head is larger
    than 64 KiB or 256 lines is UpstreamBroken. Interim responses are passed over. An answer that comes while the
    request body is still being sent ends the sending (HTTP/1.1 only), and the connection with it.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        http2: bool = False,
        max_connections: int = 1000,
        max_idle: int = 100,
        idle: float = 4.0,
        uds: str | None = None,
        admits: Callable[[str], bool] | None = None,
    ) -> None:
        """Nothing is opened before the first request."""
        if http2 and find_spec("h2") is None:
            raise ConfigError("HttpxTransport", "http2", "True needs the package h2", "Install httpx[http2]")
        tls = httpx.create_ssl_context(verify, trust_env=False)

        def connection(origin: httpcore.Origin, wire: _Wire) -> httpcore.AsyncHTTPConnection:
            wire.admits = admits
            return httpcore.AsyncHTTPConnection(
                origin, tls, keepalive_expiry=idle, http2=http2, uds=uds, network_backend=wire
            )

        self._new_pool = partial(_Pool, max_connections, max_idle, connection)
        self._pools: anyio.lowlevel.RunVar[_Pool] = anyio.lowlevel.RunVar("apim_middleware.connections")

    async def send(self, request: UpstreamRequest) -> "_Answer":
        """Send the request and return once the response head is known. Raises TransportError.

        A request that is safe to repeat is repeated once, on a new connection, when a kept one turns out to be dead.
        """
        pool = self._pool()
        line = await pool.take(request)
        try:
            return await line.ask(request)
        except UpstreamBroken:
            if not (line.was_dead and repeatable(request)):
                raise
        return await (await pool.take(request, fresh=True)).ask(request)

    async def aclose(self) -> None:
        """Close every pooled connection of this event loop; those in use close when their exchange ends."""
        pool = self._pools.get(None)
        if pool is not None:
            await pool.aclose()

    def _pool(self) -> "_Pool":
        pool = self._pools.get(None)
        if pool is None or pool.closed:
            pool = self._new_pool()
            self._pools.set(pool)
        return pool


def _origin(text: str) -> httpcore.Origin:
    parts = parsed(text)
    return httpcore.Origin(parts.scheme.encode(), parts.host.encode(), parts.port)


@contextmanager
def _border() -> Iterator[None]:
    """Where the library's errors become ours."""
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.UnsupportedProtocol) as error:
        raise ConnectFailed(f"no connection to the upstream: {error or 'timed out'}") from error
    except httpcore.TimeoutException as error:
        raise UpstreamTimeout("the upstream took too long") from error
    except httpcore.LocalProtocolError as error:
        raise TransportError("the request cannot be written") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
        # not the error's own words: those of a parser hold what the upstream sent, cookies and all
        raise UpstreamBroken(f"the exchange with the upstream broke off: {type(error).__name__}") from error


class _Pool:
    """The connections of one event loop."""

    def __init__(self, most: int, most_idle: int, connection: Connection) -> None:
        self._room = anyio.Semaphore(most, fast_acquire=True)
        self._most_idle = most_idle
        self._connection = connection
        self._idle: defaultdict[str, deque[_Line]] = defaultdict(deque)
        self._idle_count = 0
        self.closed = False

    async def take(self, request: UpstreamRequest, *, fresh: bool = False) -> "_Line":
        """A line to the origin: the one used last, for it is the least likely to be closing, or a new one."""
        try:
            with anyio.fail_after(request.connect):
                await self._room.acquire()
        except TimeoutError as error:
            raise ConnectFailed("every connection is in use") from error
        try:
            line = None if fresh else await self._free(request.origin)
            return line or _Line(self, request.origin, self._connection)
        except BaseException:
            self._room.release()
            raise

    async def give_back(self, line: "_Line") -> None:
        """Take a line back when its exchange has ended, and close it unless it can carry another."""
        self._room.release()
        if line.reusable and not self.closed and self._idle_count < self._most_idle:
            self._idle[line.origin].append(line)
            self._idle_count += 1
        else:
            await line.aclose()

    async def aclose(self) -> None:
        """Close what is idle now, and what comes back later."""
        self.closed = True
        idle, self._idle, self._idle_count = self._idle, defaultdict(deque), 0
        for lines in idle.values():
            for line in lines:
                await line.aclose()

    async def _free(self, origin: str) -> "_Line | None":
        while lines := self._idle.get(origin):
            line = lines.pop() if lines[0].reusable else lines.popleft()  # the oldest go stale first
            self._idle_count -= 1
            if not lines:
                del self._idle[origin]
            if line.reusable:
                return line
            await line.aclose()
        return None


class _Line:
    """One connection to one origin, in the hands of one exchange at a time."""

    def __init__(self, pool: _Pool, origin: str, connection: Connection) -> None:
        self.origin = origin
        self.wire = _Wire()
        self._pool = pool
        self._connection = connection(_origin(origin), self.wire)
        self._asked = 0

    @property
    def reusable(self) -> bool:
        """Whether the last exchange ended cleanly and the connection is still good."""
        return self.wire.clean and self._connection.is_idle() and not self._connection.has_expired()

    @property
    def was_dead(self) -> bool:
        """Whether this was a kept connection on which nothing at all came back."""
        return self._asked > 1 and self.wire.silent

    async def ask(self, request: UpstreamRequest) -> "_Answer":
        """Send the request and wait for the head. Whatever fails, the line is given back."""
        self._asked += 1
        self.wire.begin(request)
        try:
            with _border():
                response = await self._exchange(request)
            answer = _Answer(self, response)
            if not self.wire.bare:
                self.wire.expect(_reach(request.method, answer))
        except BaseException:
            await self.release()
            raise
        return answer

    async def _exchange(self, request: UpstreamRequest) -> httpcore.Response:
        if not isinstance(request.body, AsyncIterable):
            whole = None if request.body is None else _Whole(request.body)
            return await self._connection.handle_async_request(_core_request(request, whole))
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            upload = _Upload(request.body, request.length, self.wire, tasks)
            try:
                response = await self._connection.handle_async_request(_core_request(request, upload))
            except Exception as error:  # kept out of the task group, which would wrap it
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return response

    async def release(self) -> None:
        """Give the line back, whether or not its task is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._pool.give_back(self)

    async def aclose(self) -> None:
        """Close the connection."""
        with anyio.CancelScope(shield=True):
            await self._connection.aclose()
            await self.wire.aclose()


def _core_request(request: UpstreamRequest, content: "_Whole | _Upload | None") -> httpcore.Request:
    origin = _origin(request.origin)
    url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=request.target)
    write = request.read if request.write is None else request.write
    timeouts = {"connect": request.connect, "read": request.read, "write": write}
    return httpcore.Request(
        request.method, url, headers=_framed(request), content=content, extensions={"timeout": timeouts}
    )


def _framed(request: UpstreamRequest) -> RawHeaders:
    """The header lines as given, with a Host when there is none, and with the framing of the body."""
    headers = [*request.headers, *framing(request)]
    if get(headers, b"host") is None:
        headers.insert(0, (b"host", parsed(request.origin).authority))
    return headers


async def _admitted(admits: Callable[[str], bool], host: str, port: int, seconds: float | None) -> str:
    """The first address of a name that may be connected to; what is judged here is what is dialled."""
    try:
        with anyio.fail_after(seconds):
            found = await anyio.getaddrinfo(host, port)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    for *_, address in found:
        if admits(str(address[0])):
            return str(address[0])
    raise httpcore.ConnectError("the upstream's name leads to no address that may be connected to")


class _Whole:
    """A request body that is there; the library's own would be a generator, which trio misses when it is forgotten."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body] if body else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


class _Upload:
    """The request body on its way, which stops when the answer is there before its end."""

    def __init__(
        self, body: AsyncIterable[bytes], length: int | None, wire: "_Wire", tasks: anyio.abc.TaskGroup
    ) -> None:
        self._chunks = aiter(body)
        self._left = length
        self._wire = wire
        self._tasks: anyio.abc.TaskGroup | None = tasks

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._tasks is not None and not self._wire.bare:
            self._wire.listen(self._tasks)
        self._tasks = None
        return self

    async def __anext__(self) -> bytes:
        chunk: bytes | None = b""
        while not chunk:
            if self._left == 0:  # all is sent, so an answer is no reason to miss the end
                chunk = await anext(self._chunks, None)
            else:
                with self._wire.unless_answered():
                    chunk = await anext(self._chunks, None)
            if chunk is None:
                break
        if self._left is not None:
            self._left -= len(chunk or b"")
            if self._left < 0 or (self._left and chunk is None):
                raise TransportError("the request body is not as long as announced")
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class _Wire(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """The bytes of one connection, handed out one message at a time.

    httpcore reads as much as comes. Here it gets the final head, then the body and not a byte more, so that what
    follows a response uninvited stays behind and spoils the connection instead of the next response.
    """

    bare = False  # HTTP/2 frames its messages itself
    admits: Callable[[str], bool] | None = None

    def __init__(self) -> None:
        self._net = httpcore.AnyIOBackend()  # runs on trio as well
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._kept, self._cut = b"", False

    def begin(self, request: UpstreamRequest) -> None:
        """A new exchange begins."""
        self._tls, self._first_byte = request.tls, request.first_byte
        self.silent = True
        self._kept = b""
        self._head_end = 0
        self._reach: Reach | None = None
        self._listening: anyio.Event | None = None
        self._failure: Exception | None = None
        self._answered = self._cut = False
        self._step: anyio.CancelScope | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing is left over, of the request or of the response."""
        return self._stream is not None and not self._kept and not self._cut

    def expect(self, reach: Reach) -> None:
        """The head is known, and with it how far the response reaches."""
        self._reach = reach

    # Making the connection: the signatures are the library's

    async def connect_tcp(self, *args: Any, **options: Any) -> Self:  # noqa: ANN401
        """Connect over TCP."""
        if self.admits is not None:
            options["host"] = await _admitted(self.admits, options["host"], options["port"], options["timeout"])
        self._stream = await self._net.connect_tcp(*args, **options)
        return self

    async def connect_unix_socket(self, *args: Any, **options: Any) -> Self:  # noqa: ANN401
        """Connect to a Unix socket."""
        self._stream = await self._net.connect_unix_socket(*args, **options)
        return self

    async def start_tls(self, *args: Any, **options: Any) -> Self:  # noqa: ANN401
        """Go on encrypted."""
        if self._tls is not None:
            options["timeout"] = self._tls
        self._stream = await self._connected.start_tls(*args, **options)
        self.bare = self.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        return self

    @property
    def _connected(self) -> httpcore.AsyncNetworkStream:
        if self._stream is None:
            raise httpcore.ReadError("the connection is closed")
        return self._stream

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the signature of the library
        """What is known of the connection."""
        return self._connected.get_extra_info(info)

    async def aclose(self) -> None:
        """Close it; reading fails from now on."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    # Sending

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send bytes, unless the answer is there."""
        if not buffer:
            return  # the end of a body of known length
        with self.unless_answered():
            await self._connected.write(buffer, timeout)

    @contextmanager
    def unless_answered(self) -> Iterator[None]:
        """Let the request take its next step, unless the answer is there or comes meanwhile.

        A request broken off is told as WriteError, after which httpcore goes on to read the response.
        """
        self._cut = True  # until the step is done
        with anyio.CancelScope() as self._step:
            if not self._answered:
                yield
                self._cut = False
        if self._cut:
            raise httpcore.WriteError("answered before the request was sent")

    def listen(self, tasks: anyio.abc.TaskGroup) -> None:
        """While the request is on its way: hear the answer, and then stop the sending."""
        self._listening = anyio.Event()
        tasks.start_soon(self._listen, self._listening)

    async def _listen(self, heard: anyio.Event) -> None:
        try:
            await self._gather_head()
        except Exception as error:  # for whoever reads next
            self._failure = error
        heard.set()
        self._answered = True
        if self._step is not None:
            self._step.cancel()

    # Receiving

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """The next bytes of the response; the whole head has to come within one timeout."""
        if self.bare:
            return await self._connected.read(max_bytes, timeout)
        if self._reach is not None:
            return await self._read_body(self._reach, timeout)
        try:
            with anyio.fail_after(timeout if self._first_byte is None else self._first_byte):
                await (self._gather_head() if self._listening is None else self._listening.wait())
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no response head") from error
        self._listening = None
        if self._failure is not None:
            raise self._failure
        return self._hand_out(self._head_end)

    async def _read_body(self, reach: Reach, seconds: float | None) -> bytes:
        self._kept = self._kept or await self._more(seconds)
        return self._hand_out(reach(self._kept))

    def _hand_out(self, count: int) -> bytes:
        data, self._kept = self._kept[:count], self._kept[count:]
        return data

    async def _more(self, seconds: float | None) -> bytes:
        data = await self._connected.read(_READ, seconds)
        if data:
            self.silent = False
        return data

    async def _gather_head(self) -> None:
        """Read until the final head is whole, passing over interim ones (RFC 9110 §15.2), or the upstream hangs up."""
        room, begin, searched = MAX_HEAD, 0, 0
        while True:
            blank = _BLANK_LINE.search(self._kept, max(begin, searched - 3))
            if (blank.end() if blank else len(self._kept)) > room:
                raise httpcore.RemoteProtocolError("the response head is larger than allowed")
            if blank is None:
                searched = len(self._kept)
                data = await self._more(None)
                self._kept += data
                if data:
                    continue
            elif _INTERIM.match(self._kept, begin):
                begin = searched = blank.end()
                continue
            self._kept = self._kept[begin:]
            self._head_end = blank.end() - begin if blank else len(self._kept)
            if blank is not None:
                raw = self._kept[: self._head_end]
                check_breaks(raw)
                check_text(raw)
                check_lengths(raw)
            return


class _Answer:
    """The response: the head is known, the body flows when iterated."""

    def __init__(self, line: _Line, response: httpcore.Response) -> None:
        self.status = response.status
        self.latest = response.extensions.get("http_version") != b"HTTP/1.0"
        self.headers: RawHeaders = [(name.lower(), value) for name, value in response.headers]
        if not 200 <= self.status <= 599:
            raise UpstreamBroken(f"the upstream answered with status {self.status}")
        if len(self.headers) > MAX_FIELDS:  # of HTTP/2
            raise UpstreamBroken("the response head has more lines than allowed")
        self._line: _Line | None = line
        self._wire = line.wire
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None
        self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if self._chunks is None:
            self._chunks = aiter(_stream(self._response))
        try:
            with _border():
                return await anext(self._chunks)
        except BaseException:
            self._over = True
            raise

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        line, self._line = self._line, None
        if line is None:
            return
        with anyio.CancelScope(shield=True):
            if self._chunks is not None and not self._over:
                await self._break_off(self._chunks)
            await self._response.aclose()
            await line.release()

    async def _break_off(self, chunks: AsyncIterator[bytes]) -> None:
        """End the generators of the library from within: left to the collector, trio warns of each."""
        self._over = True
        await self._wire.aclose()
        with suppress(httpcore.NetworkError, httpcore.ProtocolError):
            async for _ in chunks:
                pass


def _stream(response: httpcore.Response) -> AsyncIterable[bytes]:
    if not isinstance(response.stream, AsyncIterable):
        raise UpstreamBroken("the response has no body to read")
    return response.stream


def _reach(method: str, answer: _Answer) -> Reach:
    index = dict(answer.headers)
    body = body_of(length_of(method, answer.status, answer.headers, index, latest=answer.latest), index)
    return lambda data: body.take(data, [])
