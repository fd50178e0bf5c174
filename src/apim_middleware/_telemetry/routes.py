"""The template a framework routed a request by."""

from collections.abc import Mapping
from typing import Any

from apim_middleware.types import Scope


def route_of(scope: Scope) -> str | None:
    """The template the framework routed by, mounts included; never a path that somebody sent.

    Litestar leaves the template itself. Starlette and FastAPI leave the route, and of the mounts on the way to it only
    the concrete path they took up; FastAPI keeps the prefixes of included routers aside.
    """
    if template := scope.get("path_template"):
        return str(template)
    route = scope.get("route")
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    if included is not None and getattr(included, "original_route", None) is route:
        route = included
    if hasattr(route, "routes"):  # a mount or a host: the way went on from there, to nothing with a route
        route = None
    mounted = _mounted(scope, getattr(route, "param_convertors", None) or {})
    template = getattr(route, "path_format", None)
    if mounted is None or (template is None and "app_root_path" not in scope):
        return None
    return f"{mounted}{template or '/{path}'}"


def _mounted(scope: Scope, own: Mapping[str, Any]) -> str | None:
    """The templates of the mounts: their concrete path with each parameter that is not the route's ``own`` put back.

    None when a parameter cannot be found there: then part of that path was chosen by a caller. A parameter that the
    route names once more is lost on us; ``_MOST_ROUTES`` is for such cases.
    """
    path: str = scope.get("root_path") or ""
    root: str = scope.get("app_root_path", path)
    template = path[len(root) :] + "/"
    for name, value in (scope.get("path_params") or {}).items() if path != root else ():
        if name not in own:
            concrete = f"/{value}/"
            if concrete not in template:
                return None
            template = template.replace(concrete, f"/{{{name}}}/")
    return (root + template).rstrip("/")
