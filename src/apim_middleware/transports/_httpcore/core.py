"""What is used of httpcore, or of httpcore2, which has the same under the same names; and where its errors end."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, Protocol, Self

from apim_middleware.errors import ConnectFailed, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.types import RawHeaders


class Response(Protocol):
    """A response whose head is known."""

    status: int
    headers: RawHeaders
    stream: Any

    @property
    def extensions(self) -> Mapping[str, Any]:
        """What else is known of it."""
        ...

    async def aclose(self) -> None:
        """The exchange is over."""
        ...


class Connection(Protocol):
    """One connection to one origin."""

    async def handle_async_request(self, request: Any, /) -> Response:  # noqa: ANN401 - of either library
        """Send a request, and return when the head of the response is there."""
        ...

    def is_idle(self) -> bool:
        """Whether no exchange is under way."""
        ...

    def has_expired(self) -> bool:
        """Whether it was kept for too long, or the upstream has hung up."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Stream(Protocol):
    """Where the bytes of a connection go to and come from."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """The next bytes; none at the end."""
        ...

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send bytes."""
        ...

    async def start_tls(self, *args: Any, **options: Any) -> "Stream":  # noqa: ANN401
        """This stream, encrypted from now on."""
        ...

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401
        """What is known of it."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Network(Protocol):
    """Makes streams."""

    async def connect_tcp(self, *args: Any, **options: Any) -> Stream:  # noqa: ANN401
        """Connect over TCP."""
        ...

    async def connect_unix_socket(self, *args: Any, **options: Any) -> Stream:  # noqa: ANN401
        """Connect to a Unix socket."""
        ...


class Core(NamedTuple):
    """Classes and functions of the library, and its errors by what they mean."""

    context: Callable[[ssl.SSLContext | bool], ssl.SSLContext]
    connection: Callable[..., Connection]
    network: Callable[[], Network]
    origin: Callable[[bytes, bytes, int], object]
    url: Callable[..., object]
    request: Callable[..., object]
    unreachable: tuple[type[Exception], ...]
    slow: type[Exception]
    unwritable: type[Exception]
    broken: tuple[type[Exception], ...]
    unwanted: type[Exception]
    """The error of a write after which a connection goes on to read the response."""

    @classmethod
    def of(cls, core: ModuleType, client: ModuleType) -> Self:
        """What is used of ``core``, and of the client it comes with: httpcore and httpx, or httpcore2 and httpx2."""
        return cls(
            context=partial(client.create_ssl_context, trust_env=False),
            connection=core.AsyncHTTPConnection,
            network=core.AnyIOBackend,  # runs on trio as well
            origin=core.Origin,
            url=core.URL,
            request=core.Request,
            unreachable=(core.ConnectError, core.ConnectTimeout, core.UnsupportedProtocol),
            slow=core.TimeoutException,
            unwritable=core.LocalProtocolError,
            broken=(core.NetworkError, core.ProtocolError, core.ConnectionNotAvailable, ssl.SSLError),
            unwanted=core.WriteError,
        )

    @contextmanager
    def border(self) -> Iterator[None]:
        """Where the library's errors become ours."""
        try:
            yield
        except self.unreachable as error:
            raise ConnectFailed(f"no connection to the upstream: {error or 'timed out'}") from error
        except self.slow as error:
            raise UpstreamTimeout("the upstream took too long") from error
        except self.unwritable as error:
            raise TransportError("the request cannot be written") from error
        except self.broken as error:
            # not the error's own words: those of a parser hold what the upstream sent, cookies and all
            raise UpstreamBroken(f"the exchange with the upstream broke off: {type(error).__name__}") from error
