"""A FastAPI app's own document, saying what the policies in front of each route ask and answer."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from starlette.routing import Mount

from apim_middleware.documentation import documentation_of, together
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.guarding._litestar import is_litestar
from apim_middleware.guarding.coverage import Covered, coverage
from apim_middleware.guarding.guard import Guarded
from apim_middleware.openapi._components import Components
from apim_middleware.openapi._grammar import METHODS
from apim_middleware.openapi._operations import Writer
from apim_middleware.openapi.exporting import openapi_of

App = TypeVar("App")


def describe(app: App) -> App:
    """Have a FastAPI app say in its own document, at ``/openapi.json``, what stands in front of its routes.

    ``app`` is what ``guard`` gave back, policies around an app, or the app with policies as middlewares; it is given
    back as it came. Security schemes and scopes, refusals with their codes, and header fields are those of the policies
    that ``coverage`` shows for each route, so that the document says what is enforced. Apps that are mounted say so in
    documents of their own. It is FastAPI's way: the app's ``openapi`` is replaced, and the document that the app makes
    of itself is added to, never changed.

    ConfigError: an app without such a document, or whose routes cannot be read.
    """
    bare = _bare(app)
    if not _is_fastapi(bare):
        problem, cure = "makes its document where nobody can add to it", "Put PublishOpenAPI() in front of the app"
        raise ConfigError("describe", "app", f"a {type(bare).__name__} {problem}", cure)
    _replace(bare, lambda: _table(app), "")
    return app


def document_of(app: object) -> dict[str, Any]:
    """The document of a gateway; or that of a FastAPI or Litestar app, with what stands in front of its routes.

    The app itself is left as it is. ConfigError: an app without a document, or whose routes cannot be read.
    """
    if isinstance(app, Reloadable):
        app = app.gateway
    if isinstance(app, Gateway):
        return openapi_of(app)
    return _described(_own(_bare(app))(), _table(app), "")


def _bare(app: object) -> object:
    """The app within all that stands in front of it."""
    while isinstance(app, Guarded) or (not _has_document(app) and hasattr(app, "app")):
        app = app.app
    if not _has_document(app):
        cure = "Give a FastAPI app, with what stands in front of it, or take openapi_of(gateway)"
        raise ConfigError("describe", "app", f"a {type(app).__name__} has no OpenAPI document", cure)
    return app


def _has_document(app: object) -> bool:
    return _is_fastapi(app) or is_litestar(app)


def _is_fastapi(app: object) -> bool:
    """Whether it makes a document with a function that can be replaced, as FastAPI does."""
    return callable(getattr(app, "openapi", None))


def _own(app: Any) -> Callable[[], dict[str, Any]]:  # noqa: ANN401 - an app of a framework
    """What makes the app's own document, also when it is described already."""
    if is_litestar(app):
        return lambda: dict(app.openapi_schema.to_schema())
    found: Callable[[], dict[str, Any]] = getattr(app.openapi, "undescribed", app.openapi)
    return found


def _table(app: object) -> dict[tuple[str, str], list[Covered]]:
    """What stands in front of each method and path."""
    found: defaultdict[tuple[str, str], list[Covered]] = defaultdict(list)
    for row in coverage(app):
        found[row.method.lower(), row.path].append(row)
    return found


def _replace(app: Any, table: Callable[[], dict[tuple[str, str], list[Covered]]], prefix: str) -> None:  # noqa: ANN401
    table()  # which shows now if the routes can be read
    own = _own(app)
    known: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def openapi() -> dict[str, Any]:
        plain = own()
        if not known or known[0][0] is not plain:
            known[:] = [(plain, _described(plain, table(), prefix))]
        return known[0][1]

    openapi.undescribed = own  # type: ignore[attr-defined]
    app.openapi = openapi
    for route in getattr(app, "routes", ()):
        if isinstance(route, Mount) and _is_fastapi(route.app):
            _replace(route.app, table, f"{prefix}{route.path}")


def _described(plain: Mapping[str, Any], table: Mapping[tuple[str, str], list[Covered]], prefix: str) -> dict[str, Any]:
    """A document with what stands in front of its operations, whose paths begin with ``prefix`` outside."""
    components = Components(plain.get("components"))
    writer = Writer(components)
    paths: dict[str, Any] = {}
    for path, item in plain.get("paths", {}).items():
        paths[path] = dict(item)
        for method in METHODS:
            rows = table.get((method, f"{prefix}{path}")) or table.get(("any", f"{prefix}{path}"))
            if method in item and rows:
                paths[path][method] = _operation(item[method], method, rows[0], writer, plain)
    described = {**plain, "paths": paths}
    if written := components.written():
        described["components"] = written
    return described


def _operation(
    plain: Mapping[str, Any], method: str, row: Covered, writer: Writer, root: Mapping[str, Any]
) -> dict[str, Any]:
    operation = dict(plain)
    writer.write(operation, method, together(map(documentation_of, row.layers)), root=root)
    return operation
