"""Upstreams that do as a test says, without sockets: for what a proxy decides, not for what goes over the wire."""

import json
from collections import Counter, defaultdict

import anyio

from apim_middleware.errors import ConnectFailed
from apim_middleware.testing import Answer, http_scope


class Said:
    """A response that is there."""

    def __init__(self, status=200, headers=(), body=b"ok", breaks=None):
        self.status, self.headers = status, list(headers)
        self.closed = False
        self._parts, self._breaks = [body], breaks

    def bare(self):
        """It has no body after all."""
        self._parts = []

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._parts:
            return self._parts.pop()
        if self._breaks is not None:
            raise self._breaks
        raise StopAsyncIteration

    async def aclose(self):
        self.closed = True


class Scripted:
    """A transport: each host answers with what it was told to, the last of it again and again; 200 by default.

    It can be told a status, headers with it, an error, a response, or an async function of the request.
    """

    def __init__(self, **told):
        self.told = {host: list(each) if isinstance(each, list) else [each] for host, each in told.items()}
        self.asked = []
        self.bodies = defaultdict(list)
        self.said = []
        self.closed = False

    async def send(self, request):
        host = request.origin.removeprefix("http://")
        self.asked.append(host)
        lines = self.told.get(host, [200])
        what = lines[0] if len(lines) == 1 else lines.pop(0)
        if isinstance(what, Exception):  # nothing is sent of what never connected, all of it of the others
            if not isinstance(what, ConnectFailed):
                await self._take(host, request)
            raise what
        await self._take(host, request)
        if callable(what):
            what = await what(request)
        said = Said(*what) if isinstance(what, tuple) else what if isinstance(what, Said) else Said(what)
        if request.method == "HEAD":
            said.bare()
        self.said.append(said)
        return said

    async def _take(self, host, request):
        body = request.body
        if body is not None and not isinstance(body, bytes):
            body = b"".join([chunk async for chunk in body])
        self.bodies[host].append(body)

    async def aclose(self):
        self.closed = True

    @property
    def counts(self):
        """How often each host was asked."""
        return Counter(self.asked)


async def ask(app, method="GET", path="/", *, headers=(), body=(), **more):
    """Make an exchange, whose client waits for its end."""
    answer = Answer()
    chunks = [body] if isinstance(body, bytes) else list(body)
    inbox = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks or [b""], 1)
    ]

    async def receive():
        return inbox.pop(0) if inbox else await anyio.sleep_forever()

    async def send(message):
        answer.messages.append(message)

    with anyio.fail_after(10):
        await app(http_scope(method, path, headers=headers, **more), receive, send)
    return answer


def problem(answer):
    """The status and code of an answer of the proxy's own."""
    assert answer.header(b"content-type") == b"application/problem+json"
    return answer.status, json.loads(answer.body)["code"]
