"""What can go wrong, as one tree.

ApimError
├── ConfigError         a mistake in configuration, raised while building
├── Refusal             raised by a policy: this exchange goes no further
├── StoreError          a store could not answer
│   ├── NotDone             and has certainly not done what it was asked
│   └── Spoiled             it is well, but cannot keep or read what this one call is about
├── VersionConflict     a record is not as whoever wants to change it believes
├── FeedLost            changes can be told only from a later version on
├── SubscriptionRefused a subscription cannot begin, or is not there to be approved or rejected
├── ClientLeft          the client left before its request was whole (an OSError too)
└── TransportError      an upstream could not be asked
    ├── ConnectFailed       no connection was made; nothing was sent
    │   └── NoConnectionFree    there are as many as there may be
    ├── UpstreamTimeout     it took too long
    └── UpstreamBroken      it broke off or did not speak HTTP

OSError
└── ResponseOver        given to an app that goes on sending after its response was replaced or broken off
"""

from collections.abc import Iterable, Mapping

from apim_middleware._http.headers import raw_headers
from apim_middleware._http.statuses import phrase
from apim_middleware.types import RawHeaders


class ApimError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigError(ApimError, ValueError, TypeError):
    """A mistake in configuration: which policy, which field, what was given, and the cure."""

    def __init__(self, policy: str, field: str, problem: str, cure: str) -> None:
        """Keep the four parts."""
        super().__init__(policy, field, problem, cure)
        self.policy = policy
        self.field = field
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        """Where it is, the problem and the cure."""
        where = f"{self.policy}.{self.field}" if self.field else self.policy
        return f"{where}: {self.problem}. {self.cure}{'' if self.cure.endswith('?') else '.'}"


class Refusal(ApimError):
    """Raised by a policy to refuse the exchange; the caller gets it as problem+json (RFC 9457).

    ``status`` is the HTTP status, ``code`` a stable machine-readable word, ``detail`` a sentence for people,
    ``headers`` what goes along (a challenge, ``Retry-After``).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Check the headers now, so that a refusal can always be written."""
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers: RawHeaders = raw_headers(headers)

    @property
    def title(self) -> str:
        """The phrase that belongs to the status."""
        return phrase(self.status)


class ClientLeft(ApimError, OSError):
    """The client left before its request body was whole."""


class StoreError(ApimError):
    """A store could not answer; the cause is the driver's own error. It may have done what it was asked, though."""


class NotDone(StoreError):
    """A store could not answer, and has certainly not done what it was to be asked."""


class Spoiled(StoreError):
    """A store is well, but cannot keep or read what this one call is about; other corrections with it are made."""


class VersionConflict(ApimError):
    """A record has another version than the one that was said; ``version`` is what it has, 0 when there is none."""

    def __init__(self, version: int) -> None:
        """Keep the version it has."""
        super().__init__(version)
        self.version = version

    def __str__(self) -> str:
        """What to do about it."""
        return "the record was changed meanwhile: read it again"


class FeedLost(ApimError):
    """Not all changes since this version are known any more: read everything again, from version 0."""


class SubscriptionRefused(ApimError):
    """A subscription cannot begin, be approved or be rejected; the message says for whom, for what, and what to do.

    ``code`` is a stable word for why: ``product-unknown``, ``product-not-published``, ``product-not-for-owner``,
    ``owner-not-active``, ``subscriptions-limit-reached``, ``subscription-exists``, ``subscription-not-waiting``.
    """

    def __init__(self, code: str, problem: str, cure: str) -> None:
        """Keep the three parts."""
        super().__init__(code, problem, cure)
        self.code = code
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        """The problem and the cure, a sentence each."""
        return f"{self.problem}. {self.cure}."


class TransportError(ApimError):
    """An upstream could not be asked; the cause is the client library's own error."""

    told: bool = False
    """Whether the log has been told, so that a server need not show where it came from."""


class ConnectFailed(TransportError):
    """No connection was made, so nothing was sent: always safe to try elsewhere."""


class NoConnectionFree(ConnectFailed):
    """There are as many connections as there may be, and none became free in time; says nothing of the upstream."""


class UpstreamTimeout(TransportError):
    """The upstream took longer than allowed."""


class UpstreamBroken(TransportError):
    """The upstream closed early or did not speak HTTP."""


class ResponseOver(OSError):
    """The response of this app was replaced or broken off; what it still sends goes nowhere."""


def refusal_of(error: TransportError) -> Refusal:
    """What callers are told of an upstream that could not be asked, where nothing was sent to them yet."""
    if isinstance(error, NoConnectionFree):
        return Refusal(
            503, "upstream-busy", "Every connection to the upstream is in use.", headers={"retry-after": "1"}
        )
    if isinstance(error, ConnectFailed):
        return Refusal(502, "upstream-unreachable", "The upstream could not be reached.")
    if isinstance(error, UpstreamTimeout):
        return Refusal(504, "upstream-timeout", "The upstream took too long.")
    return Refusal(502, "upstream-broken", "The upstream did not give a proper response.")
