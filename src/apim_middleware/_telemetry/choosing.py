"""What a policy that writes down requests may be told to leave out, and to write."""

from typing import Protocol

from apim_middleware._http.headers import is_token
from apim_middleware._telemetry.masking import is_secret_header
from apim_middleware.errors import ConfigError


class Choosing(Protocol):
    """A policy whose fields choose what is written down."""

    @property
    def exclude(self) -> tuple[str, ...]:
        """Paths of requests that are left out."""

    @property
    def redact(self) -> tuple[str, ...]:
        """Names of query parameters whose values are masked."""

    @property
    def request_headers(self) -> tuple[str, ...]:
        """Names of request headers that are written."""

    @property
    def response_headers(self) -> tuple[str, ...]:
        """Names of response headers that are written."""

    def mistake(self, field: str, problem: str, cure: str) -> ConfigError:
        """The error about a field."""


def check_choice(policy: Choosing) -> None:
    """Raise ConfigError for a path that is none, and for a header that is no name or carries credentials."""
    for path in policy.exclude:
        if not path.startswith("/") or "*" in path[:-1]:
            raise policy.mistake("exclude", "holds no path", 'Write paths as "/health" or "/internal/*"')
    for field, names in (("request_headers", policy.request_headers), ("response_headers", policy.response_headers)):
        check_names(policy, field, names)
        for name in names:
            if is_secret_header(name):
                raise policy.mistake(field, f"would record {name}, which carries credentials", f"Leave out {name}")


def check_names(policy: Choosing, field: str, names: tuple[str, ...]) -> None:
    """Raise ConfigError for what cannot be a name."""
    if not all(is_token(name.encode("latin-1", "replace")) for name in names):
        raise policy.mistake(field, "holds something that is no name", "Give names without blanks")
