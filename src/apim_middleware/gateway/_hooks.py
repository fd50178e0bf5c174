"""What a gateway itself does within its plans, as policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime

from apim_middleware._http.paths import routed_path
from apim_middleware.exchange import Exchange
from apim_middleware.model import Deprecation
from apim_middleware.policy import Policy
from apim_middleware.types import RawHeaders


@dataclass(frozen=True)
class Enter(Policy):
    """The path of an API ends here: what follows is mounted there."""

    guards = False

    path: str
    """The API's path, of requests that name it so."""

    def on_request(self, exchange: Exchange) -> None:
        """Tell those further in where they are mounted."""
        match = exchange.shared.match
        prefix = self.path if match is None or match.prefix is None else match.prefix
        if prefix:
            scope = exchange.scope  # a root that the path does not begin with is none: it would hide ours
            scope["root_path"] = routed_path(scope)[0] + prefix


@dataclass(frozen=True)
class Refuse(Policy):
    """Nobody comes further than this: why not, is known by now."""

    guards = False

    def on_request(self, exchange: Exchange) -> None:
        """Raise the refusal that matching came to."""
        match = exchange.shared.match
        if match is None or match.refusal is None:
            raise RuntimeError("there is no reason to refuse")
        raise match.refusal


@dataclass(frozen=True)
class Identified(Policy):
    """Stands for what is done before the first policy: the subscription of the key is known, if there is one."""

    provides = frozenset({"subscription", "principal"})


@dataclass(frozen=True)
class Admitted(Policy):
    """Stands for the check of the subscription: who is not allowed to call comes no further."""

    guards = True
    provides = frozenset({"subscription"})


@dataclass(frozen=True)
class Announce(Policy):
    """Header lines that every response of a deprecated API gets, refusals too."""

    lines: tuple[tuple[bytes, bytes], ...]

    def on_response(self, exchange: Exchange) -> None:
        """Add them, beside those the backend may have."""
        if exchange.response is not None:
            exchange.response.headers += self.lines


def announcement(deprecation: Deprecation) -> Announce:
    """What tells callers that something is going to end."""
    lines = [(b"deprecation", b"@%d" % int(deprecation.since.timestamp()))]
    if deprecation.sunset is not None:
        lines.append((b"sunset", format_datetime(deprecation.sunset.astimezone(UTC), usegmt=True).encode()))
    return Announce((*lines, *links(deprecation)))


def links(deprecation: Deprecation) -> RawHeaders:
    """The ``Link`` line that belongs to a deprecation, if there is anything to link to."""
    named: Sequence[tuple[str, str]] = (
        ("deprecation", deprecation.link), ("sunset", deprecation.sunset_link),
        ("successor-version", deprecation.successor),
    )  # fmt: skip
    value = ", ".join(f'<{url}>; rel="{rel}"' for rel, url in named if url)
    return [(b"link", value.encode("ascii"))] if value else []


@dataclass(frozen=True)
class Varies(Policy):
    """Responses depend on the header that names the version: caches must know (RFC 9110 §12.5.5)."""

    header: bytes

    def on_response(self, exchange: Exchange) -> None:
        """Add it to ``Vary``."""
        if exchange.response is not None:
            exchange.response.append(b"vary", self.header)
