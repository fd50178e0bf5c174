"""Stored responses: one for every request, or several that a request selects from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from sys import getsizeof
from typing import TypeAlias

from apim_middleware._caching.versions import VERSION_SIZE, Version
from apim_middleware._http.credentials import CREDENTIALS, Credential
from apim_middleware._http.keeping import selection
from apim_middleware.stores.s3_fifo import PLACE

_PAIR = 2 * getsizeof(b"") + getsizeof((b"", b""))
"""What a header line takes beside its text."""

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
Selection: TypeAlias = tuple[bytes | None, ...]
Owners: TypeAlias = tuple[str | None, ...]
"""Whom a response belongs to: what each key of ``private_to`` and ``vary_by`` says of the request."""


class Stored:
    """A whole response, when it was made (``born``) and until when it is ``fresh``, both on its keeper's clock.

    It is kept ``until`` some later moment: ``while_revalidate`` and ``if_error`` say how many seconds past its time it
    may still be given away, unless it is ``strict``. ``received`` is the time of day it came, ``open_to`` the
    credentials a request for it may carry, ``selecting`` the request fields that chose it, ``tags`` what it shows,
    and ``version`` the state of the resource it shows, where its keeper minds. It is ``for_all`` when, while it is
    fresh, nothing is to be asked about who wants it.
    """

    __slots__ = (
        "body", "born", "for_all", "fresh", "headers", "if_error", "open_to", "received", "selecting", "size", "status",
        "strict", "tags", "until", "version", "while_revalidate",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        born: float,
        fresh: float,
        received: float,
        open_to: frozenset[Credential],
        until: float | None = None,
        selecting: tuple[bytes, ...] = (),
        while_revalidate: float = 0.0,
        if_error: float = 0.0,
        strict: bool = False,
        tags: tuple[bytes, ...] = (),
        version: Version | None = None,
        key: object = (),
    ) -> None:
        """Weigh it, with the key it will stand under."""
        self.status, self.headers, self.body = status, headers, body
        self.born, self.fresh, self.received = born, fresh, received
        self.until = fresh if until is None else until
        self.while_revalidate, self.if_error, self.strict = while_revalidate, if_error, strict
        self.open_to, self.selecting, self.tags = open_to, selecting, tags
        self.version = version
        self.for_all = open_to is CREDENTIALS and version is None
        self.size = PLACE + _STORED + getsizeof(headers) + getsizeof(body) + weight(key)
        for name, value in headers:
            self.size += _PAIR + len(name) + len(value)
        if tags:
            self.size += weight(tags)
        if version is not None:
            self.size += VERSION_SIZE

    def choose(self, headers: Sequence[tuple[bytes, bytes]]) -> "Stored | None":
        """The response for a request with these headers: this one, whatever they are."""
        return self

    def all(self) -> "Iterable[Stored]":
        """Every response that stands here."""
        return (self,)


_STORED = getsizeof(Stored.__new__(Stored))
"""What a stored response takes beside what it refers to."""


class Variants:
    """The responses one key has for different requests: which fields select, and what is stored for what they say."""

    __slots__ = ("found", "selecting", "size", "until")

    def __init__(self, selecting: tuple[bytes, ...], found: Mapping[Selection, Stored]) -> None:
        """Weigh them all, with what they were selected by."""
        self.selecting = selecting
        self.found = found
        self.until = max(each.until for each in found.values())
        self.size = PLACE + getsizeof(self) + getsizeof(found) + weight(selecting)
        self.size += sum(each.size + weight(said) for said, each in found.items())

    @property
    def tags(self) -> tuple[bytes, ...]:
        """What they show, all together."""
        return tuple({tag for each in self.found.values() for tag in each.tags})

    def choose(self, headers: Sequence[tuple[bytes, bytes]]) -> Stored | None:
        """The response for a request with these headers, if there is one."""
        return self.found.get(selection(self.selecting, headers))

    def all(self) -> Iterable[Stored]:
        """Every response that stands here."""
        return self.found.values()

    def joined_by(
        self, said: Selection, stored: Stored, *, most: int, max_bytes: int, now: float, most_tags: float = math.inf
    ) -> "Variants":
        """These and one more: those past their time leave, and the oldest while they are too many or too large.

        They are too large, too, when they have more tags together than they can be found by.
        """
        found = {other: each for other, each in self.found.items() if other != said and each.until > now}
        found[said] = stored
        joined = Variants(self.selecting, found)
        while len(found) > most or (len(found) > 1 and (joined.size > max_bytes or len(joined.tags) > most_tags)):
            del found[next(iter(found))]
            joined = Variants(self.selecting, found)
        return joined


Page: TypeAlias = Stored | Variants
"""What stands under one key: one response for every request, or several that a request selects from."""


def weight(thing: object) -> int:
    """Bytes of memory a thing of tuples, text, bytes and None takes."""
    if not isinstance(thing, tuple):
        return 0 if thing is None else getsizeof(thing)
    total = getsizeof(thing)
    for each in thing:
        total += weight(each)
    return total
