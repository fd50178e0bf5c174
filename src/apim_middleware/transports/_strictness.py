"""What no response head may look like, whoever reads it: too large, or with lines that two readers end differently."""

import re

from apim_middleware._http.lines import NO_BREAKS
from apim_middleware.errors import UpstreamBroken

MAX_HEAD = 65536
"""Most bytes of a head, those of interim responses before it included."""

MAX_FIELDS = 256
"""Most lines of a head."""

VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
"""What a head may begin with."""

_TEXT = bytes(code for code in range(256) if code in b"\t\r\n" or (code >= 32 and code != 127))
_BEGINNING = b"HTTP/1."
_LENGTHS = re.compile(rb"\ncontent-length[ \t]*:[^\n]*", re.IGNORECASE)


def check_breaks(raw: bytes) -> int:
    """See to it that a whole head has so many lines at most, each ended by CRLF (RFC 9112 §2.2), and no null byte.

    Gives the number of header lines. Raises UpstreamBroken.
    """
    lines = raw.count(b"\r\n")
    if len(raw.translate(None, NO_BREAKS)) != 2 * lines:
        raise UpstreamBroken("a line of the response head is broken")
    fields = lines - 2  # less the status line and the empty one
    if fields > MAX_FIELDS:
        raise UpstreamBroken("the response head has more lines than allowed")
    return fields


def check_text(raw: bytes) -> None:
    """See to it that a head is of HTTP/1.1 or 1.0, and that no line is folded or holds a control character.

    For readers that do not (RFC 9112 §2.3, §5.2; RFC 9110 §5.5). Raises UpstreamBroken.
    """
    if raw[:9] not in VERSIONS:
        raise UpstreamBroken("the upstream did not answer in HTTP/1.1")
    if b"\n " in raw or b"\n\t" in raw or raw.translate(None, _TEXT):
        raise UpstreamBroken("a line of the response head is folded or holds a control character")


def check_lengths(raw: bytes) -> None:
    """See to it that a whole head says its length once, for readers that would take the same one twice.

    Raises UpstreamBroken.
    """
    said = _LENGTHS.findall(raw)
    if len(said) > 1 or b"," in b"".join(said):
        raise UpstreamBroken("the framing of the response is ambiguous")


def check_beginning(raw: bytes, room: int) -> None:
    """See to it that what came of a head so far can still become one of so many bytes. Raises UpstreamBroken.

    So that nobody waits for the end of what is no HTTP/1.1, or ends its lines otherwise.
    """
    if not (raw.startswith(_BEGINNING) or _BEGINNING.startswith(raw)):
        raise UpstreamBroken("the upstream did not answer in HTTP/1.1")
    if raw.count(b"\n") != raw.count(b"\r\n"):
        raise UpstreamBroken("a line of the response head is broken or folded")
    if len(raw) > room:
        raise UpstreamBroken("the response head is larger than allowed")
