"""Services that give tokens and secrets, as transports: what they are asked, what they say, and how they fail."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import anyio
import anyio.lowlevel

from apim_middleware.errors import ConnectFailed
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.testing import FakeClock
from apim_middleware.types import RawHeaders


class Said:
    """An answer, whole."""

    def __init__(self, status: int, body: bytes, headers: RawHeaders) -> None:
        self.status, self.headers = status, headers
        self._chunks = [body]
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop()

    async def aclose(self) -> None:
        self.closed = True


class Service:
    """Answers what ``says`` says, and counts; it can be away, hang, and be of another opinion."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[UpstreamRequest] = []
        self.away = False
        self.hanging: anyio.Event | None = None
        self.status = 200
        self.raw: bytes | None = None
        self.headers: RawHeaders = []
        self.answers: list[Said] = []

    @property
    def times(self) -> int:
        return len(self.asked)

    def form(self, number: int = -1) -> dict[str, str]:
        body = self.asked[number].body
        assert isinstance(body, bytes)
        return dict(parse_qsl(body.decode(), strict_parsing=True))

    def header(self, name: bytes, number: int = -1) -> bytes | None:
        return dict(self.asked[number].headers).get(name)

    def query(self, number: int = -1) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.asked[number].target.decode()).query)

    def says(self, request: UpstreamRequest) -> dict[str, Any]:
        raise NotImplementedError

    async def send(self, request: UpstreamRequest) -> Said:
        self.asked.append(request)
        await anyio.lowlevel.checkpoint()
        if self.hanging is not None:
            await self.hanging.wait()
        if self.away:
            raise ConnectFailed("connection refused")
        body = json.dumps(self.says(request)).encode() if self.raw is None else self.raw
        self.answers.append(Said(self.status, body, self.headers))
        return self.answers[-1]

    async def aclose(self) -> None:
        """Nothing is open."""


class Issuer(Service):
    """A token endpoint: each token is another one, good for ``life`` seconds."""

    life: Any = 3600
    error: dict[str, Any] | None = None
    token_type = "Bearer"
    made = 0

    def says(self, request: UpstreamRequest) -> dict[str, Any]:
        if self.error is not None:
            return self.error
        self.made += 1
        token = {"access_token": f"token-{self.made}", "token_type": self.token_type}
        return token if self.life is None else {**token, "expires_in": self.life}


class Metadata(Service):
    """Azure's ways to a managed identity, and a vault behind it."""

    secret = "vault-secret-1"
    attributes: dict[str, Any] | None = None
    made = 0

    def says(self, request: UpstreamRequest) -> dict[str, Any]:
        if request.target.startswith(b"/secrets/"):
            return {"value": self.secret, "id": "x", "attributes": self.attributes or {"enabled": True}}
        self.made += 1
        ends = int(self.clock.now()) + 3600
        return {"access_token": f"identity-{self.made}", "expires_on": str(ends), "token_type": "Bearer"}


async def until(there: Callable[[], object]) -> None:
    """Let what runs in the background go on until something is so, and come to rest."""
    for _ in range(1_000):
        if there():
            break
        await anyio.lowlevel.checkpoint()
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
