"""Refusals as problem+json (RFC 9457)."""

import json
from functools import lru_cache

from apim_middleware.errors import Refusal
from apim_middleware.types import RawHeaders


@lru_cache(maxsize=512)
def _document(status: int, title: str, code: str, detail: str) -> bytes:
    members: dict[str, str | int] = {"type": "about:blank", "title": title, "status": status, "code": code}
    if detail:
        members["detail"] = detail
    return json.dumps(members).encode()


def render(refusal: Refusal) -> tuple[RawHeaders, bytes]:
    """The header lines and the body a refusal is answered with; never to be stored by a cache."""
    body = _document(refusal.status, refusal.title, refusal.code, refusal.detail)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *refusal.headers,
    ]
    return headers, body
