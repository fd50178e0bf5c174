"""Which request a stored response answers, and what else a change to it concerns (RFC 9111 §2, §4.4)."""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TypeAlias
from urllib.parse import unquote, urljoin, urlsplit

from apim_middleware._http.paths import BadTarget, canonical_path, canonical_query
from apim_middleware.types import Scope

Target: TypeAlias = tuple[str, str, str, bytes | None, bytes]
"""Scheme, root path, path, path as sent, query: as a server says them."""

Resource: TypeAlias = tuple[bytes, Target]
"""A host, and a target there: all that an app can see of what a request is for, exactly."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1)."""

IDEMPOTENT = SAFE | {"PUT", "DELETE"}
"""Methods that change no more when they are sent twice (RFC 9110 §9.2.2)."""

_target: Callable[[Scope], Target] = itemgetter("scheme", "root_path", "path", "raw_path", "query_string")
_UNSAID = {"scheme": "http", "root_path": "", "raw_path": b"", "query_string": b""}


def resource_of(scope: Scope, host: bytes) -> Resource:
    """The resource a request is for."""
    try:
        return host, _target(scope)
    except KeyError:  # a server need not say all of it
        return host, _target({**_UNSAID, **scope})


def changed_with(
    resource: Resource, references: Iterable[bytes | None], as_kept: Callable[[bytes], bytes] = bytes
) -> list[Resource]:
    """What a successful unsafe request changed: its target, and of the same origin what the response refers to.

    ``as_kept`` makes of the queries of references what they are in keys.
    """
    others = [neighbour(resource, reference, as_kept) for reference in references if reference is not None]
    return [resource, *filter(None, others)]


def neighbour(resource: Resource, reference: bytes, as_kept: Callable[[bytes], bytes] = bytes) -> Resource | None:
    """The resource a reference leads to; None when it is of another origin, or cannot be read."""
    host, (scheme, root, path, raw, _) = resource
    netloc = host.decode("latin-1").lower()
    try:
        here = (raw or b"").decode("latin-1") or path
        there = urlsplit(urljoin(f"{scheme}://{netloc}{here}", reference.decode("latin-1")))
        if there.scheme != scheme or there.netloc.lower() != netloc:
            return None
        path = there.path or "/"
        path, raw = canonical_path(unquote(path, errors="strict"), path.encode("latin-1"))
        return host, (scheme, root, path, raw, as_kept(canonical_query(there.query.encode("latin-1"))))
    except (ValueError, BadTarget):
        return None
