"""What an authenticated caller may do: scopes, roles, groups and claims, or a function."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, NamedTuple, TypeAlias

from apim_middleware._config import awaits
from apim_middleware._functions import needs
from apim_middleware._http.challenges import scheme_of, with_parameters
from apim_middleware._jose.claims import Path, members, names_a_claim, steps
from apim_middleware._jose.tokens import Scalar, can_come, exactly
from apim_middleware.conditions import Condition, holds
from apim_middleware.documentation import Answer, Documentation, challenged
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.policy import Policy, stated

Names: TypeAlias = str | tuple[str, ...]
"""One name, or several."""

_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3


@dataclass(frozen=True, kw_only=True)
class Authorize(Policy):
    """Let in the callers who may do this; an authenticator further out says who they are.

    Everything that is given must hold; with nothing given it is enough that somebody is known. A claim is named by its
    path: ``"realm_access.roles"`` is the member ``roles`` of ``realm_access``. A name with a colon is a URI and taken
    whole (``"https://example.com/roles"``), and a tuple names each step where names hold dots.

    Refusals: 401 ``authentication-required`` with a challenge when nobody is known (RFC 9110 §15.5.2); 403
    ``insufficient-scope`` with the challenge of RFC 6750 §3.1 when scopes are all that is missing; 403 ``forbidden``
    for everything else. What was missing is told as the attribute ``apim.authorize.failure``, never to the caller.
    """

    guards = True

    scopes: Names = ()
    """Scopes that must all be granted; several in one string are separated by spaces."""

    any_scope: Names = ()
    """Scopes one of which must be granted; a challenge asks for the first, so write the least first."""

    roles: Names = ()
    """Roles the caller must all have."""

    any_role: Names = ()
    """Roles one of which the caller must have."""

    groups: Names = ()
    """Groups the caller must all be in, by what the claim calls them: names or ids."""

    any_group: Names = ()
    """Groups one of which the caller must be in."""

    claims: Mapping[Path, Scalar | tuple[Scalar, ...]] = field(default_factory=dict, hash=False)
    """Claims by their paths, each with its value or a tuple of accepted ones.

    An array needs one member with an accepted value. ``True`` is not 1.
    """

    subjects: Names = ()
    """The callers that may come in, by their subjects; they are told apart only under an ``issuer``."""

    issuer: Names | None = None
    """Whose word counts: the principal's issuer is one of these. Default: that of every authenticator further out."""

    allow: Callable[[Exchange], bool | Awaitable[bool]] | None = None
    """A function of the exchange, async or not, that says ``True`` for who may come in; asked last."""

    when: Condition | None = None
    """The requests this is about, as a plain condition such as ``conditions.method("POST")``; others go past it."""

    roles_claim: Path = "roles"
    """The claim roles stand in: an array of texts, or one text."""

    groups_claim: Path = "groups"
    """The claim groups stand in: an array of texts, or one text."""

    challenge: Names = 'Bearer realm="api"'
    """What a caller who is not known is told to bring; a ``Bearer`` challenge also names the scopes."""

    @stated
    def documentation(self) -> Documentation:
        """The scopes, and what is answered to those who may not."""
        scopes = (*_scopes(self.scopes), *_scopes(self.any_scope)[:1])
        answers = [challenged(401, "authentication-required")]
        if scopes:
            answers.append(challenged(403, "insufficient-scope"))
        if any(True for _ in _demands(self)) or self.allow is not None:
            answers.append(Answer(403, ("forbidden",)))
        found = Documentation(scopes=scopes, answers=tuple(answers))
        return found if self.when is None else found.optional()

    @stated
    def needs(self) -> frozenset[str]:
        """The principal, and what the functions rely on."""
        asked = [needs(each) for each in (self.when, self.allow) if each is not None]
        return frozenset({"principal"}).union(*asked)

    def __post_init__(self) -> None:
        """Refuse what could never let anybody in, or would let in another than was meant."""
        self._check_names()
        self._check_claims()
        if awaits(self.when):
            raise self.mistake("when", "must be awaited", "Give a plain condition, or use When, which awaits")
        if self.subjects and self.issuer is None:
            problem = "are not told apart from those of other issuers"
            raise self.mistake("subjects", problem, "Give the issuer, too: subjects are unique under theirs only")
        if not _names(self.challenge) or None in map(scheme_of, _names(self.challenge)):
            raise self.mistake("challenge", "is no challenge", "Write 'Bearer realm=\"api\"'")

    def _check_names(self) -> None:
        for name in ("roles", "any_role", "groups", "any_group", "subjects"):
            if "" in _names(getattr(self, name)):
                raise self.mistake(name, "holds an empty name", "Give the exact text")
        for name in ("scopes", "any_scope"):
            if isinstance(getattr(self, name), str) and not _scopes(getattr(self, name)):
                raise self.mistake(name, "names no scope", "Name one, or leave it out")
            if not all(map(_SCOPE.fullmatch, _scopes(getattr(self, name)))):
                raise self.mistake(name, "holds what is no scope", f'Write {name}=("orders.read", "orders.write")')
        if self.issuer == ():
            raise self.mistake("issuer", "is nobody's word", "Name an issuer, or leave it out")

    def _check_claims(self) -> None:
        paths = [("roles_claim", self.roles_claim), ("groups_claim", self.groups_claim)]
        for name, path in (*paths, *(("claims", path) for path in self.claims)):
            if not names_a_claim(path):
                raise self.mistake(name, "names no claim", 'Write "roles" or "realm_access.roles"')
        for path, accepted in self.claims.items():
            if accepted == ():
                raise self.mistake("claims", f"accepts no value of {path}", "Give at least one value")
            if not can_come(accepted):
                raise self.mistake("claims", f"wants a {path} that no token can have", "Give finite numbers")

    def bind(self, env: Env) -> "_Gate | _AskingGate":
        """The gate: async where there is a function to ask."""
        return _Gate(self) if self.allow is None else _AskingGate(self)


def _names(value: Names) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _scopes(value: Names) -> tuple[str, ...]:
    return tuple(value.split()) if isinstance(value, str) else value


class _Demand(NamedTuple):
    """What must be so of a caller, and what it is called in traces."""

    name: str
    met: Callable[[Principal], bool]


def _demands(policy: Authorize) -> Iterator[_Demand]:
    """What is asked of a caller, but for scopes, which have a refusal of their own."""
    if policy.issuer is not None:
        issuers = frozenset(_names(policy.issuer))
        yield _Demand("issuer", lambda caller: caller.issuer in issuers)
    if policy.subjects:
        subjects = frozenset(_names(policy.subjects))
        yield _Demand("subject", lambda caller: caller.subject in subjects)
    yield from _of_names("roles", policy.roles_claim, policy.roles, policy.any_role)
    yield from _of_names("groups", policy.groups_claim, policy.groups, policy.any_group)
    for path, accepted in policy.claims.items():
        yield _of_claim(steps(path), accepted)


def _of_names(name: str, path: Path, every: Names, one: Names) -> Iterator[_Demand]:
    way, wanted, any_of = steps(path), frozenset(_names(every)), frozenset(_names(one))
    if wanted:
        yield _Demand(name, lambda caller: wanted.issubset(members(caller.claims, way)))
    if any_of:
        yield _Demand(name, lambda caller: not any_of.isdisjoint(members(caller.claims, way)))


def _of_claim(way: tuple[str, ...], accepted: Scalar | tuple[Scalar, ...]) -> _Demand:
    wanted = exactly(accepted if isinstance(accepted, tuple) else (accepted,))
    return _Demand("claims", lambda caller: not wanted.isdisjoint(exactly(members(caller.claims, way))))


class _Judge:
    """Compares what the caller is with what is asked."""

    def __init__(self, policy: Authorize) -> None:
        self._when = policy.when
        self._demands = tuple(_demands(policy))
        self._scopes = frozenset(_scopes(policy.scopes))
        self._any_scope = frozenset(_scopes(policy.any_scope))
        self._challenges = _Challenges(policy)

    def _concerns(self, exchange: Exchange) -> bool:
        return self._when is None or holds(self._when, exchange)

    def _judge(self, exchange: Exchange) -> None:
        caller = exchange.principal
        if caller is None:
            raise self._challenges.unknown()
        for demand in self._demands:
            if not demand.met(caller):
                raise _forbidden(exchange, demand.name)
        if not self._scopes <= caller.scopes or (self._any_scope and self._any_scope.isdisjoint(caller.scopes)):
            exchange.attributes["apim.authorize.failure"] = "scopes"
            raise self._challenges.insufficient()


class _Gate(_Judge):
    def on_request(self, exchange: Exchange) -> None:
        if self._concerns(exchange):
            self._judge(exchange)


class _AskingGate(_Judge):
    """Asks a function when everything else holds."""

    def __init__(self, policy: Authorize) -> None:
        super().__init__(policy)
        self._allow: Any = policy.allow

    async def on_request(self, exchange: Exchange) -> None:
        if not self._concerns(exchange):
            return
        self._judge(exchange)
        verdict = self._allow(exchange)
        if isawaitable(verdict):
            verdict = await verdict
        if verdict is not True:  # a forgotten return, or a text that says no, lets nobody in
            raise _forbidden(exchange, "allow")


def _forbidden(exchange: Exchange, failure: str) -> Refusal:
    exchange.attributes["apim.authorize.failure"] = failure
    return Refusal(403, "forbidden", "This caller may not do this.")


class _Challenges:
    """The refusals that tell a caller what to bring."""

    def __init__(self, policy: Authorize) -> None:
        challenges = _names(policy.challenge)
        scope = " ".join((*_scopes(policy.scopes), *_scopes(policy.any_scope)[:1]))
        asking = {"scope": scope} if scope else {}
        bearers = [each for each in challenges if scheme_of(each) == "bearer"]
        self._bare = _lines([with_parameters(each, **asking) if each in bearers else each for each in challenges])
        self._more = _lines([with_parameters(each, error="insufficient_scope", **asking) for each in bearers])

    def unknown(self) -> Refusal:
        return Refusal(401, "authentication-required", "It must be known who is calling.", headers=self._bare)

    def insufficient(self) -> Refusal:
        return Refusal(403, "insufficient-scope", "The caller was not granted what this needs.", headers=self._more)


def _lines(challenges: list[str]) -> list[tuple[bytes, bytes]]:
    return [(b"www-authenticate", each.encode()) for each in challenges]
