"""The head of a response, read strictly (RFC 9112 §4 and §5): what two readers might read in two ways is refused.

llhttp does the reading, with no leniency set. The rest is what it is too kind about, or cannot know.
"""

from typing import TypeAlias

import httptools

from apim_middleware._http.headers import list_members
from apim_middleware.errors import UpstreamBroken
from apim_middleware.transports._strictness import VERSIONS, check_breaks
from apim_middleware.types import RawHeaders

Head: TypeAlias = tuple[int, RawHeaders, dict[bytes, bytes], bool, bool]
"""Status; header lines, names in lower case; ``dict`` of them; whether it is of HTTP/1.1, not 1.0; and whether the
connection may be used again after the response (RFC 9112 §9.3).
"""


class _Lines:
    """What llhttp tells the header lines to."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: RawHeaders = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((name.lower(), value))


def read_head(raw: bytes, *, upgrades: bool = False) -> Head:
    """Read a whole head, from its status line to the empty line. Raises UpstreamBroken.

    ``upgrades`` is whether another protocol was asked for.
    """
    version = raw[:9]
    if version not in VERSIONS:
        raise UpstreamBroken("the upstream did not answer in HTTP/1.1")
    fields = check_breaks(raw)
    lines = _Lines()
    parser = httptools.HttpResponseParser(lines)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade as error:
        if not upgrades:
            raise UpstreamBroken("the upstream changed the protocol without being asked") from error
    except httptools.HttpParserError as error:
        # not the error's own words: they may hold what the upstream sent, cookies and all
        raise UpstreamBroken(f"the response head cannot be read: {type(error).__name__}") from error
    status, headers = parser.get_status_code(), lines.found
    if len(headers) != fields:
        raise UpstreamBroken("a line of the response head is folded")
    if not 100 <= status <= 599:
        raise UpstreamBroken(f"the upstream answered with status {status}")
    if b" \r\n" in raw or b"\t" in raw:  # llhttp leaves blanks after a value where they are
        headers = [(name, value.rstrip(b" \t")) for name, value in headers]
    index, latest = dict(headers), version == b"HTTP/1.1 "
    return status, headers, index, latest, _keeps(headers, index, latest)


def _keeps(headers: RawHeaders, index: dict[bytes, bytes], latest: bool) -> bool:
    said = index.get(b"connection")
    if said is None:
        return latest
    if said == b"keep-alive" and len(index) == len(headers):
        return True
    options = list_members(headers, b"connection")
    return b"close" not in options and (latest or b"keep-alive" in options)
