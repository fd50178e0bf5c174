"""By what a stored response can be taken away."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from apim_middleware._caching.packing import fingerprint
from apim_middleware._caching.pages import Page
from apim_middleware._http.paths import BadTarget, canonical_path, canonical_query
from apim_middleware._http.targets import Resource
from apim_middleware._telemetry.routes import route_of
from apim_middleware.types import Scope

_DEEPEST = 60  # with 64 tags, a route and two names more there are less than an entry can have
_ROUTE = b"route:"
EVERYTHING = ("everything",)
"""What names every response of a cache."""


class Place(NamedTuple):
    """A URL, or all below it, as resources are told apart."""

    scheme: str
    host: str
    path: str
    query: bytes | None
    """None for all that begins so."""

    def holds(self, resource: Resource) -> bool:
        """Whether a resource is it, or below it."""
        host, (scheme, _, path, _, query) = resource
        if (scheme, _host(scheme, host.decode("latin-1"))) != (self.scheme, self.host):
            return False
        if self.query is None:
            return path.startswith(self.path)
        return (path, query) == (self.path, self.query)

    @property
    def name(self) -> tuple[str | bytes, ...]:
        """What names it in a store."""
        below = () if self.query is None else (self.query,)
        return "below" if self.query is None else "url", self.scheme, self.host, self.path, *below


def place_of(url: str, *, below: bool = False) -> Place:
    """The place a whole URL means; ValueError says what it lacks."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment or "@" in parts.netloc:
        raise ValueError("is no whole URL")
    if below and (parts.query or not parts.path.endswith("/")):
        raise ValueError("does not end with a slash")
    try:
        raw = (parts.path or "/").encode()
        path, _ = canonical_path(unquote(parts.path or "/", errors="strict"), raw)
        query = None if below else canonical_query(parts.query.encode())
    except (BadTarget, ValueError):
        raise ValueError("is no URL that a request can have") from None
    return Place(parts.scheme, _host(parts.scheme, parts.netloc), path, query)


def _host(scheme: str, host: str) -> str:
    """A host in lower case, without the port that its scheme has anyway."""
    return host.lower().removesuffix(":443" if scheme == "https" else ":80")


def route_tag(route: str) -> bytes:
    """The tag of what a route answers."""
    return _ROUTE + route.encode("utf-8", "replace")[:1000]


def route_in(scope: Scope) -> tuple[bytes, ...]:
    """The tag of the route that an app has noted in the scope, if it did."""
    route = route_of(scope) if "route" in scope or "path_template" in scope else None
    return (route_tag(route),) if route else ()


def too_deep(resource: Resource) -> bool:
    """Whether a resource is below more places than it can go by."""
    return resource[1][2].count("/") > _DEEPEST


def resource_name(resource: Resource) -> tuple[str | bytes | None, ...]:
    """What names a resource by all that tells it from others, so that a change takes away no more than that."""
    host, (scheme, *rest) = resource
    return ("resource", scheme, host, *rest)


def names_of(resource: Resource, tags: Iterable[bytes]) -> list[tuple[str | bytes, ...]]:
    """Everything that a response to this resource goes by."""
    host, (scheme, _, path, _, query) = resource
    name = _host(scheme, host.decode("latin-1"))
    parents: list[tuple[str | bytes, ...]] = []
    at = 0
    while at := path.find("/", at) + 1:
        parents.append(("below", scheme, name, path[:at]))
    return [EVERYTHING, ("url", scheme, name, path, query), *parents, *(("tag", tag) for tag in tags)]


def tag_in_store(space: str, name: Sequence[str | bytes | None]) -> bytes:
    """The tag an entry has for one of these names, which no other cache has."""
    return fingerprint((space, *name)).hex().encode()


def softened(page: Page, now: float, tag: Any = None) -> int:  # noqa: ANN401 - bytes, or None for all
    """Let what stands here be stale from now on, or only what has a tag; how many that were."""
    found = [stored for stored in page.all() if tag is None or tag in stored.tags]
    for stored in found:
        stored.fresh = min(stored.fresh, now)
    return len(found)
