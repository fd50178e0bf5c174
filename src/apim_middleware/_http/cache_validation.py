"""Asking the app whether a stale response still holds, and what its answer makes of it (RFC 9111 §4.3)."""

from collections.abc import Sequence

from apim_middleware._http.headers import get, get_all
from apim_middleware.types import RawHeaders

CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"})
"""Fields of a request that make it conditional (RFC 9110 §13.1)."""

_VALIDATORS = frozenset({b"etag", b"last-modified"})
_UNCHANGED = frozenset(b"content-length content-encoding content-type content-range cache-status".split())
"""Fields that belong to the body we have, whatever a 304 says of them (§3.2)."""


def has_validator(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether it can be asked if a response with these fields still holds."""
    return any(name in _VALIDATORS for name, _ in headers)


def conditions_on(headers: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """The conditions of a request that asks whether the response with these fields still holds (§4.3.1)."""
    stored, asked = list(headers), RawHeaders()
    if (tag := get(stored, b"etag")) is not None:
        asked.append((b"if-none-match", tag))
    if (changed := get(stored, b"last-modified")) is not None:
        asked.append((b"if-modified-since", changed))
    return asked


def is_of(said: RawHeaders, stored: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a 304 with these fields tells of this stored response (§4.3.4): it has no validator that differs."""
    tag, changed = get(said, b"etag"), get(said, b"last-modified")
    kept = list(stored)
    if tag is not None:
        return get_all(said, b"etag") == [tag] and _same(tag, get(kept, b"etag"))
    return changed is None or changed == get(kept, b"last-modified")


def shows(said: RawHeaders, stored: Sequence[tuple[bytes, bytes]], size: int) -> bool:
    """Whether the answer to HEAD with these fields speaks of the stored response with a body of so many bytes (§4.3.5).

    It does if nothing that it says of validators and length is different.
    """
    kept, lengths = list(stored), get_all(said, b"content-length")
    tags, changes = get_all(said, b"etag"), get_all(said, b"last-modified")
    return (
        all(_same(tag, get(kept, b"etag")) for tag in tags)
        and all(changed == get(kept, b"last-modified") for changed in changes)
        and all(length == b"%d" % size for length in lengths)
    )


def _same(tag: bytes, other: bytes | None) -> bool:
    """Whether two entity tags are the same, be they weak (RFC 9110 §8.8.3.2)."""
    return other is not None and tag.removeprefix(b"W/") == other.removeprefix(b"W/")


def freshened(stored: Sequence[tuple[bytes, bytes]], said: RawHeaders) -> RawHeaders:
    """The fields of a stored response after a 304 with other ones: each that it names is replaced (§3.2).

    Its Date goes in any case, for it would be that of the answer before (RFC 9110 §6.6.1).
    """
    told = [pair for pair in said if pair[0] not in _UNCHANGED]
    names = {name for name, _ in told} | {b"date"}
    return [pair for pair in stored if pair[0] not in names] + told
