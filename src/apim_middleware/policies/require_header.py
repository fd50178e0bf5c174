"""A request header that must be there, with one of some values (Azure's check-header)."""

import hmac
from dataclasses import dataclass, field
from http import HTTPStatus

from apim_middleware._http.challenges import scheme_of
from apim_middleware._http.headers import header_name, header_value
from apim_middleware._http.unseen import unseen
from apim_middleware._unseen_reads import look_at_read
from apim_middleware.documentation import Answer, Asked, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated

_NEEDS_MORE = frozenset((405, 407, 426))
"""Statuses that must come with fields this policy knows nothing of (RFC 9110 §15.5.6, §15.5.8, §15.5.22)."""


@dataclass(frozen=True, kw_only=True)
class RequireHeader(Policy):
    """Let in the requests that have a header field, with one of these values where values are given.

    Values are compared whole, in constant time. Where values are given, a field sent on several lines is refused even
    if each is accepted, for nobody knows which of them others will read (RFC 9110 §5.3).

    Refusals, both with ``status``: ``header-missing`` and ``header-refused``.
    Follows Azure's ``check-header``.
    """

    guards = True

    name: str
    """The field's name."""

    values: str | tuple[str, ...] = field(default=(), repr=False)
    """Accepted values, one text or a tuple; without any it is enough that the field was sent. Not in the repr."""

    ignore_case: bool = False
    """Whether the letters A to Z are compared without case."""

    status: int = 400
    """The status of a refusal, 400 to 599; 401 needs a ``challenge``."""

    message: str = ""
    """What a refusal tells people. Default: which header is required, and never a value."""

    challenge: str | None = None
    """The ``WWW-Authenticate`` of a 401, as in ``'Bearer realm="api"'``."""

    @stated
    def documentation(self) -> Documentation:
        """The header, without its values: these may be secrets."""
        codes = ("header-missing", "header-refused") if self._accepted() else ("header-missing",)
        told = () if self.challenge is None else ("www-authenticate",)
        return Documentation(answers=(Answer(self.status, codes, told),), asks=(Asked(self.name, required=True),))

    def __post_init__(self) -> None:
        """Name and values must be such as can arrive, the status one that can be written."""
        self._check_name()
        try:
            values = [header_value(each) for each in self._accepted()]
        except ValueError as error:
            raise self.mistake("values", f"cannot be sent: {error}", "Give printable Latin-1 text") from None
        if b"" in values:
            raise self.mistake("values", "holds an empty value", "Give the exact text")
        if not 400 <= self.status <= 599 or self.status in _NEEDS_MORE or self.status not in set(HTTPStatus):
            raise self.mistake("status", "is no status to refuse with", "Give one such as 400 or 403")
        if self.challenge is not None and scheme_of(self.challenge) is None:
            raise self.mistake("challenge", "is no challenge", "Write 'Bearer realm=\"api\"'")
        if (self.status == 401) != (self.challenge is not None):
            cure = "Give both: a 401 must say what to come back with (RFC 9110 §15.5.2), and nothing else does"
            raise self.mistake("challenge", f"goes along with the status {self.status}", cure)

    def _check_name(self) -> None:
        try:
            name = header_name(self.name)
        except ValueError:
            raise self.mistake("name", "is not a header name", "Use letters, digits and hyphens") from None
        if found := unseen(name):
            problem, cure = found
            raise self.mistake("name", f"is a field that hygiene {problem}", cure)

    def _accepted(self) -> tuple[str, ...]:
        return (self.values,) if isinstance(self.values, str) else self.values

    def bind(self, env: Env) -> "_Presence | _Comparison":
        """The check that is needed."""
        look_at_read(self, "name", self.name, env)
        accepted = self._accepted()
        return _Comparison(self, accepted) if accepted else _Presence(self)


class _Presence:
    """The field must be there."""

    def __init__(self, policy: RequireHeader) -> None:
        self._name = header_name(policy.name)
        self._status = policy.status
        self._missing = policy.message or f"The header {policy.name} is required."
        self._refused = policy.message or f"The header {policy.name} does not have an accepted value."
        self._headers = {} if policy.challenge is None else {"www-authenticate": policy.challenge}

    def on_request(self, exchange: Exchange) -> None:
        if exchange.header(self._name) is None:
            raise self._refusal("header-missing", self._missing)

    def _refusal(self, code: str, detail: str) -> Refusal:
        return Refusal(self._status, code, detail, headers=self._headers)


class _Comparison(_Presence):
    """The field must be there once, with an accepted value."""

    def __init__(self, policy: RequireHeader, accepted: tuple[str, ...]) -> None:
        super().__init__(policy)
        self._lower = policy.ignore_case
        self._accepted = [self._folded(header_value(each)) for each in accepted]

    def _folded(self, value: bytes) -> bytes:
        value = value.strip(b" \t")
        return value.lower() if self._lower else value  # of bytes: A to Z alone

    def on_request(self, exchange: Exchange) -> None:
        super().on_request(exchange)
        sent = exchange.headers(self._name)
        value = self._folded(sent[0])
        met = sum([hmac.compare_digest(value, each) for each in self._accepted])  # all of them: values may be secrets
        if len(sent) > 1 or not met:
            raise self._refusal("header-refused", self._refused)
