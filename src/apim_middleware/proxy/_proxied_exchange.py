"""One exchange under way: its request goes up, its response comes down, and neither waits in memory for the other."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial

import anyio

from apim_middleware._http import hops
from apim_middleware._http.headers import get_all
from apim_middleware.errors import ClientLeft, Refusal, TransportError, UpstreamBroken
from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.proxy._relaying import fail, looked_over, note, relayed
from apim_middleware.proxy._trouble import Troubled
from apim_middleware.proxy._watching import Watch, watched
from apim_middleware.proxy._writing import Writer
from apim_middleware.transports._answer import Answer
from apim_middleware.types import Message, RawHeaders, Receive, Scope, Send

_READS = ("GET", "HEAD")
_TRAILERS, _EARLY_HINT = "http.response.trailers", "http.response.early_hint"
_BEYOND = frozenset((_TRAILERS, _EARLY_HINT))


class ProxiedExchange:
    """One exchange: its request on the way up, its response on the way down."""

    __slots__ = ("_first", "_index", "_receive", "_request", "_scope", "_send", "_told", "_transport", "_writer")

    _first: Message | None
    """Of the request's body, when there is one: the first message, unless the client waits to be asked for it."""

    def __init__(
        self,
        transport: Transport,
        writer: Writer,
        request: UpstreamRequest,
        index: Mapping[bytes, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
        told: Troubled | None = None,
    ) -> None:
        """``writer`` has written the request, whose ``length`` and ``index`` are what the client said.

        ``told`` is who is told of failures, where that is not the writer.
        """
        self._transport, self._writer = transport, writer
        self._told: Troubled = told or writer
        self._request, self._index = request, index
        self._scope = scope
        self._receive, self._send = receive, send

    def run(self) -> Awaitable[None]:
        """Pass the request up and the response down, until both are through or the client has left."""
        request, scope = self._request, self._scope
        extensions = scope.get("extensions")
        if extensions and not _BEYOND.isdisjoint(extensions):
            self._use(extensions)
        if not self._has_no_body(request):
            return self._run_with_body()
        if request.length is not None:
            request.body = b""
        return watched(self._receive, self._pass, begun=True)

    async def _run_with_body(self) -> None:
        self._first = None if self._is_to_be_asked() else await self._receive()
        if self._first is None or self._first["type"] != "http.disconnect":
            await watched(self._receive, partial(self._pass, has_body=True))

    async def _pass(self, watch: Watch, *, has_body: bool = False) -> None:
        """Each chunk goes down when it comes; the one that makes the announced length full goes with the end.

        A body that is there already goes down as one.
        """
        response = head = None
        try:
            if has_body:
                self._decide_body(watch)
            response = await self._transport.send(self._request)
            if has_body:
                watch.begin()
            head, left = self._head(response)
            await self._send(head)
            last = response.whole() if type(response) is Answer else None
            if last is None:
                last = await self._pass_chunks(response, left)
            elif left is not None and len(last) != left:
                raise _other_length(len(last) - left)
            watch.stop()
            await self._send({"type": "http.response.body", "body": last, "more_body": False})
            if type(response) is not Answer:  # one that was read has parted with its connection
                await response.aclose()
            elif "trailers" in head:
                await self._pass_trailers(response)
            if (trouble := self._told.trouble).lasting:
                trouble.ended()
        except BaseException as error:
            try:
                if head is not None and isinstance(error, TransportError):
                    note(error, self._told.trouble, self._scope)
                if head is not None or not isinstance(error, (ClientLeft, TransportError, Refusal)):
                    raise
                if not isinstance(error, ClientLeft):
                    await fail(error, self._told.trouble, self._scope, self._send)
            finally:
                if response is not None:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()

    # The request's body

    def _has_no_body(self, request: UpstreamRequest) -> bool:
        """Whether that is certain at once (RFC 9112 §6.3).

        HTTP/2 needs no header to tell of a body, and a layer in front may have made one where a body can be expected.
        """
        if request.length is not None or request.method not in _READS:
            return request.length == 0
        return b"transfer-encoding" not in self._index and self._scope.get("http_version") in ("1.1", "1.0")

    def _is_to_be_asked(self) -> bool:
        """Whether the client waits to be asked for its body (RFC 9110 §10.1.1): when the upstream is there to take it.

        From others the first message is waited for, which mostly holds the whole body.
        """
        index = self._index
        return b"expect" in index and (self._request.length is not None or b"transfer-encoding" in index)

    def _decide_body(self, watch: Watch) -> None:
        request, first, length = self._request, self._first, self._request.length
        if first is None or first.get("more_body", False):
            request.body = _Body(self._receive, first, length, watch.begin)
            return
        body = first.get("body", b"")
        if length is not None and len(body) != length:
            raise _wrong_length()
        if not body and b"transfer-encoding" in self._index and b"upgrade" in self._index:
            raise _wrong_length()  # some servers lose it when an upgrade is offered
        if body or length is not None or b"transfer-encoding" in self._index:
            request.body = body
        watch.begin()

    # What only some servers can pass on

    def _use(self, extensions: Collection[str]) -> None:
        """Ask for trailers if the client wants any (RFC 9110 §6.5), and for early hints, where the server takes them.

        Clients of HTTP/1.0 know neither.
        """
        if self._scope.get("http_version") == "1.0":
            return
        self._request.trailers = _TRAILERS in extensions and hops.takes_trailers(self._scope["headers"])
        if _EARLY_HINT in extensions:
            self._request.early_hints = self._pass_hint

    async def _pass_hint(self, lines: RawHeaders) -> None:
        if links := get_all(lines, b"link"):
            await self._send({"type": _EARLY_HINT, "links": links})

    async def _pass_trailers(self, response: Answer) -> None:
        nominated = hops.nominated(response.headers)
        lines = [line for line in response.trailers if hops.may_trail(line[0]) and line[0] not in nominated]
        await self._send({"type": _TRAILERS, "headers": lines, "more_trailers": False})

    # The response

    def _head(self, response: UpstreamResponse) -> tuple[Message, int | None]:
        """The head for the client, and how long the body has to be, where that is known. Raises UpstreamBroken.

        It says so when trailers may follow: only bodies in chunks have any (RFC 9112 §7.1.2).
        """
        if self._writer.direct and type(response) is Answer:  # nobody can have changed what our transport has looked at
            lines, index = response.headers, response.index
            left = response.length
        else:
            lines, index, left = looked_over(response, head_only=self._request.method == "HEAD")
        status = response.status
        via = self._writer.via if getattr(response, "latest", True) else self._writer.via_old
        headers = relayed(status, lines, index, via)
        head: Message = {"type": "http.response.start", "status": status, "headers": headers}
        if left is None and self._request.trailers and type(response) is Answer and b"transfer-encoding" in index:
            head["trailers"] = True
            headers += hops.announced(lines)
        return head, left

    async def _pass_chunks(self, response: UpstreamResponse, left: int | None) -> bytes:
        """Pass down what comes, but for what goes with the end: that is given back."""
        send, last = self._send, b""
        async for chunk in response:
            if left is not None:
                left -= len(chunk)
                if left < 0:
                    raise _other_length(-left)
                if left == 0:
                    last += chunk
                    continue
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if left:
            raise _other_length(-left)
        return last


def _other_length(excess: int) -> UpstreamBroken:
    return UpstreamBroken(f"the upstream sent {'more' if excess > 0 else 'less'} than it had announced")


def _wrong_length() -> Refusal:
    """Where the next request on this connection begins, only the server may know: there is to be none."""
    detail = "The request body is not as long as announced."
    return Refusal(400, "bad-framing", detail, headers={"connection": "close"})


class _Body:
    """The client's body on its way up. It ends only when the client has ended it: half of one is never whole."""

    __slots__ = ("_first", "_left", "_over", "_receive", "_then")

    def __init__(self, receive: Receive, first: Message | None, length: int | None, then: Callable[[], None]) -> None:
        """``then`` is called when ``receive`` has nothing more of the body."""
        self._receive, self._first = receive, first
        self._left = length
        self._then = then
        self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        message, self._first = self._first or await self._receive(), None
        if message["type"] == "http.disconnect":
            raise ClientLeft("the client left before its request was whole")
        chunk: bytes = message.get("body", b"")
        self._over = not message.get("more_body", False)
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0 or (self._over and self._left):
                raise _wrong_length()
        if self._over:
            self._then()
        return chunk
