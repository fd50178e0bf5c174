"""Many apps behind one gateway, each of which becomes an API of it; they may come and go while it serves."""

import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import anyio

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._joining import absent, joined, present
from apim_middleware.gateway.app import Gateway
from apim_middleware.gateway.difference import Change
from apim_middleware.gateway.reload import Reloadable
from apim_middleware.gateway.sub_app import SubApp, check_claims, check_operations
from apim_middleware.model import Api
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.types import ASGIApp, Message, Receive, Send

log = logging.getLogger("apim_middleware.gateway")

_AT_ONCE = 8
"""How many documents are fetched at the same time."""


class MakesGateway(Protocol):
    """Makes a gateway of APIs: ``partial(Gateway, policies=..., keys=...)``, or a function of ``apis``."""

    def __call__(self, *, apis: tuple[Api, ...]) -> Gateway:
        """The gateway that has these APIs, and perhaps more. Raises ConfigError."""
        ...


class AppOfApps(Reloadable):
    """Many apps as one: a gateway in which each of them is an API, under one identity, one set of policies.

    ``AppOfApps(partial(Gateway, policies=..., keys=keys), SubApp("orders", "/orders", backend=orders), ...)``. Apps of
    this process start and shut down with it. The documents of remote apps are fetched when it starts, without
    redirects, 8 MiB at most; until a document is there its API answers 503 ``app-unavailable``, behind the policies
    that stand in front of it in any case. The start fails when that of a ``required`` app cannot be had.

    It is a ``Reloadable``, so whatever takes one takes this: ``PublishOpenAPI`` for one document of all, for example.
    ConfigError, naming the app: two with one name or one path, one that stands where another has operations, and
    whatever a gateway refuses.
    """

    def __init__(self, make: MakesGateway, *apps: SubApp, env: Env | None = None, retry_every: float = 30.0) -> None:
        """``make`` makes the gateway of the APIs; ``env`` gives clock, stores and transport where that brings none.

        Documents that are missing are asked for again every ``retry_every`` seconds.
        """
        if not 0 < retry_every <= 86_400:
            raise ConfigError("AppOfApps", "retry_every", f"{retry_every!r} is no time", "Give seconds up to 86400")
        check_claims(apps)
        self._make, self._means, self._retry_every = make, env or Env(), retry_every
        self._changing = anyio.Lock()
        known = {app.name: api for app in apps if (api := present(app)) is not None}
        missing = {app.name: "its document was not asked for yet" for app in apps if app.name not in known}
        self._state = _State(apps, known, missing)
        super().__init__(self._made(self._state))

    def __repr__(self) -> str:
        """Which apps there are."""
        return f"<AppOfApps: {', '.join(app.name for app in self.apps)}>"

    @property
    def apps(self) -> tuple[SubApp, ...]:
        """The apps that belong to it now."""
        return self._state.apps

    @property
    def missing(self) -> Mapping[str, str]:
        """The apps that answer 503 because their documents are not there, by name, each with the reason."""
        return dict(self._state.missing)

    async def join(self, app: SubApp) -> tuple[Change, ...]:
        """Take one more app in, while it serves. ConfigError when that cannot be; nothing has changed then."""
        async with self._changing:
            return await self._change((*self.apps, app), {app.name})

    async def register(
        self,
        app: ASGIApp | str,
        *,
        name: str,
        path: str,
        **fields: Any,  # noqa: ANN401
    ) -> tuple[Change, ...]:
        """Take in an app, or a remote one by its URL: ``join(SubApp(name, path, backend=app, **fields))``."""
        return await self.join(SubApp(name, path, backend=app, **fields))

    async def leave(self, name: str) -> tuple[Change, ...]:
        """Let an app go; its requests under way end, then it is shut down. ConfigError when it cannot be missed."""
        async with self._changing:
            rest = tuple(app for app in self.apps if app.name != name)
            if rest == self.apps:
                raise ConfigError("AppOfApps", "apps", f"has no {name!r}", "Give the name of one of its apps")
            return await self._change(rest, set())

    async def refresh(self) -> tuple[Change, ...]:
        """Read or fetch every document again. An app whose document cannot be had keeps the one it had.

        ConfigError when a required app never had one, or what they say now cannot stand together.
        """
        async with self._changing:
            return await self._change(self.apps, {app.name for app in self.apps})

    async def _change(self, apps: tuple[SubApp, ...], ask: Set[str]) -> tuple[Change, ...]:
        """Serve these apps, those that are named with the documents they have now."""
        check_claims(apps)
        answers = await self._asked([app for app in apps if app.name in ask])
        state = self._state.after(apps, answers)
        changes = await self.reload(self._made(state))
        self._state = state
        return changes

    async def _asked(self, apps: Iterable[SubApp]) -> dict[str, Api | ConfigError]:
        found: dict[str, Api | ConfigError] = {}
        transport = (self.gateway.env or self._means).callouts(DefaultTransport, public=False)
        places = anyio.CapacityLimiter(_AT_ONCE)

        async def ask(app: SubApp) -> None:
            async with places:
                try:
                    found[app.name] = await joined(app, transport)
                except ConfigError as error:
                    found[app.name] = error

        async with anyio.create_task_group() as group:
            for app in apps:
                group.start_soon(ask, app)
        return found

    def _made(self, state: "_State") -> Gateway:
        apis = tuple(state.known.get(app.name) or absent(app) for app in state.apps)
        check_operations(apis)
        gateway = self._make(apis=apis)
        return gateway if gateway.env is not None else replace(gateway, env=self._means)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan, once every document is there that must be."""
        try:
            await self.refresh()
        except ConfigError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        async with anyio.create_task_group() as group:

            async def tell(message: Message) -> None:
                await send(message)
                if message["type"] == "lifespan.startup.complete":
                    group.start_soon(self._ask_again)

            await super()._live(receive, tell)
            group.cancel_scope.cancel()

    async def _ask_again(self) -> None:
        """Ask for what is missing, as long as the server runs."""
        while True:
            await anyio.sleep(self._retry_every)
            try:
                async with self._changing:
                    if self._state.missing:
                        await self._change(self.apps, self._state.missing.keys())
            except ConfigError as error:
                log.error("an app cannot be taken in: %s", error)


class _State(NamedTuple):
    """Which apps there are, and what is known of them."""

    apps: tuple[SubApp, ...]
    known: Mapping[str, Api]
    missing: Mapping[str, str]

    def after(self, apps: tuple[SubApp, ...], answers: Mapping[str, Api | ConfigError]) -> "_State":
        """What is known when some were asked. Raises ConfigError when one must answer and does not."""
        known, missing = dict[str, Api](), dict[str, str]()
        for app in apps:
            answer = answers.get(app.name)
            if isinstance(answer, Api):
                known[app.name] = answer
            elif app.name in self.known:
                known[app.name] = self.known[app.name]
            elif answer is not None and app.required:
                raise answer
            else:
                missing[app.name] = self.missing[app.name] if answer is None else str(answer)
            if isinstance(answer, ConfigError):
                log.warning("the document of an app is not there: %s", answer)
        return _State(apps, known, missing)
