"""The head of a response, read strictly (RFC 9112 §4 and §5): what two readers might read in two ways is refused.

Most lines of an upstream's heads are the same from one response to the next, so each is read when it is first seen, and
remembered. A line has one reading, whatever stands around it: folded ones there are not.
"""

import re
from typing import TypeAlias

from apim_middleware._http.headers import list_members
from apim_middleware.errors import UpstreamBroken
from apim_middleware.transports._strictness import MAX_FIELDS
from apim_middleware.types import RawHeaders

Head: TypeAlias = tuple[int, RawHeaders, dict[bytes, bytes], bool, bool]
"""Status; header lines, names in lower case; ``dict`` of them; whether it is of HTTP/1.1, not 1.0; and whether the
connection may be used again after the response (RFC 9112 §9.3).
"""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_REMEMBERED = 2048
_LONGEST = 256
_SECRET = b"set-cookie"


class _StatusLines(dict[bytes, tuple[int, bool]]):
    """Status lines, and what they say: the status, and whether it is HTTP/1.1."""

    def __missing__(self, line: bytes) -> tuple[int, bool]:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise UpstreamBroken("the response does not begin with a status line of HTTP/1.1")
        said = int(match[2]), match[1] == b"1"
        if len(line) <= _LONGEST:
            _make_room(self)
            self[line] = said
        return said


class _FieldLines(dict[bytes, tuple[bytes, bytes]]):
    """Header lines, and what they say: the name in lower case, and the value."""

    def __missing__(self, line: bytes) -> tuple[bytes, bytes]:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise UpstreamBroken("a line of the response head is broken or folded")
        said = match[1].lower(), match[2].strip(b" \t")
        if len(line) <= _LONGEST and said[0] != _SECRET:
            _make_room(self)
            self[line] = said
        return said


def _make_room(lines: dict[bytes, tuple[bytes, bytes]] | dict[bytes, tuple[int, bool]]) -> None:
    if len(lines) >= _REMEMBERED:  # those that come in every response are back at once
        lines.clear()


_status_said = _StatusLines().__getitem__
_field_said = _FieldLines().__getitem__


def read_head(raw: bytes) -> Head:
    """Read a whole head, from its status line to the end of its last line. Raises UpstreamBroken."""
    first, *fields = raw.split(b"\r\n")
    if len(fields) > MAX_FIELDS:
        raise UpstreamBroken("the response head has more lines than allowed")
    status, latest = _status_said(first)
    lines = list(map(_field_said, fields))
    index = dict(lines)
    keeps = latest
    if b"connection" in index and not (latest and index[b"connection"] == b"keep-alive" and len(index) == len(lines)):
        keeps = _keeps(lines, latest)
    return status, lines, index, latest, keeps


def _keeps(lines: RawHeaders, latest: bool) -> bool:
    options = list_members(lines, b"connection")
    return b"close" not in options and (latest or b"keep-alive" in options)
