"""What stands behind the APIs of a gateway: proxies, pools and apps, each one once."""

from collections.abc import Hashable
from typing import Any
from weakref import WeakValueDictionary

from apim_middleware._alike import Alike
from apim_middleware._config import shown
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.types import ASGIApp, Receive, Scope, Send


class Backend:
    """An app behind a gateway, and what its lifespan left for its requests."""

    def __init__(self, app: ASGIApp) -> None:
        """Its state is filled when it starts."""
        self.app = app
        self.state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with the state of this app and of no other."""
        if self.state:
            scope["state"] = {**(scope.get("state") or {}), **self.state}
        if scope["path"] == scope.get("root_path"):  # else routers of apps would redirect to the path with the slash
            # The scope stays the same, for layers further out read there whom the app has identified, and its route.
            scope["path"], scope["raw_path"] = f"{scope['path']}/", (scope.get("raw_path") or b"") + b"/"
        await self.app(scope, receive, send)


class Backends:
    """The backends of one gateway; those that equal one in use are that one, with its connections and its health."""

    def __init__(self, env: Env, place: str) -> None:
        """``place`` is that of the gateway."""
        self._env = env
        self._in_use: WeakValueDictionary[Hashable, Backend] = env.kept(f"gateway.{place}", WeakValueDictionary)
        self._mine: dict[Hashable, Backend] = {}

    def app(self, value: object, label: str) -> ASGIApp:
        """The app a backend is. Raises ConfigError, which names the API."""
        mine = self._mine.get(_key(value))
        if mine is None:
            mine = self._mine[_key(value)] = self._made(value, label)
        return mine.app if isinstance(mine.app, Proxy) else mine

    def _made(self, value: object, label: str) -> Backend:
        app = _app(value, label, self._env)
        known = self._in_use.get(_key(app))
        if known is None:
            known = self._in_use[_key(app)] = Backend(app)
        if isinstance(known.app, Proxy):
            known.app.tell(self._env)
        return known

    def also(self, value: Hashable, app: ASGIApp) -> None:
        """Something else that lives as long as the server runs, told from others by a value."""
        known = self._in_use.get(_key(value))
        if known is None:
            known = self._in_use[_key(value)] = Backend(app)
        self._mine[_key(value)] = known

    def every(self) -> list[Backend]:
        """Every backend in use, each once."""
        return list({id(backend): backend for backend in self._mine.values()}.values())


def _app(value: object, label: str, env: Env) -> ASGIApp:
    if isinstance(value, str | Pool):
        try:
            return Proxy(value, env=env)
        except ConfigError as error:
            raise ConfigError(f"Api {label}", "backend", error.problem, error.cure) from error
    if callable(value) and not isinstance(value, type):
        return value
    cure = 'Write backend="http://host:8000", a Proxy, or any ASGI app'
    raise ConfigError(f"Api {label}", "backend", f"{shown(value)} is no app", cure)


def _key(value: object) -> Hashable:
    """What backends that are alike have in common; what cannot be hashed is only itself."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return Alike(value)
