"""Where the body of a response ends (RFC 9112 §6.3 and §7.1), to the byte: what follows belongs to nobody."""

import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from apim_middleware.errors import UpstreamBroken
from apim_middleware.types import RawHeaders

_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_BODILESS = frozenset((204, 304))
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")
_MAX_LINE = 4096  # of a chunk extension or a trailer
_MAX_TRAILERS = 16384


class Body(Protocol):
    """A body on its way: told what comes, it says what of that is its own."""

    over: bool
    """Whether it has come to its end."""

    @property
    def trailers(self) -> Sequence[tuple[bytes, bytes]]:
        """What has come behind it, names in lower case."""
        ...

    def take(self, data: bytes, parts: list[bytes]) -> int:
        """Add what these bytes hold of the body to ``parts``, and tell how many of them are the message's at all.

        Raises UpstreamBroken.
        """
        ...


def length_of(
    method: str, status: int, lines: RawHeaders, index: dict[bytes, bytes], *, latest: bool = True
) -> int | None:
    """The length of the body of a response; None when it is in chunks or ends with the connection.

    ``index`` is ``dict(lines)``, ``latest`` is whether it is of HTTP/1.1: in HTTP/1.0 there are no chunks. Raises
    UpstreamBroken when it can be read in two ways.
    """
    if len(index) != len(lines) and sum(name in _FRAMING for name, _ in lines) > 1:
        raise UpstreamBroken("the framing of the response is said twice")
    length, coding = index.get(b"content-length"), index.get(b"transfer-encoding")
    if coding is not None and not (coding.lower() == b"chunked" and latest and length is None):
        raise UpstreamBroken("the framing of the response is ambiguous")
    if length is not None and not (length.isdigit() and len(length) <= 18):
        raise UpstreamBroken("the length of the response is not a number")
    if method == "HEAD" or status in _BODILESS:
        return 0
    return None if length is None else int(length)


def body_of(length: int | None, index: dict[bytes, bytes]) -> Body:
    """The body of a response, on its way; ``length`` is what ``length_of`` has said."""
    if length is not None:
        return Length(length)
    return Chunked() if b"transfer-encoding" in index else UntilClose()


class Length:
    """A body of so many bytes."""

    __slots__ = ("_left", "over")

    trailers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()

    def __init__(self, length: int) -> None:
        self._left = length
        self.over = not length

    def take(self, data: bytes, parts: list[bytes]) -> int:
        """Up to the length."""
        size = len(data)
        if size > self._left:
            data, size = data[: self._left], self._left
        if size:
            parts.append(data)
            self._left -= size
            self.over = not self._left
        return size


class UntilClose:
    """A body that ends with the connection."""

    __slots__ = ("over",)

    trailers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()

    def __init__(self) -> None:
        self.over = False

    def take(self, data: bytes, parts: list[bytes]) -> int:
        """All of it."""
        parts.append(data)
        return len(data)


class Chunked:
    """A body in chunks, with its last chunk and its trailers."""

    __slots__ = ("_left", "_line", "_next", "_trailing", "over", "trailers")

    def __init__(self) -> None:
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # of a line that has not come to its end
        self._next: Callable[[Chunked, bytes], None] = Chunked._begin  # not bound: that would be a cycle
        self._trailing = 0  # bytes
        self.trailers: RawHeaders = []
        self.over = False

    def take(self, data: bytes, parts: list[bytes]) -> int:
        """Chunk after chunk, up to the end of the trailers."""
        at = 0
        while at < len(data) and not self.over:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                self._left -= len(part)
                at += len(part)
            else:
                at = self._read_line(data, at)
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        """Take one line, or keep what there is of it; where it ends."""
        end = data.find(b"\n", at) + 1
        line = data[at : end or None]
        if self._line:
            line = self._line + line
        if len(line) > _MAX_LINE:
            raise UpstreamBroken("a line among the chunks of the response is longer than allowed")
        if not end:
            self._line = line
            return len(data)
        self._line = b""
        if line[-2:] != b"\r\n":
            raise UpstreamBroken("a line among the chunks of the response is broken")
        self._next(self, line[:-2])
        return end

    def _begin(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise UpstreamBroken("a chunk of the response has no size")
        self._left = int(match[1], 16)
        self._next = Chunked._end if self._left else Chunked._trailer

    def _end(self, line: bytes) -> None:
        if line:
            raise UpstreamBroken("a chunk of the response is longer than its size")
        self._next = Chunked._begin

    def _trailer(self, line: bytes) -> None:
        self._trailing += len(line)
        if self._trailing > _MAX_TRAILERS:
            raise UpstreamBroken("the trailers of the response are larger than allowed")
        if not line:
            self.over = True
            return
        if _TRAILER.fullmatch(line) is None:
            raise UpstreamBroken("a trailer of the response cannot be read")
        name, _, value = line.partition(b":")
        self.trailers.append((name.lower(), value.strip(b" \t")))
