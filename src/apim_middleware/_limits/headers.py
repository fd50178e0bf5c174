"""Which header fields tell callers where they stand."""

from dataclasses import dataclass
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http.headers import is_token

_RESERVED = frozenset((
    "accept", "accept-patch", "accept-post", "accept-ranges", "access-control-allow-credentials",
    "access-control-allow-headers", "access-control-allow-methods", "access-control-allow-origin",
    "access-control-expose-headers", "access-control-max-age", "age", "allow", "alt-svc", "alt-used",
    "authentication-info", "authorization", "cache-control", "cache-status", "cdn-cache-control", "clear-site-data",
    "connection", "content-digest", "content-disposition", "content-encoding", "content-language", "content-length",
    "content-location", "content-range", "content-security-policy", "content-security-policy-report-only",
    "content-type", "cookie", "cross-origin-embedder-policy", "cross-origin-embedder-policy-report-only",
    "cross-origin-opener-policy", "cross-origin-opener-policy-report-only", "cross-origin-resource-policy", "date",
    "deprecation", "digest", "dpop-nonce", "etag", "expires", "host", "keep-alive", "last-modified", "link", "location",
    "origin-agent-cluster", "permissions-policy", "pragma", "priority", "proxy-authenticate",
    "proxy-authentication-info", "proxy-connection", "proxy-status", "ratelimit", "ratelimit-policy",
    "referrer-policy", "refresh", "report-to", "reporting-endpoints", "repr-digest", "sec-websocket-accept",
    "sec-websocket-extensions", "sec-websocket-protocol", "sec-websocket-version", "server", "server-timing",
    "set-cookie", "signature", "signature-input", "strict-transport-security", "sunset", "surrogate-control", "te",
    "timing-allow-origin", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "vary", "via",
    "warning", "want-content-digest", "want-repr-digest", "www-authenticate", "x-content-type-options",
    "x-frame-options", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-xss-protection",
))  # fmt: skip
"""Names that mean something else in a response: those of the IANA registry that servers, caches and browsers heed."""


@dataclass(frozen=True, kw_only=True)
class LimitHeaders(Configured):
    """Which header fields tell callers where they stand, for the ``headers`` of ``RateLimit`` and ``Quota``."""

    ietf: bool = True
    """``RateLimit`` and ``RateLimit-Policy`` of draft-ietf-httpapi-ratelimit-headers. Default: yes."""

    x_ratelimit: Literal["seconds", "epoch"] | None = None
    """``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset``, the last in seconds from now or since 1970. Of several
    limits they speak of the one that refused, or of which the least is left for longest. Default: none."""

    retry_after: str = "Retry-After"
    """What the time to wait is called in a refusal (Azure's ``retry-after-header-name``)."""

    remaining: str | None = None
    """A field for the units that are left (Azure's ``remaining-calls-header-name``). Default: none."""

    total: str | None = None
    """A field for the units of the limit (Azure's ``total-calls-header-name``). Default: none."""

    def __post_init__(self) -> None:
        """Names must be names, each for one thing, and none that means something else."""
        given = {field: getattr(self, field) for field in ("remaining", "total", "retry_after")}
        names = {field: name.lower() for field, name in given.items() if name is not None}
        for field, name in names.items():
            if not is_token(name.encode("latin-1", "replace")) or not name.isascii():
                raise self.mistake(field, "is no name of a header field", 'Give one such as "X-Calls-Left"')
            taken = name in _RESERVED or (name == "retry-after" and field != "retry_after")
            if taken or list(names.values()).count(name) > 1:
                raise self.mistake(field, "means something else already", 'Give one such as "X-Calls-Left"')
