"""What a response cache is told: its fields, and the mistakes one can make with them."""

from dataclasses import dataclass
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._functions import needs
from apim_middleware._http.cache_queries import QueryRule
from apim_middleware._http.credentials import Credential
from apim_middleware._http.keeping import NEVER_KEPT, Terms
from apim_middleware.by import Key
from apim_middleware.policy import stated

LONGEST = 2**31
"""Seconds of the longest time that can be given."""


@dataclass(frozen=True, kw_only=True)
class Caching(Configured):
    """The fields of a response cache."""

    ttl: float | None = None
    """Seconds a 200 is fresh that does not say itself; None, the default, keeps only what says so."""

    private_to: Key | tuple[Key, ...] | None = None
    """Whom responses belong to (``by.principal``): each gets only what was answered to the same; default: to all."""

    vary_by: Key | tuple[Key, ...] | None = None
    """What else tells requests apart, whatever responses say in ``Vary``: ``by.header("x-tenant")``."""

    regardless_of: tuple[Credential, ...] = ()
    """Credentials the app behind does not look at, so that responses may be shared among requests that carry them."""

    only_query: tuple[str, ...] | None = None
    """The query parameters that count; the app gets no others. A ``*`` at the end stands for any ending."""

    without_query: tuple[str, ...] = ()
    """Query parameters that do not count, such as ``"utm_*"``; the app does not get them."""

    sort_query: bool = False
    """Whether the order of parameters means nothing; the app gets them sorted."""

    statuses: tuple[int, ...] = (200,)
    """The statuses ``ttl`` is for; they may be kept, too, for as long as they say, whichever they are."""

    fixed_ttl: float | None = None
    """Seconds every response is fresh that may be kept at all, whatever it says of the time itself."""

    heuristic: float | None = None
    """The part of the time since ``Last-Modified`` that a response is fresh which says nothing else, as 0.1."""

    ignore_request_directives: bool = False
    """Whether the ``Cache-Control`` and ``Pragma`` of requests mean nothing; honoured by default."""

    stale_while_revalidate: float = 0.0
    """Seconds past its time in which a response is given away while the app is asked anew, if it does not say."""

    stale_if_error: float = 0.0
    """Seconds past its time in which a response is given away when the app fails, if it does not say."""

    keep_stale: float = 3600.0
    """Seconds past its time in which a response is kept to be asked for conditionally. Default: an hour."""

    collapse_wait: float = 5.0
    """Seconds a request waits for another one like it that the app is at work on; 0: each asks the app itself."""

    max_entry_bytes: int = 1 << 20
    """Largest response kept, head and body together, in bytes; a larger one passes unkept. Default 1 MiB."""

    max_bytes: int = 64 << 20
    """Most memory for all responses kept, in bytes; those on their way may hold as much. Default 64 MiB."""

    max_variants: int = 20
    """Most responses kept for one URL that differ by the request fields in ``Vary``. Default 20."""

    when_store_fails: Literal["bypass", "refuse"] = "bypass"
    """With a store elsewhere that cannot answer: ``"bypass"`` asks the app, ``"refuse"`` protects it from that."""

    name: str = "apim"
    """What this cache calls itself in ``Cache-Status``."""

    show_key: bool = False
    """Whether ``Cache-Status`` says what a response is kept under."""

    show_tags: bool = False
    """Whether clients see ``Cache-Tag`` and ``Surrogate-Key``, which name what a response shows. Default: no."""

    def __post_init__(self) -> None:
        """Times and sizes must leave room for something."""
        for name in ("ttl", "fixed_ttl"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds <= LONGEST:
                raise self.mistake(name, "is no time", "Give a number of seconds above 0, or None")
        for name in ("stale_while_revalidate", "stale_if_error", "keep_stale", "collapse_wait"):
            if not 0 <= getattr(self, name) <= LONGEST:
                raise self.mistake(name, "is no time", "Give a number of seconds, or 0")
        if self.heuristic is not None and not 0 < self.heuristic <= 1:
            raise self.mistake("heuristic", "is no part of a time", "Give a number above 0, and 1 at most, or None")
        for name in ("max_entry_bytes", "max_variants"):
            if getattr(self, name) < 1:
                raise self.mistake(name, "is no bound", "Give a number of at least 1")
        if self.max_bytes < self.max_entry_bytes:
            raise self.mistake("max_bytes", "is less than max_entry_bytes", "Give room for at least one response")
        if not self.name.isascii() or not self.name.isprintable() or not self.name:
            raise self.mistake("name", "cannot stand in a header", "Give printable ASCII characters")
        self._check_choices()

    def _check_choices(self) -> None:
        if self.private_to == ():
            raise self.mistake("private_to", "tells nobody apart", "Give a key such as by.principal, or leave it out")
        if not self.statuses or not all(200 <= status <= 599 for status in self.statuses):
            raise self.mistake("statuses", "cannot all be kept", "Give statuses from 200 to 599")
        if not NEVER_KEPT.isdisjoint(self.statuses):
            none = ", ".join(map(str, sorted(NEVER_KEPT)))
            raise self.mistake("statuses", "cannot all be kept", f"Leave out {none}: no cache keeps them")
        for name in ("only_query", "without_query"):
            if any(not each or "*" in each[:-1] for each in getattr(self, name) or ()):
                raise self.mistake(name, "is no choice of parameters", 'Give names, or beginnings as "utm_*"')

    @property
    def keys(self) -> tuple[Key, ...]:
        """What a response is kept under beside its URL."""
        return (*_keys(self.private_to), *_keys(self.vary_by))

    @property
    def terms(self) -> Terms:
        """What is decided where responses leave it open."""
        return Terms(
            ttl=self.ttl,
            statuses=frozenset(self.statuses),
            fixed_ttl=self.fixed_ttl,
            heuristic=self.heuristic or 0.0,
            while_revalidate=self.stale_while_revalidate,
            if_error=self.stale_if_error,
            show_tags=self.show_tags,
        )

    @property
    def query(self) -> QueryRule:
        """What becomes of the query of a request."""
        return QueryRule(self.only_query, self.without_query, self.sort_query)

    @stated
    def needs(self) -> frozenset[str]:
        """What the keys rely on."""
        return frozenset[str]().union(*map(needs, self.keys))


def _keys(given: Key | tuple[Key, ...] | None) -> tuple[Key, ...]:
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)
