"""Which request a stored response answers, and what else a change to it concerns (RFC 9111 §2, §4.4)."""

from collections.abc import Iterable
from typing import TypeAlias
from urllib.parse import unquote, urljoin, urlsplit

from apim_middleware._http.paths import BadTarget, canonical_path, canonical_query
from apim_middleware.types import Scope

Resource: TypeAlias = tuple[str, bytes, str, str, bytes, bytes]
"""Scheme, host, root path, path, path as sent, query: all of a request's target that an app can see, exactly."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1)."""


def resource_of(scope: Scope, host: bytes) -> Resource:
    """The resource a request is for."""
    raw, query = scope.get("raw_path") or b"", scope.get("query_string", b"")
    return scope.get("scheme", "http"), host, scope.get("root_path", ""), scope["path"], raw, query


def changed_with(resource: Resource, references: Iterable[bytes | None]) -> list[Resource]:
    """What a successful unsafe request changed: its target, and of the same origin what the response refers to."""
    others = [neighbour(resource, reference) for reference in references if reference is not None]
    return [resource, *filter(None, others)]


def neighbour(resource: Resource, reference: bytes) -> Resource | None:
    """The resource a reference leads to; None when it is of another origin, or cannot be read."""
    scheme, host, root, path, raw, _ = resource
    netloc = host.decode("latin-1").lower()
    try:
        there = urlsplit(urljoin(f"{scheme}://{netloc}{raw.decode('latin-1') or path}", reference.decode("latin-1")))
        if there.scheme != scheme or there.netloc.lower() != netloc:
            return None
        path = there.path or "/"
        path, raw = canonical_path(unquote(path, errors="strict"), path.encode("latin-1"))
        return scheme, host, root, path, raw, canonical_query(there.query.encode("latin-1"))
    except (ValueError, BadTarget):
        return None
