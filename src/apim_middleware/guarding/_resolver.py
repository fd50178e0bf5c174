"""Which route a request takes, as the app's own router will decide."""

from collections import OrderedDict

from apim_middleware._http.headers import get
from apim_middleware.guarding._routes import NOTHING, Known, Level
from apim_middleware.types import Scope

_REMEMBERED, _LONGEST = 4096, 512


class Resolver:
    """Finds routes; those found are remembered for a bounded number of paths, none of them very long."""

    def __init__(self, routes: Level, root_path: str = "") -> None:
        """``root_path`` is what the app itself puts in the place of the server's."""
        self._routes, self._root_path = routes, root_path
        self._found: OrderedDict[tuple[str, str, str, str], Known] = OrderedDict()
        self.by_host = _asks_hosts(routes)
        """Whether the host decides too."""

    def find(self, scope: Scope) -> Known:
        """The route of a request; of several that differ in their methods only, the first, when none has its method."""
        root = self._root_path or scope.get("root_path", "")
        host = (get(scope["headers"], b"host") or b"").decode("latin-1") if self.by_host else ""
        key = (scope["type"], scope.get("method", ""), scope["path"] if not root else f"{root}\n{scope['path']}", host)
        known = self._found.get(key)
        if known is None:
            known = self._routes.search(scope, root)
            if known is not NOTHING and sum(map(len, key)) <= _LONGEST:  # a route for nothing may be added later
                self._remember(key, known)
        return known

    def path_of(self, scope: Scope) -> str:
        """The path of a request as the app's own routes see it."""
        return self._routes.path_of(scope, self._root_path or scope.get("root_path", ""))

    def _remember(self, key: tuple[str, str, str, str], known: Known) -> None:
        self._found[key] = known
        if len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)


def _asks_hosts(level: Level) -> bool:
    return any(step.host is not None or (step.below is not None and _asks_hosts(step.below)) for step in level.steps)
