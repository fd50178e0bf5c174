"""Which header fields tell callers where they stand."""

from dataclasses import dataclass
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http.headers import is_token

_RESERVED = frozenset((
    "connection", "content-length", "content-type", "date", "ratelimit", "ratelimit-policy", "set-cookie",
    "transfer-encoding", "upgrade", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LimitHeaders(Configured):
    """Which header fields tell callers where they stand, for the ``headers`` of ``RateLimit`` and ``Quota``."""

    ietf: bool = True
    """``RateLimit`` and ``RateLimit-Policy`` of draft-ietf-httpapi-ratelimit-headers. Default: yes."""

    x_ratelimit: Literal["seconds", "epoch"] | None = None
    """``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset``, the last in seconds from now or since 1970. Of several
    limits they speak of the one of which the least is left. Default: none."""

    retry_after: str = "Retry-After"
    """What the time to wait is called in a refusal (Azure's ``retry-after-header-name``)."""

    remaining: str | None = None
    """A field for the units that are left (Azure's ``remaining-calls-header-name``). Default: none."""

    total: str | None = None
    """A field for the units of the limit (Azure's ``total-calls-header-name``). Default: none."""

    def __post_init__(self) -> None:
        """Names must be names, each for one thing, and none that means something else."""
        given = {field: getattr(self, field) for field in ("retry_after", "remaining", "total")}
        names = {field: name.lower() for field, name in given.items() if name is not None}
        for field, name in names.items():
            if not is_token(name.encode("latin-1", "replace")) or not name.isascii():
                raise self.mistake(field, "is no name of a header field", 'Give one such as "X-Calls-Left"')
            if name in _RESERVED or list(names.values()).count(name) > 1:
                raise self.mistake(field, "means something else already", 'Give one such as "X-Calls-Left"')
