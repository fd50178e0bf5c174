"""Trace headers from strangers: which of them may be believed (W3C Trace Context, Recommendation of 2021; W3C Baggage).

What is not valid is left out, never refused: a trace begins anew, the request goes on.
"""

import re
from collections.abc import Sequence

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    rb"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_LONGEST_PARENT = 256  # versions to come may be longer than the 55 bytes of this one, but not without bound
_MOST_BYTES = 8192
_MOST_MEMBERS = 32
_LONG_MEMBER = 128
_ROOM = 1024  # propagated of a tracestate; at least 512 are asked for (§3.3.1.5)


def traceparent(lines: Sequence[bytes]) -> str | None:
    """The caller's span in the form of version 00 (§3.2), or None: absent, sent twice, or not valid."""
    if len(lines) != 1 or len(lines[0]) > _LONGEST_PARENT:
        return None
    match = _PARENT.fullmatch(lines[0].strip(b" \t"))
    if match is None:
        return None
    version, trace, parent, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more) or not trace.strip(b"0") or not parent.strip(b"0"):
        return None
    return b"-".join((b"00", trace, parent, flags)).decode("ascii")


def tracestate(lines: Sequence[bytes]) -> str:
    """The members of all lines as one list (§3.3), cut to what is propagated; empty when any member is not valid."""
    members = _members(lines)
    keys = {match[1] for member in members if (match := _MEMBER.fullmatch(member))}
    if len(keys) != len(members) or len(members) > _MOST_MEMBERS:  # a key that comes twice is not valid either
        return ""
    return b",".join(_fitting(members)).decode("ascii")


def baggage(lines: Sequence[bytes], allowed: frozenset[bytes]) -> str:
    """The members of a baggage (W3C Baggage §3.2) whose keys are allowed, as one list."""
    kept = [member for member in _members(lines) if member.partition(b"=")[0].rstrip(b" \t") in allowed]
    return b",".join(kept).decode("latin-1")


def _members(lines: Sequence[bytes]) -> list[bytes]:
    """What stands between the commas, without blanks around and without the empty; nothing when it is far too much."""
    if sum(map(len, lines)) > _MOST_BYTES:
        return []
    return [member for part in b",".join(lines).split(b",") if (member := part.strip(b" \t"))]


def _fitting(members: list[bytes]) -> list[bytes]:
    """Whole members only, in their order: the long ones go first, then those at the end (§3.3.1.5)."""
    size = sum(map(len, members)) + len(members) - 1
    if size <= _ROOM:
        return members
    kept = [member for member in members if len(member) <= _LONG_MEMBER]
    while sum(map(len, kept)) + len(kept) - 1 > _ROOM:
        kept.pop()
    return kept
