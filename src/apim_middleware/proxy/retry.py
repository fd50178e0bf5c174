"""Asking again, and asking twice: ``Retry`` and ``Hedge``, and the budget that keeps both from making things worse."""

from dataclasses import dataclass

from apim_middleware._config import Configured
from apim_middleware._http.headers import is_token
from apim_middleware._http.targets import IDEMPOTENT
from apim_middleware.proxy._outcomes import KINDS, Kind
from apim_middleware.proxy._statuses import statuses_of

_RESERVE = 10.0
"""Repetitions that are possible at once, however few requests there were."""


@dataclass(frozen=True, kw_only=True)
class Retry(Configured):
    """Ask again when an upstream fails, another member of the pool if there is one.

    A request that may have been executed is repeated only if its method is one of ``methods``, the idempotent ones by
    default; one of which nothing was sent, because no connection was made, always. Its body is kept for that up to
    ``max_body_bytes``; once more has gone up, nothing is repeated. Nor is anything once a response has begun to go
    down. Follows Azure's ``retry`` around ``forward-request``.
    """

    attempts: int = 3
    """How often a request is sent at the most, the first time included: from 2 to 50."""

    statuses: tuple[int | str, ...] = (502, 503, 504)
    """Statuses after which it is sent again: ``503``, ``"5xx"``, ``"500-504"``; ``()`` for none."""

    methods: tuple[str, ...] = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
    """Methods that may be sent again, all of them; by default those that are idempotent (RFC 9110 §9.2.2).

    ``(*Retry.methods, "POST")`` names one more. A ``POST`` is sent again only when an upstream answered with one of
    ``statuses``: one that did the work and then failed does it twice. 429 and 503 say that it was not done; 500, 502
    and 504 do not. When a connection broke, or took too long, nobody knows, and it is not sent again unless
    ``non_idempotent`` says so.
    """

    non_idempotent: bool = False
    """Whether methods named above that are not idempotent, such as ``POST``, are sent again after ``errors`` as well,
    when nobody knows whether it was done: it may be done twice. nginx's ``non_idempotent``."""

    errors: tuple[Kind, ...] = KINDS
    """Errors after which it is sent again: ``"connect"``, ``"timeout"``, ``"broken"``; all by default."""

    backoff: float = 0.025
    """Seconds to wait at the most before the same member is asked a second time, doubled for each time after it; how
    long it really is, is drawn evenly from 0 (full jitter). Another member is asked at once."""

    max_backoff: float = 1.0
    """Seconds to wait at the most, however often it was tried. What the ``Retry-After`` of a member asks for is waited
    for before the same one is asked again, if it is no longer than this; if it is, the response goes down as it is.
    Another member is not kept waiting by it."""

    max_body_bytes: int = 65_536
    """How many bytes of a request body are kept, whether it comes in parts or at once."""

    budget: float = 0.2
    """How many repetitions there may be for each request, above 0 up to 1, so that an upstream in trouble is not
    buried; ten, and one more each second, there may be in any case."""

    per_try: float | None = None
    """Seconds each time may take until the response head; None for no limit beside those of the proxy. A client whose
    body does not come in that time gets 408 ``request-timeout``, and no member is blamed for it."""

    deadline: float | None = None
    """Seconds all times together may take until the response head, waiting included; None for no limit."""

    def __post_init__(self) -> None:
        """The numbers must make sense."""
        if not 2 <= self.attempts <= 50:
            raise self.mistake("attempts", "is out of range", "Give a number from 2 to 50; leave Retry out for 1")
        if not 0 <= self.backoff <= self.max_backoff <= 3600:
            raise self.mistake("backoff", "is no time up to max_backoff", "Give 0 <= backoff <= max_backoff <= 3600")
        if self.max_body_bytes < 0:
            raise self.mistake("max_body_bytes", "is no size", "Give bytes, 0 to keep nothing")
        if not 0 < self.budget <= 1:
            raise self.mistake("budget", "is no part", "Give a number above 0, up to 1")
        for name in ("per_try", "deadline"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise self.mistake(name, "leaves no time", "Give seconds above 0")
        if not statuses_of(self, "statuses") and not self.errors:
            raise self.mistake("statuses", "leaves nothing to repeat for", "Write statuses=(502, 503, 504)")
        self._check_methods()

    def _check_methods(self) -> None:
        if not self.methods:
            raise self.mistake("methods", "leaves nothing to repeat", 'Write methods=("GET", "HEAD"), or leave it out')
        for method in self.methods:
            if not is_token(method.encode("latin-1", "replace")) or method != method.upper():
                cure = 'Write methods=(*Retry.methods, "POST"), in capitals'
                raise self.mistake("methods", f"holds {method!r}, which is no method", cure)
            if method not in IDEMPOTENT and not (self.statuses or self.non_idempotent):
                cure = "Write statuses=(429, 503) or non_idempotent=True, or leave it out of methods"
                raise self.mistake("methods", f"holds {method}, which is repeated only after statuses", cure)
        if self.non_idempotent and IDEMPOTENT.issuperset(self.methods):
            cure = 'Write methods=(*Retry.methods, "POST"), or leave it out'
            raise self.mistake("non_idempotent", "is about none of the methods", cure)

    def wait(self, repetition: int, drawn: float) -> float:
        """Seconds before this repetition, counted from 1; ``drawn`` is from 0 up to 1."""
        return drawn * min(self.max_backoff, self.backoff * 2.0 ** min(repetition - 1, 64))


@dataclass(frozen=True, kw_only=True)
class Hedge(Configured):
    """Ask a second member when the first takes long, and take the answer that comes first; the other is given up.

    Only ``GET`` and ``HEAD`` without a body are asked twice, and only where another member is available.
    """

    after: float
    """Seconds without a response head before the second is asked: a little more than most answers take."""

    budget: float = 0.1
    """How many second questions there may be for each request, above 0 up to 1; ten, and one more each second, there
    may be in any case."""

    def __post_init__(self) -> None:
        """The numbers must make sense."""
        if not 0 < self.after <= 3600:
            raise self.mistake("after", "is out of range", "Give seconds above 0, up to 3600")
        if not 0 < self.budget <= 1:
            raise self.mistake("budget", "is no part", "Give a number above 0, up to 1")


class Budget:
    """What may be spent on asking again: every request pays in, every repetition takes out."""

    __slots__ = ("_at", "_left", "_share")

    def __init__(self, share: float, now: float) -> None:
        """Begin with what there may be in any case."""
        self._share = share
        self._left, self._at = _RESERVE, now

    def pay_in(self) -> None:
        """A request was made."""
        self._left = min(self._left + self._share, _RESERVE * 10)

    def take(self, now: float) -> bool:
        """Whether a repetition can be paid for; then it is."""
        if self._left < _RESERVE:
            self._left = min(_RESERVE, self._left + max(0.0, now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
