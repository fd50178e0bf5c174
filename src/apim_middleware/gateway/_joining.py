"""From a sub app to the API it is: its document read or fetched, and what it does while that is not there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, cast
from urllib.parse import urlsplit

import anyio.to_thread

from apim_middleware._jose.documents import BadDocument, Question, fetched
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.errors import ConfigError, Refusal, TransportError
from apim_middleware.exchange import Exchange
from apim_middleware.gateway.sub_app import SubApp
from apim_middleware.model import ANY, Api, Operation
from apim_middleware.openapi.importing import api_from_openapi
from apim_middleware.policy import Policy
from apim_middleware.protocols import Transport

LARGEST = 8 << 20
"""Bytes a document may have."""

_HEADERS = [(b"accept", b"application/json, application/yaml;q=0.9"), (b"connection", b"close")]
_OTHERWISE = Operation(ANY, "/*", name="undocumented", document={"x-internal": True})
"""What the document of an app does not tell of; ``x-internal`` keeps it out of the combined one."""


@dataclass(frozen=True, kw_only=True)
class Unavailable(Policy):
    """Stands in front of an app that nobody knows enough of: 503 ``app-unavailable``."""

    guards = False

    @property
    def documentation(self) -> Documentation:
        """The refusal."""
        return Documentation(answers=(Answer(503, ("app-unavailable",), ("retry-after",)),))

    def on_request(self, exchange: Exchange) -> None:
        """Refuse with 503 ``app-unavailable``."""
        raise Refusal(503, "app-unavailable", "This API is not available now.", headers={"retry-after": "30"})


async def _nobody(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("a request came past what refuses it")


def absent(app: SubApp) -> Api:
    """The API of an app whose document is not there."""
    return replace(_plain(app), backend=_nobody, policies=(*app.policies, Unavailable()))


def present(app: SubApp) -> Api | None:
    """The API of an app whose document need not be fetched; None where it must be. Raises ConfigError."""
    return None if app.url is not None else _api(app, _given(app))


async def joined(app: SubApp, transport: Transport) -> Api:
    """The API of an app, its document fetched if need be. Raises ConfigError."""
    if app.url is None:
        return _api(app, _given(app))
    fetched = await _fetched(app, transport)
    return await anyio.to_thread.run_sync(_api, app, fetched)  # a large one takes seconds to read


def _plain(app: SubApp) -> Api:
    return Api(
        app.name,
        app.path,
        backend=app.backend,
        hosts=app.hosts,
        policies=app.policies,
        subscription_required=app.subscription_required,
    )


def _api(app: SubApp, document: bytes | PurePath | Mapping[str, Any] | None) -> Api:
    if document is None:
        return _without_operations(app)
    if isinstance(document, Mapping) and not document.get("paths") and not app.keeps_to_document:
        return replace(_without_operations(app), document=document)
    try:
        api = api_from_openapi(
            document,
            name=app.name,
            path=app.path,
            backend=app.backend,
            server_path=_server_path(app),
            hosts=app.hosts,
            policies=app.policies,
            operation_policies=app.operation_policies,
            subscription_required=app.subscription_required,
            max_bytes=LARGEST,
        )
    except ConfigError as error:
        raise app.mistaken(f"is refused: {error.field}: {error.problem}. {error.cure}") from error
    return api if app.keeps_to_document else _open(api)


def _without_operations(app: SubApp) -> Api:
    """The API of an app that tells of no operation. Raises ConfigError when one of them was to have policies."""
    if app.operation_policies:
        problem = f"names {min(app.operation_policies)!r}, and the app has no document that tells of it"
        cure = "Give document=, or the policies to the whole app: policies=..."
        raise ConfigError(f"SubApp {app.name}", "operation_policies", problem, cure)
    return _plain(app)


def _open(api: Api) -> Api:
    """An API with everything else its app may do, besides what the document tells of."""
    if any(each.method == ANY and each.url_template.shape == _OTHERWISE.url_template.shape for each in api.operations):
        return api
    return replace(api, operations=(*api.operations, _OTHERWISE))


def _server_path(app: SubApp) -> str | None:
    if app.server_path is not None or not app.is_remote:
        return app.server_path or ""
    has_path = isinstance(app.backend, str) and urlsplit(app.backend).path.strip("/")
    return "" if has_path else None


def _given(app: SubApp) -> bytes | PurePath | Mapping[str, Any] | None:
    if app.document is not None and not isinstance(app.document, str):
        return app.document
    try:
        return _told_by(app.backend)
    except Exception as error:
        raise app.mistaken(f"cannot be made by the app: {type(error).__name__}: {error}") from error


def _told_by(app: Any) -> Mapping[str, Any] | None:  # noqa: ANN401 - apps of other frameworks
    """The document an app of this process has of itself: FastAPI's, Litestar's, or that of the app within layers."""
    while not _has_document(app) and hasattr(app, "app"):
        app = app.app
    if not _has_document(app):
        return None
    if callable(getattr(app, "openapi", None)):
        return _fresh(app)
    return None if app.openapi_config is None else cast("Mapping[str, Any]", app.openapi_schema.to_schema())


def _has_document(app: object) -> bool:
    return hasattr(app, "openapi") or hasattr(type(app), "openapi_schema")  # Litestar's may raise when it is read


def _fresh(app: Any) -> Mapping[str, Any]:  # noqa: ANN401 - a FastAPI app
    """FastAPI keeps the first document it made; routes may still be added."""
    if not hasattr(app, "openapi_schema"):
        return cast("Mapping[str, Any]", app.openapi())
    kept, app.openapi_schema = app.openapi_schema, None
    try:
        return cast("Mapping[str, Any]", app.openapi())
    finally:
        app.openapi_schema = kept


async def _fetched(app: SubApp, transport: Transport) -> bytes:
    url = str(app.url)
    try:
        return (await fetched(transport, Question(url, _HEADERS, app.timeout, largest=LARGEST))).body
    except TimeoutError:
        raise app.mistaken(f"{url} did not answer within {app.timeout:g} seconds") from None
    except BadDocument as error:
        raise app.mistaken(f"{url} cannot be read: {error}") from None
    except TransportError as error:
        reason = ascii(str(error) or type(error).__name__)[:200]
        raise app.mistaken(f"{url} cannot be asked: {reason}") from error
