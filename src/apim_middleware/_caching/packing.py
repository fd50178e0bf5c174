"""Stored responses as bytes, for a store elsewhere: data and nothing but data.

What cannot be read back to the last bit, or was written for another key, is not there.
A mark, a checksum and the length of the description come first, then the description in JSON, then the bodies.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apim_middleware._caching.pages import Page, Selection, Stored, Variants
from apim_middleware._http.credentials import CREDENTIALS
from apim_middleware._http.headers import raw_headers

_MARK = b"apim\x02"
_HEAD = struct.Struct(">5s16sI")


def pack(page: Page, identity: bytes) -> bytes:
    """A page as data, bound to the identity of its key."""
    variants = page.found.items() if isinstance(page, Variants) else [((), page)]
    description = {
        "identity": identity.hex(),
        "selecting": [name.decode("latin-1") for name in page.selecting],
        "responses": [_described(said, stored) for said, stored in variants],
    }
    text = json.dumps(description, separators=(",", ":")).encode()
    bodies = b"".join(stored.body for _, stored in variants)
    return _HEAD.pack(_MARK, _checksum(text, bodies), len(text)) + text + bodies


def _described(said: Selection, stored: Stored) -> dict[str, Any]:
    return {
        "said": [None if value is None else value.decode("latin-1") for value in said],
        "status": stored.status,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in stored.headers],
        "times": [stored.born, stored.fresh, stored.until, stored.received],
        "stale": [stored.while_revalidate, stored.if_error, stored.strict],
        "tags": [tag.decode("latin-1") for tag in stored.tags],
        "open_to": sorted(stored.open_to),
        "length": len(stored.body),
    }


def _checksum(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16, person=b"apim cache")
    for part in parts:
        digest.update(part)
    return digest.digest()


def unpack(data: bytes, identity: bytes) -> Page | None:
    """The page these bytes are; None when they are anything else, or belong to another key."""
    try:
        return _unpacked(data, identity)
    except Exception:  # whatever else was written there
        return None


def _unpacked(data: bytes, identity: bytes) -> Page:
    mark, checksum, length = _HEAD.unpack_from(data)
    text, bodies = data[_HEAD.size : _HEAD.size + length], data[_HEAD.size + length :]
    if mark != _MARK or checksum != _checksum(text, bodies):
        raise ValueError("not a stored response, or not all of it")
    description = json.loads(text)
    if description["identity"] != identity.hex():
        raise ValueError("a stored response of another key")
    selecting = tuple(name.encode("latin-1") for name in description["selecting"])
    found: dict[Selection, Stored] = {}
    for each in description["responses"]:
        end = _whole(each["length"])
        said = tuple(None if value is None else value.encode("latin-1") for value in each["said"])
        found[said], bodies = _revived(each, bodies[:end], selecting), bodies[end:]
    if bodies or not found or any(len(said) != len(selecting) for said in found):
        raise ValueError("stored responses that do not fit their description")
    return Variants(selecting, found) if selecting else found[()]


def _revived(each: Mapping[str, Any], body: bytes, selecting: tuple[bytes, ...]) -> Stored:
    status, open_to = each["status"], frozenset(each["open_to"])
    times = [float(number) for number in each["times"]]
    revalidate, error, strict = each["stale"]
    if (
        type(status) is not int
        or not 200 <= status <= 599
        or status in (206, 304)
        or len(body) != each["length"]
        or not open_to <= CREDENTIALS
    ):
        raise ValueError("a stored response that was never stored")
    if not all(map(math.isfinite, [*times, revalidate, error])) or type(strict) is not bool:
        raise ValueError("a time that is none")
    born, fresh, until, received = times
    headers = tuple(raw_headers(_pairs(each["headers"])))
    open_to = CREDENTIALS if open_to == CREDENTIALS else open_to
    return Stored(
        status, headers, body,
        born=born, fresh=fresh, until=until, received=received, open_to=open_to, selecting=selecting,
        while_revalidate=float(revalidate), if_error=float(error), strict=strict,
        tags=tuple(tag.encode("latin-1") for tag in each["tags"]),
    )  # fmt: skip


def _pairs(headers: Sequence[Sequence[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _whole(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("not a length")
    return number


def fingerprint(parts: Iterable[str | bytes | None]) -> bytes:
    """Bytes that differ for different parts: 24 of them, made of all."""
    digest = hashlib.blake2b(digest_size=24, person=b"apim cache key")
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"-" if raw is None else b"%d:%b" % (len(raw), raw))
    return digest.digest()
