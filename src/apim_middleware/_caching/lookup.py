"""What is remembered of a request while its answer is looked for, and of the response on its way."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from apim_middleware._caching.pages import Headers, Owners, Page, Stored
from apim_middleware._caching.recordings import Recording
from apim_middleware._http.cache_control import ANYTHING, Wishes
from apim_middleware._http.credentials import Credential
from apim_middleware._http.targets import Resource
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription

if TYPE_CHECKING:
    from apim_middleware._caching.flights import Flight


Key: TypeAlias = tuple[Resource, Owners]
"""What a response is kept under."""

Noted: TypeAlias = tuple[Key, float, int, Headers, object, bool, Principal | None, Subscription | None, int]
"""A request as it was when it passed here, for policies further in may change what it says.

A ``CacheLookup`` is made of it once more is to be done than to let the request pass: a tuple takes half the time.
"""


class Passing:
    """A request the cache has no further part in: why it goes on, what there is to tell, what its success changes.

    That to a HEAD request tells of what is kept for ``shown``, the same request.
    """

    __slots__ = ("changes", "detail", "fwd", "shown")

    def __init__(
        self,
        fwd: str,
        *,
        detail: str | None = None,
        changes: Resource | None = None,
        shown: "CacheLookup | None" = None,
    ) -> None:
        """A request that goes on for the reason ``fwd``."""
        self.fwd, self.detail, self.changes, self.shown = fwd, detail, changes, shown


class CacheLookup:
    """A request for which the cache is looked up: what it asks, and what is needed to keep the response.

    It has no slots: what is usual stands on the class, and takes no time for each request.
    """

    fwd = "uri-miss"  # why the app is asked, once it is
    carrier: Credential | None = None  # a credential that matters, found at a glance
    carried: frozenset[Credential] | None = None  # the credentials in it that matter, once it was looked at closely
    recording: Recording | None = None
    flight_key: object = None  # under which others find it while the app is at work on it
    flight: "Flight | None" = None  # those who wait for it
    stale: Stored | None = None  # the response that is asked about

    page: Page | None = None  # what was found elsewhere, and after which purge there, before the app was asked
    after: bytes = b""
    lease: tuple[bytes, bytes] | None = None  # its name and token, held while the app is asked

    def __init__(
        self,
        key: Key,
        started: float,
        changes: int,
        headers: Headers,
        user: object,
        certificate: bool,
        principal: Principal | None,
        subscription: Subscription | None,
        guards: int,
        wished: Wishes = ANYTHING,
    ) -> None:
        """Begin with what was noted of it, and what it wishes."""
        self.key, self.wished, self.headers = key, wished, headers
        self.started = started  # when the app was asked, or was about to be
        self.changes = changes  # how many there had been, of whatever resources
        self.user = user  # whom another middleware may have named
        self.certificate = certificate  # whether the client showed one
        self.principal, self.subscription = principal, subscription
        self.guards = guards  # met so far

    def body_is_known(self, exchange: Exchange) -> bool:
        """Whether it is known to have none; over HTTP/2 it need not say (RFC 9113 §8.1)."""
        return exchange.scope.get("http_version", "1.1")[:1] <= "1" or b"content-length" in dict(self.headers)


TELLING = frozenset(
    b"cache-control pragma range if-match if-unmodified-since if-none-match if-modified-since if-range content-length "
    b"transfer-encoding".split()
)
"""Fields without which a request asks nothing in particular of a cache."""

_BEYOND_THE_KEY = frozenset((b"if-match", b"if-unmodified-since", b"transfer-encoding"))


def beyond_the_key(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the answer depends on more than the key covers: a precondition, a body."""
    return fields.get(b"content-length", b"").strip(b"0") != b"" or not _BEYOND_THE_KEY.isdisjoint(fields)
