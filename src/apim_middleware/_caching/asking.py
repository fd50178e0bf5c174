"""What is remembered of a request while its answer is looked for, and of the response on its way."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from apim_middleware._caching.pages import Headers, Owners, Page, Stored
from apim_middleware._caching.recordings import Recording
from apim_middleware._http.cache_control import Wishes
from apim_middleware._http.client_certificate import is_shown
from apim_middleware._http.targets import Resource
from apim_middleware.exchange import Exchange

if TYPE_CHECKING:
    from apim_middleware._caching.flights import Flight


class Passing:
    """A request the cache has no further part in: why it goes on, what there is to tell, what its success changes."""

    __slots__ = ("changes", "detail", "fwd")

    recording = flight_key = None

    def __init__(self, fwd: str, *, detail: str | None = None, changes: Resource | None = None) -> None:
        """Remember it."""
        self.fwd, self.detail, self.changes = fwd, detail, changes


class Asked:
    """A request for a resource: what it asks, and what is needed to keep the response.

    Everything is as it was when the request passed here, for policies further in may change what it says.
    """

    __slots__ = (
        "carrier", "certificate", "changes", "flight", "flight_key", "fwd", "generation", "guards", "headers", "key",
        "lease", "page", "principal", "recording", "stale", "started", "subscription", "user", "wished",
    )  # fmt: skip

    fwd: str  # why the app is asked, once it is
    started: float
    carrier: str | None  # a credential that came in a header, found at a glance
    certificate: bool  # whether the client showed one
    stale: Stored | None  # the response that is asked about
    flight: "Flight | None"  # those who wait for it

    page: Page | None  # what was found elsewhere, and the generation it was found under
    generation: bytes | None
    lease: tuple[bytes, bytes] | None  # its name and token, held while the app is asked

    def __init__(self, key: tuple[Resource, Owners], wished: Wishes, changes: int) -> None:
        """What it takes to look for a response."""
        self.key, self.wished = key, wished
        self.changes = changes  # how many there were, of whatever resources

    def remember(self, exchange: Exchange) -> None:
        """What it takes to judge a response, and whether a stored one may be given."""
        shared, scope = exchange.shared, exchange.scope
        self.headers: Headers = tuple(scope["headers"])
        self.principal, self.subscription = shared.principal, shared.subscription
        self.user: object = scope.get("user")  # whom another middleware may have named
        self.guards = shared.guards  # met so far
        self.certificate = is_shown(scope)
        self.recording: Recording | None = None
        self.flight_key: object = None  # under which others find it while the app is at work on it

    def lead(self, flight_key: object) -> None:
        """Be found by others under this key."""
        self.flight_key = flight_key
        self.flight = self.stale = None


TELLING = frozenset(
    b"cache-control pragma range if-match if-unmodified-since if-none-match if-modified-since if-range content-length "
    b"transfer-encoding".split()
)
"""Fields without which a request asks nothing in particular of a cache."""

_BEYOND_THE_KEY = frozenset((b"if-match", b"if-unmodified-since", b"transfer-encoding"))


def beyond_the_key(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the answer depends on more than the key covers: a precondition, a body."""
    return fields.get(b"content-length", b"").strip(b"0") != b"" or not _BEYOND_THE_KEY.isdisjoint(fields)
