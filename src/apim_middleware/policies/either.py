"""Several authenticators as one: any of them lets in, or all of them must."""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal, Self

from apim_middleware._config import check_one_by_one
from apim_middleware._http import cookies, queries
from apim_middleware._http.headers import get
from apim_middleware._order import unmet
from apim_middleware._ring import refusal_messages
from apim_middleware.bodies import Collected
from apim_middleware.conditions import authentication_failed
from apim_middleware.documentation import Answer, Documentation, challenged, documentation_of, either, together
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import KEY, Exchange, Shared
from apim_middleware.policy import Policy, Stack, led_to, policies_in, ring, stated
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

_MISSING = "-missing"
_serial = itertools.count(1)


class _Combined(Policy):
    """What ``AnyOf`` and ``AllOf`` share: towards the order check they are all the policies in them."""

    layers: tuple[Policy | Stack, ...]

    one_by_one = "layers"

    def _check(self) -> None:
        """Each must decide who comes in, and none may let in who brings nothing, unless that is said out loud."""
        if not self.layers:
            raise self.mistake("layers", "holds no authenticator", f"Write {type(self).__name__}(JWTAuth(...), ...)")
        for layer in self.layers:
            policies = policies_in(layer)
            if not any(policy.guards for policy in policies):
                cure = "Give authenticators; a policy of your own says guards = True"
                raise self.mistake("layers", f"holds {type(layer).__name__}, which lets everybody in", cure)
            for policy in policies:
                if getattr(policy, "optional", False) is True or getattr(policy, "anonymous", False) is True:
                    problem = f"holds {type(policy).__name__}, which lets in who brings nothing"
                    raise self.mistake("layers", problem, "Leave that out there, and write AnyOf(..., anonymous=True)")

    @stated
    def needs(self) -> frozenset[str]:
        """What one of them relies on and does not establish itself."""
        return frozenset[str]().union(*(unmet(policies_in(layer)) for layer in self.layers))

    @stated
    def leads_to(self) -> tuple[ASGIApp, ...]:
        """Where its layers send requests besides."""
        return tuple(app for layer in self.layers for app in led_to(layer))

    @stated
    def provides(self) -> frozenset[str]:
        """What one of them establishes."""
        return frozenset[str]().union(*(each.provides for layer in self.layers for each in policies_in(layer)))

    @stated
    def guards(self) -> bool:
        """Always: it decides who may come in."""
        return True

    @stated
    def answers(self) -> bool:
        """Whether one of them may answer from memory."""
        return any(each.answers for layer in self.layers for each in policies_in(layer))


@dataclass(frozen=True, init=False)
class AllOf(_Combined):
    """Let in who passes every one of these, asked in the order written: ``AllOf(JWTAuth(...), APIKeyAuth(...))``.

    It behaves as ``Stack`` of them, and also sees to it that each of them guards and none is optional, so that it can
    stand in ``AnyOf``. The first that refuses answers, with its own challenge. The principal is the one named last;
    an ``APIKeyAuth`` names one only where nobody else has.
    """

    layers: tuple[Policy | Stack, ...]
    """Authenticators, and stacks with at least one in them."""

    def __new__(cls, *layers: Policy | Stack, **given: object) -> Self:
        """Check what was given, the layers as one field."""
        check_one_by_one(cls.__name__, "layers", given)
        return super().__new__(cls, layers=layers, **given)

    def __init__(self, *layers: Policy | Stack) -> None:
        """Keep the layers as one field."""
        object.__setattr__(self, "layers", layers)
        self._check()
        Stack(*layers)  # which checks their order

    @stated
    def needs(self) -> frozenset[str]:
        """What they rely on and those before them do not establish."""
        return unmet(Stack(*self.layers).policies())

    @stated
    def documentation(self) -> Documentation:
        """What all its layers ask of callers and may answer, together."""
        return together(map(documentation_of, self.layers))

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """All of them in front of the app, one behind the other."""
        return Stack(*self.layers).build(app, env.within("AllOf"))


@dataclass(frozen=True, init=False)
class AnyOf(_Combined):
    """Let in who passes one of these, asked in the order written: ``AnyOf(JWTAuth(...), APIKeyAuth(...))``.

    The first whose credentials are there and good lets in, and only what it did to the request stays done. One asked
    before that whose credentials are there and bad ends the matter: a refusal whose code ends in ``-missing`` says that
    there were none, every other answer that they were bad.

    Those behind the one that lets in are not asked: what they would have looked at goes on to the app as it came, be it
    forged. So write first who looks at what an app behind might believe: ``AnyOf(JWTAuth(...), APIKeyAuth(...))``.

    Refusals: 401 ``credentials-missing`` when all of them missed theirs, else the refusal of the one that found them
    bad. A 401 has the challenges of all that refused (RFC 9110 §11.6.1).
    """

    layers: tuple[Policy | Stack, ...]
    """Authenticators, and stacks with at least one in them."""

    _: KW_ONLY

    anonymous: bool = False
    """Whether a request with none of the credentials goes on, without a principal; one with bad ones never does."""

    when_bad: Literal["refuse", "next"] = "refuse"
    """What becomes of a request with bad credentials: refused, or the next may find them good.

    ``next`` is for authenticators that read the same credentials, such as one ``JWTAuth`` for each issuer. Credentials
    that were bad to all who read them are a failure to ``LimitGuesses``, whoever lets in by others.
    """

    def __new__(cls, *layers: Policy | Stack, **given: object) -> Self:
        """Check what was given, the layers as one field."""
        check_one_by_one(cls.__name__, "layers", given)
        return super().__new__(cls, layers=layers, **given)

    def __init__(
        self, *layers: Policy | Stack, anonymous: bool = False, when_bad: Literal["refuse", "next"] = "refuse"
    ) -> None:
        """Keep the layers as one field."""
        for name, value in {"layers": layers, "anonymous": anonymous, "when_bad": when_bad}.items():
            object.__setattr__(self, name, value)
        self._check()

    @stated
    def documentation(self) -> Documentation:
        """What any one of its layers asks of callers; who brings nothing is told of all."""
        found = either(map(documentation_of, self.layers))
        bad, missing = _split(found.answers)
        if not self.anonymous:
            asked = any("www-authenticate" in each.headers for each in missing)
            bad += [challenged(401, "credentials-missing")] if asked else missing
        found = replace(found, answers=tuple(bad))
        return found.optional() if self.anonymous else found

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Each of them in front of the app, and before them the door that asks one after the other."""
        return ring(self, _Door(self, app, env.within("AnyOf")), app, env, closed=True)


def _split(answers: Iterable[Answer]) -> tuple[list[Answer], list[Answer]]:
    """What is answered to bad credentials, and to those who bring none."""
    bad, missing = list[Answer](), list[Answer]()
    for each in answers:
        none = tuple(code for code in each.codes if code.endswith(_MISSING))
        some = tuple(code for code in each.codes if code not in none)
        missing += [each._replace(codes=none)] if none else []
        bad += [each._replace(codes=some)] if some or not none else []
    return bad, missing


class _Door:
    """Asks one authenticator after the other, each with the request as it came."""

    def __init__(self, policy: AnyOf, app: ASGIApp, env: Env) -> None:
        self._anonymous = policy.anonymous
        self._stops = policy.when_bad == "refuse"
        self._app = app
        self._key = f"apim_middleware.any_of.{next(_serial)}"
        self._ways = [_Way(layer, layer.build(self._admit, env.within("branch"))) for layer in policy.layers]

    def on_request(self, exchange: Exchange) -> ASGIApp:
        return self._ask

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        before, heard = _Before(scope), _Heard(receive)
        refusals: list[_Attempt] = []
        for way in self._ways:
            attempt = _Attempt(way, heard, send)
            attempt.meet(scope, [each.way for each in refusals if each.failed])
            await self._try(attempt, scope)
            if attempt.admitted:
                return
            attempt.judge(scope)
            before.restore(scope)
            refusals.append(attempt)
            if self._stops and not attempt.missing:
                break
        _note(scope, any(each.failed for each in refusals))
        if self._anonymous and all(each.missing for each in refusals):
            heard.decide()
            await self._app(scope, heard.receive, send)
        else:
            for message in _answer(scope, refusals):
                await send(message)

    async def _try(self, attempt: "_Attempt", scope: Scope) -> None:
        scope[self._key] = attempt
        try:
            await attempt.way.app(scope, attempt.heard.receive, attempt.send)
        finally:
            scope.pop(self._key, None)  # what holds the scope must not be held by it

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What each authenticator has in the place of the app: whoever comes here is let in."""
        attempt: _Attempt = scope[self._key]
        attempt.admit(scope)
        await self._app(scope, receive, send)


class _Way:
    """One authenticator in front of the app, and where it looks for credentials."""

    def __init__(self, layer: Policy | Stack, app: ASGIApp) -> None:
        self.app = app
        schemes = [scheme.definition for needed in documentation_of(layer).security for scheme in needed]
        self._places = [_place(each) for each in schemes if each.get("type") != "mutualTLS"]  # which nobody guesses

    def brought(self, scope: Scope) -> set[tuple[str, str]]:
        """In which of these places something came."""
        return {place for place in self._places if _came(scope, *place)}


def _place(definition: Mapping[str, Any]) -> tuple[str, str]:
    """Where the credential of a security scheme stands."""
    kind, name = definition.get("in", "header"), definition.get("name", "authorization")
    return kind, name.lower() if kind == "header" else name


def _came(scope: Scope, kind: str, name: str) -> bool:
    if kind == "query":
        return bool(queries.values(scope.get("query_string", b""), name))
    if kind == "cookie":
        return bool(cookies.values(scope["headers"], name.encode()))
    return get(scope["headers"], name.encode()) is not None


class _Heard:
    """What came of the request's body; kept until somebody is let in, for the next one asked may want to read it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._again = deque[Message]()
        self._decided = False
        self._forget()

    def _forget(self) -> None:
        self._body = Collected()
        self._last: Message | None = None
        self._others: list[Message] = []

    async def receive(self) -> Message:
        message = self._again.popleft() if self._again else await self._receive()
        if not self._decided:
            self._keep(message)
        return message

    def _keep(self, message: Message) -> None:
        """Keep the body in one piece, and others once: how many there are is up to who sends and who asks."""
        if message["type"] == "http.request":
            self._body.add(message.get("body", b""))
            self._last = message
        elif not self._others or self._others[-1]["type"] != message["type"]:
            self._others.append(message)

    def rewind(self) -> None:
        told = [] if self._last is None else [{**self._last, "body": bytes(self._body)}]
        self._again.extendleft(reversed([*told, *self._others]))
        self._forget()

    def decide(self) -> None:
        """Nobody will ask for what was read until now."""
        self._decided = True
        self._forget()


class _Before:
    """The request and what was known of it, as they were before an authenticator was asked."""

    def __init__(self, scope: Scope) -> None:
        shared: Shared = scope[KEY].shared
        self._scope = dict(scope)
        self._known = [(name, getattr(shared, name)) for name in Shared.__slots__]
        self._attributes = dict(shared.attributes)

    def restore(self, scope: Scope) -> None:
        scope.clear()
        scope.update(self._scope)
        shared: Shared = scope[KEY].shared
        for name, value in self._known:
            setattr(shared, name, value)
        shared.attributes.clear()
        shared.attributes.update(self._attributes)


class _Attempt:
    """One authenticator asked: whether it let in, and else what it answered."""

    def __init__(self, way: _Way, heard: _Heard, send: Send) -> None:
        self.way, self.heard, self._send = way, heard, send
        self._others_failed = False
        self.admitted = self.failed = False
        self.messages: list[Message] = []
        self.refusal: Refusal | None = None
        self.attributes: dict[str, Any] = {}

    def meet(self, scope: Scope, failed: Sequence[_Way]) -> None:
        """See, before it takes anything out, whether other credentials have failed than those it may find good."""
        if failed:
            mine = self.way.brought(scope)
            self._others_failed = not mine or any(each.brought(scope) != mine for each in failed)

    def admit(self, scope: Scope) -> None:
        self.admitted = True
        self.heard.decide()
        _note(scope, self._others_failed)

    async def send(self, message: Message) -> None:
        if self.admitted:
            await self._send(message)
        else:
            self.messages.append(message)

    def judge(self, scope: Scope) -> None:
        """Note what became of it before all of it is undone, and let the next one read what this one read."""
        exchange: Exchange = scope[KEY]
        shared = exchange.shared
        self.refusal, self.attributes = shared.refusal, dict(shared.attributes)
        self.failed = authentication_failed(exchange) or (self.refusal is None and self.status == 401)
        self.heard.rewind()

    @property
    def missing(self) -> bool:
        """Whether there were no credentials for it, as far as it said so."""
        return self.refusal is not None and self.refusal.code.endswith(_MISSING)

    @property
    def status(self) -> int:
        if self.refusal is not None:
            return self.refusal.status
        return next((each["status"] for each in self.messages if "status" in each), 403)

    @property
    def challenges(self) -> RawHeaders:
        if self.status != 401:
            return []
        heads = (each.get("headers") or () for each in self.messages if "status" in each)
        lines = next(heads, ()) if self.refusal is None else self.refusal.headers
        return [(b"www-authenticate", value) for name, value in lines if name.lower() == b"www-authenticate"]


def _note(scope: Scope, failed: bool) -> None:
    """Tell who counts failures of one that is undone, or that another answer hides."""
    if failed:
        shared: Shared = scope[KEY].shared
        shared.rejected = True


def _answer(scope: Scope, refusals: list[_Attempt]) -> list[Message]:
    """One answer for all that refused."""
    challenges = list(dict.fromkeys(line for each in refusals for line in each.challenges))
    bad = [each for each in refusals if not each.missing]
    shared: Shared = scope[KEY].shared
    if not bad and challenges:
        shared.refusal = Refusal(401, "credentials-missing", "Credentials are required.", headers=challenges)
        return refusal_messages(shared.refusal, scope)
    chosen = _most_telling(bad or refusals)
    shared.refusal = chosen.refusal
    shared.attributes.update(chosen.attributes)
    return [_challenging(each, challenges) for each in chosen.messages] if chosen.status == 401 else chosen.messages


def _most_telling(refusals: Iterable[_Attempt]) -> _Attempt:
    """Who could not say comes before who knows the caller and says no, and both before who does not know them."""
    return min(refusals, key=lambda each: (each.status < 500, each.status != 403, each.status == 401))


def _challenging(message: Message, challenges: RawHeaders) -> Message:
    if "status" not in message:
        return message
    kept = [line for line in message.get("headers") or () if line[0].lower() != b"www-authenticate"]
    return {**message, "headers": [*kept, *challenges]}
