"""How uvicorn is to write a response: so that its client knows where it ends, whatever the app says of it."""

import socket
import struct
from asyncio import get_running_loop
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from apim_middleware._http.headers import NAME, get_all, list_members, without
from apim_middleware._http.lines import checked
from apim_middleware._telemetry.masking import Mask
from apim_middleware.serving._told import is_told
from apim_middleware.types import RawHeaders

_BODILESS = frozenset((204, 304))
_SAID_ONCE = frozenset((b"date", b"server"))  # of a proxied response by whoever made it (RFC 9110 §6.6.1)
_CLOSE = (b"connection", b"close")
_CHUNKED = (b"transfer-encoding", b"chunked")
_MASK = Mask()
_TOGETHER = 65536  # bytes of a body that are put behind the head to be written at once


class Response(RequestResponseCycle):
    """One request and the response to it; uvicorn makes it, and it takes the place of uvicorn's.

    Header lines are looked at together, and the app hears of wrong ones before anything was sent. Where a body ends is
    said once (RFC 9112 §6.2), and to clients of HTTP/1.0, which know no chunks, by the end of the connection (§6.1);
    where the app does not come to it, the connection is reset, for a half is not to be taken for the whole. Where that
    is an upstream's fault, and the log has it, there is no traceback. A
    304 may tell a length (RFC 9110 §8.6). A client that waits to be asked for its body and is answered instead may send
    it or not (RFC 9110 §10.1.1): what comes next could be read in two ways, so nothing is to.
    """

    _left: int | None = 0
    """Bytes of the body that are still to come; None where its end is told in another way."""

    _head = b""
    """The head, as long as it waits for what the app may send with it in the same turn of the event loop."""

    async def run_asgi(self, app: Any) -> None:  # noqa: ANN401 - as with ``send``
        """Have the app answer; what cannot be answered at all ends the connection."""
        try:
            await super().run_asgi(partial(self._answered, app))
        except BaseException:
            self.transport.close()
            raise

    async def _answered(self, app: Any, scope: Any, receive: Any, send: Any) -> Any:  # noqa: ANN401
        try:
            return await app(scope, receive, send)
        except Exception as error:
            if not self.response_started or self.response_complete or not is_told(error):
                raise
            self._stop_short()
        finally:
            self._write(b"")
            if self.response_started and not self.response_complete and self._ends_with_the_connection:
                self._break_off()

    def _stop_short(self) -> None:
        """Let the connection end within the response: uvicorn takes the client for gone, and has nothing to report."""
        self._write(b"")
        self.disconnected = True
        self.message_event.set()
        if not self._ends_with_the_connection:
            self.transport.close()

    @property
    def _ends_with_the_connection(self) -> bool:
        return self._left is None and not self.chunked_encoding

    def _break_off(self) -> None:
        """End the connection so that what was sent is not taken for whole: by a reset, not by a goodbye."""
        line = self.transport.get_extra_info("socket")
        if line is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def send(self, message: Any) -> None:  # noqa: ANN401 - as uvicorn's own type of messages is not ours
        """Write what the app says."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if self.response_complete:
            raise RuntimeError(f"{kind} came after the end of the response")
        if kind != ("http.response.body" if self.response_started else "http.response.start"):
            raise RuntimeError(f"{kind} cannot come now")
        if self.response_started:
            self._write_body(message.get("body") or b"", last=not message.get("more_body", False))
        else:
            self._write_head(message["status"], message.get("headers", ()))

    def _write_head(self, status: int, headers: Any) -> None:  # noqa: ANN401 - any iterable of pairs
        if status < 200:
            raise ValueError(f"{status} is no final response")
        begin, lines = STATUS_LINE[status], checked([*self.default_headers, *headers])
        index = dict(lines)
        if len(index) != len(lines):
            lines = _said_once(lines, len(self.default_headers))
        if b"transfer-encoding" in index:
            lines = without(lines, b"transfer-encoding", b"content-length")
            index = dict(lines)
        length = index.get(b"content-length")
        if length is not None and not (length.isdigit() and _is_one(index, lines, b"content-length")):
            raise ValueError("the response does not say its length clearly")
        if self.scope["method"] == "HEAD" or status in _BODILESS:
            self._left = 0
            if status == 204 and length is not None:  # RFC 9110 §8.6
                lines = without(lines, b"content-length")
        elif length is not None:
            self._left = int(length)
        else:
            self._left, self.chunked_encoding = None, self.scope["http_version"] != "1.0"
            if self.chunked_encoding:
                lines.append(_CHUNKED)
        if b"connection" in index and b"close" in list_members(lines, b"connection"):
            self.keep_alive = False
        elif self.waiting_for_100_continue or not self.keep_alive:
            self.keep_alive = False
            lines.append(_CLOSE)
        self.response_started, self.waiting_for_100_continue = True, False
        self._head = begin + b"\r\n".join([*map(b": ".join, lines), b"", b""])
        get_running_loop().call_soon(self._write, b"")
        if self.access_log:
            self._log(status)

    def _write(self, data: bytes) -> None:
        """Write what waits, and this behind it."""
        head, self._head = self._head, b""
        if self.disconnected:
            return
        if head and len(data) > _TOGETHER:  # not by `writelines`, with which some asyncio forgets back-pressure
            self.transport.write(head)
            self.transport.write(data)
        elif head or data:
            self.transport.write(head + data)

    def _write_body(self, body: bytes, *, last: bool) -> None:
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = chunk + b"0\r\n\r\n" if last else chunk
        elif self.scope["method"] == "HEAD":
            body = b""
        elif self._left is not None:
            left = self._left - len(body)
            if left < 0 or (last and left):
                raise RuntimeError(f"the body is {'longer' if left < 0 else 'shorter'} than its Content-Length")
            self._left = left
        self._write(body)
        if last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _log(self, status: int) -> None:
        scope = self.scope
        client, target = get_client_addr(scope), _MASK(get_path_with_query_string(scope).encode("latin-1", "replace"))
        self.access_logger.info(
            '%s - "%s %s HTTP/%s" %d', client, scope["method"], target, scope["http_version"], status
        )


def _said_once(lines: RawHeaders, ours: int) -> RawHeaders:
    """The lines, the first of which are the server's: not those that the app has said better."""
    said = _SAID_ONCE.intersection(map(NAME, lines[ours:]))
    return [*[line for line in lines[:ours] if line[0] not in said], *lines[ours:]]


def _is_one(index: dict[bytes, bytes], lines: RawHeaders, name: bytes) -> bool:
    """Whether a name that is there stands on one line; nearly always every name does."""
    return len(index) == len(lines) or len(get_all(lines, name)) == 1
