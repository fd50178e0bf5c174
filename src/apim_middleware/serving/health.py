"""Whether this process lives, and whether it is ready for work: ``Health`` answers those who ask.

``Drain`` is told that the process is about to end, so that others can be told in time.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from math import inf
from typing import TypeAlias

import anyio

from apim_middleware._config import Configured
from apim_middleware._http.headers import without
from apim_middleware.env import Env
from apim_middleware.policy import Composable
from apim_middleware.protocols import Clock
from apim_middleware.serving._notice import give_notice, hear_drain
from apim_middleware.serving.stores import checks_of
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

Check: TypeAlias = Callable[[], Awaitable[object] | object]
"""Says whether something is there: it fails by raising, or by giving False."""

_READS = ("GET", "HEAD")


class Drain:
    """Whether the process is about to end: it goes on serving, and asks for no more.

    ``begin`` begins it, from wherever the program likes. SIGUSR2 begins the drain of each ``Health`` that a server has
    started; SIGTERM does where there is a ``grace``, and the end of the server's lifespan in any case.
    """

    def __init__(self) -> None:
        """Nothing ends yet."""
        self.begun: bool = False

    def begin(self) -> bool:
        """From now on the process is not ready, and its connections end with the response they carry.

        Gives whether this was the beginning.
        """
        begun, self.begun = self.begun, True
        return not begun

    def __repr__(self) -> str:
        """What it stands at."""
        return f"<Drain begun={self.begun}>"


@dataclass(frozen=True, kw_only=True)
class Health(Composable, Configured):
    """Answer those who ask whether this process lives and is ready; a layer, to stand first.

    ``GET /healthz`` is answered 200 as long as requests are answered at all. ``GET /readyz`` is answered 200 when every
    check is passed, else 503, and 503 while draining. The answers are JSON, ``{"status": "ok"}``, ``"unavailable"`` or
    ``"draining"``, and say nothing of what is checked or why it fails: that is in the log. Other methods get 405.
    No policy behind it is asked, so probes need no key and use up no quota; everything else goes on as it came.
    """

    live: str = "/healthz"
    """The path that tells whether the process lives."""

    ready: str = "/readyz"
    """The path that tells whether it is ready."""

    checks: Mapping[str, Check] = field(default_factory=dict, hash=False)
    """What must be there for it to be ready, by names for the log: plain or async functions of no arguments."""

    stores: bool = False
    """Whether each store that its ``Env`` was given must answer too, as ``reachable`` of ``serving.stores`` asks.

    Leave it out where a process is of use without them: all processes that share a store are unready together.
    """

    timeout: float = 2.0
    """Seconds all checks together may take; what is not there by then is not there."""

    remember_for: float = 1.0
    """Seconds an outcome is told again without checking, so that many who ask cost no more than one."""

    drain: Drain = field(default_factory=Drain, compare=False)
    """What is told that the process is about to end. SIGUSR2 begins it, and ends nothing, unless the program handles
    that signal itself; the end of the server's lifespan begins it in any case."""

    grace: float = 0.0
    """Seconds between SIGTERM and the end it asks for: the process is not ready any more and still serves all that
    comes, until those who send it requests know. Of several in one process the longest counts.

    On uvicorn and granian, with asyncio or uvloop. A second SIGTERM to the process that serves ends it at once. The
    first process of several workers, or of granian with however many, passes on the first alone.
    """

    def __post_init__(self) -> None:
        """Two paths, and time to check."""
        for name in ("live", "ready"):
            path = getattr(self, name)
            if not path.startswith("/") or "?" in path:
                raise self.mistake(name, "is no path", 'Write "/healthz"')
        if self.live == self.ready:
            raise self.mistake("ready", "is the path of live too", "Give them two paths")
        if not self.timeout > 0:
            raise self.mistake("timeout", "leaves no time", "Give seconds above 0")
        for name in ("remember_for", "grace"):
            if not 0 <= getattr(self, name) < inf:
                raise self.mistake(name, "is no time", "Give seconds, or 0 for none")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Put it in front of an app."""
        return _Desk(self, app, env)


class _Desk:
    """Where probes are answered, and everything else goes past."""

    def __init__(self, rule: Health, app: ASGIApp, env: Env) -> None:
        self.rule, self.app = rule, app
        checks: dict[str, Check] = {**checks_of(env.given)} if rule.stores else {}
        self._readiness = _Readiness(rule, checks | dict(rule.checks), env.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule, kind = self.rule, scope["type"]
        if kind == "http" and scope["path"] == rule.live:
            await _tell(scope, send, "ok")
        elif kind == "http" and scope["path"] == rule.ready:
            ready = not rule.drain.begun and (scope["method"] not in _READS or await self._readiness.ask())
            await _tell(scope, send, "draining" if rule.drain.begun else "ok" if ready else "unavailable")
        elif kind == "http" and rule.drain.begun:
            await self.app(scope, receive, _parting(scope, send))
        elif kind == "lifespan":
            await self.app(scope, self._overheard(receive), send)
        else:
            await self.app(scope, receive, send)

    def _overheard(self, receive: Receive) -> Receive:
        async def told() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.rule.drain.begin()
            else:
                hear_drain(self.rule.drain)
                if self.rule.grace:
                    give_notice(self.rule.grace, self.rule.drain)
            return message

        return told


class _Readiness:
    """The checks, and what came of them last; one who asks while others check waits for what comes of that."""

    def __init__(self, rule: Health, checks: Mapping[str, Check], clock: Clock) -> None:
        self.rule, self._checks, self._clock = rule, checks, clock
        self._checking = anyio.Lock()
        self._outcome, self._checked = False, -inf
        self._failed: frozenset[str] = frozenset()

    async def ask(self) -> bool:
        async with self._checking:
            if self._clock.monotonic() - self._checked >= self.rule.remember_for:
                self._tell(frozenset(await self._missing()))
                self._checked = self._clock.monotonic()
            return self._outcome

    async def _missing(self) -> set[str]:
        """The names of the checks that are not passed."""
        missing = set(self._checks)
        with anyio.move_on_after(self.rule.timeout):
            async with anyio.create_task_group() as tasks:
                for name, check in self._checks.items():
                    tasks.start_soon(_run, name, check, missing)
        return missing

    def _tell(self, failed: frozenset[str]) -> None:
        """Say once what is missing, and once that nothing is any more."""
        if failed and failed != self._failed:
            log.warning("not ready: %s", ", ".join(sorted(failed)))
        elif self._failed and not failed:
            log.info("ready")
        self._failed, self._outcome = failed, not failed


async def _run(name: str, check: Check, missing: set[str]) -> None:
    try:
        found = check()
        if isawaitable(found):
            found = await found
    except Exception:
        log.debug("the check %s failed", name, exc_info=True)
    else:
        if found is not False:
            missing.discard(name)


def _parting(scope: Scope, send: Send) -> Send:
    """A ``send`` whose response ends the connection; HTTP/2 has other means, and the server uses them."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start" and scope.get("http_version", "1.1")[:1] == "1":
            headers: RawHeaders = [(name.lower(), value) for name, value in message.get("headers") or ()]
            message = {**message, "headers": [*without(headers, b"connection"), (b"connection", b"close")]}
        await send(message)

    return told


async def _tell(scope: Scope, send: Send, what: str) -> None:
    status, extra = 200 if what == "ok" else 503, []
    if scope["method"] not in _READS:
        status, what, extra = 405, "method not allowed", [(b"allow", b"GET, HEAD")]
    body = b'{"status": "%b"}' % what.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body, "more_body": False})
