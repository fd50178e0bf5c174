"""The routes of a Litestar app. Its own router is asked which of them a request takes, so nobody can disagree.

Litestar is not imported here: who has an app of it has imported it.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from apim_middleware.guarding._routes import MARK, NOTHING, Known, Level
from apim_middleware.types import Scope

_PARAMETER = re.compile(r"\{[^/]*\}")


def is_litestar(app: object) -> bool:
    """Whether it is an app of Litestar."""
    module = sys.modules.get("litestar.app")
    return module is not None and isinstance(app, module.Litestar)


class _Placed(NamedTuple):
    """A handler at one of its paths."""

    route: Any
    known: Known


class LitestarRoutes(Level):
    """Routes that the router of the app finds; what its handlers are is read once."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - a Litestar, which is not imported
        """Read the handlers of every route."""
        super().__init__(())
        self._router = app.asgi_router
        self._normal = sys.modules["litestar.utils"].normalize_path
        self._placed: defaultdict[int, list[_Placed]] = defaultdict(list)
        self._every: list[Known] = []
        for route in app.routes:
            self._read(route, app.openapi_config)

    def _read(self, route: Any, config: Any) -> None:  # noqa: ANN401 - as Litestar has it
        first: Known | None = None
        for handler in sorted(getattr(route, "route_handlers", None) or (route.route_handler,), key=_is_made):
            if first is not None and _is_made(handler):
                known = first  # the answer to OPTIONS that goes with every path
            else:
                known = _known(route, handler, config)
                self._every.append(known)
            first = first or known
            self._placed[id(handler)].append(_Placed(route, known))

    def every(self) -> Iterator[Known]:
        """Every route there is, in the order of the app."""
        yield from self._every

    def path_of(self, scope: Scope, root: str) -> str:
        """The path as the router gets it: behind the first root there is in it, and without slashes at its end."""
        path: str = scope["path"]
        normal: str = self._normal(path.split(root, maxsplit=1)[-1] if root else path)
        return normal

    def search(self, scope: Scope, root: str) -> Known:
        """What the router takes; of a path without this method, the first of the methods it names."""
        path, method = self.path_of(scope, root), scope.get("method")
        known, allowed = self._ask(path, method)
        if scope["type"] == "http":
            for other in allowed:
                known = known or self._ask(path, other)[0]
        return known or NOTHING

    def _ask(self, path: str, method: str | None) -> tuple[Known | None, Sequence[str]]:
        """The route, or else the methods that would have one."""
        try:
            _, handler, rest, *_, template = self._router.handle_routing(path=path, method=method)
        except Exception as error:  # the app will fail in the same way, and answer that
            allow: str = (getattr(error, "headers", None) or {}).get("allow", "")
            return None, [each for each in allow.split(", ") if each.isupper()]
        return self._at(handler, path, rest, template), ()

    def _at(self, handler: Any, path: str, rest: str, template: str) -> Known | None:  # noqa: ANN401 - as Litestar has it
        """Which of its places a handler was found at; None for one that was registered later."""
        places = self._placed.get(id(handler), ())
        if len(places) > 1:
            mounted = getattr(handler, "is_mount", False)
            found = (each for each in places if mounted or _shape(each.route.path_format) == _shape(template))
            return next(
                (each.known for each in found if not mounted or self._leaves(each.route.path, path, rest)), None
            )
        return places[0].known if places else None

    def _leaves(self, mount: str, path: str, rest: str) -> bool:
        """Whether this is the rest of a path behind a mount."""
        return path.startswith(mount) and bool(self._normal(path[len(mount) :]) == self._normal(rest))


def _shape(template: str) -> str:
    """Where a template has text and where parameters: routes that differ in the names of these are one place."""
    return _PARAMETER.sub("{}", template)


def _known(route: Any, handler: Any, config: Any) -> Known:  # noqa: ANN401 - as Litestar has it
    kinds: dict[str, Literal["http", "websocket", "mount"]] = {"http": "http", "websocket": "websocket"}
    methods = frozenset(str(getattr(each, "value", each)) for each in getattr(handler, "http_methods", ()))
    return Known(
        kinds.get(str(getattr(route.scope_type, "value", route.scope_type)), "mount"),
        route.path_format,
        methods,
        name=handler.name or "",
        operation=_operation(route, handler, config) if methods else "",
        tags=frozenset(handler.resolve_tags() if hasattr(handler, "resolve_tags") else ()),
        endpoint=handler if hasattr(handler, MARK) else handler.fn,
    )


def _operation(route: Any, handler: Any, config: Any) -> str:  # noqa: ANN401 - as Litestar has it
    """The operation id that its document has; of several methods, that of the first."""
    given = handler.operation_id or getattr(config, "operation_id_creator", None)
    return str(given(handler, min(handler.http_methods), route.path_components) if callable(given) else given or "")


def _is_made(handler: Any) -> bool:  # noqa: ANN401 - as Litestar has it
    """Whether Litestar made this handler itself."""
    return str(getattr(handler.fn, "__module__", "")).startswith("litestar.routes")
