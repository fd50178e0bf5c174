"""The bytes of one connection, as the library gets them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeAlias

import anyio
import anyio.abc

from apim_middleware.errors import ConnectFailed, UpstreamBroken, UpstreamTimeout
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._httpcore.core import Core, Network, Stream
from apim_middleware.transports._resolving import Resolver
from apim_middleware.transports._strictness import MAX_HEAD, check_breaks, check_lengths, check_text

Reach: TypeAlias = Callable[[bytes], int]
"""How many of these bytes of a connection still belong to the response."""

_READ = 65536
_names = Resolver()
_BLANK_LINE = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/\d\.\d 1(?!01)\d\d[ \r\n]")


class Wire:
    """The bytes of one connection, handed out one message at a time.

    The library reads as much as comes. Here it gets the final head, then the body and not a byte more, so that what
    follows a response uninvited stays behind and spoils the connection instead of the next response.
    """

    bare = False  # HTTP/2 frames its messages itself

    def __init__(self, core: Core, admits: Callable[[str], bool] | None) -> None:
        """Nothing is connected yet."""
        self._net: Network = core.network()
        self._unwanted = core.unwanted
        self._admits = admits
        self._stream: Stream | None = None
        self._kept, self._cut = b"", False

    def begin(self, request: UpstreamRequest) -> None:
        """A new exchange begins."""
        self._tls, self._first_byte = request.tls, request.first_byte
        self.silent = True
        self.heard = False
        """Whether something came back over HTTP/2."""
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
        if self._admits is not None:
            options["host"] = await _admitted(self._admits, options["host"], options["port"], options["timeout"])
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
    def _connected(self) -> Stream:
        if self._stream is None:
            raise UpstreamBroken("the connection is closed")
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

        A request broken off is told as an error of writing, after which the library goes on to read the response.
        """
        self._cut = True  # until the step is done
        with anyio.CancelScope() as self._step:
            if not self._answered:
                yield
                self._cut = False
        if self._cut:
            raise self._unwanted("answered before the request was sent")

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
            data = await self._connected.read(max_bytes, timeout)
            self.heard = True
            return data
        if self._reach is not None:
            return await self._read_body(self._reach, timeout)
        try:
            with anyio.fail_after(timeout if self._first_byte is None else self._first_byte):
                await (self._gather_head() if self._listening is None else self._listening.wait())
        except TimeoutError as error:
            raise UpstreamTimeout("the upstream took too long") from error
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
                raise UpstreamBroken("the response head is larger than allowed")
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


async def _admitted(admits: Callable[[str], bool], host: str, port: int, seconds: float | None) -> str:
    """The first address of a name that may be connected to; what is judged here is what is dialled."""
    try:
        with anyio.fail_after(seconds):
            found = await _names.find(host, port)
    except TimeoutError as error:
        raise ConnectFailed("no connection to the upstream: timed out") from error
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"no connection to the upstream: {error}") from error
    for _, address in found:
        if admits(str(address[0])):
            return str(address[0])
    raise ConnectFailed("the upstream's name leads to no address that may be connected to")
