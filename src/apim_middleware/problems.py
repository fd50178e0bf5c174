"""An app's own errors as problem+json (RFC 9457), as policies write their refusals: handlers for FastAPI and Starlette.

``FastAPI(exception_handlers=problem_handlers())``
"""

import json
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from apim_middleware._http.statuses import phrase
from apim_middleware._ring import refusal_messages, refused
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange

__all__ = ["problem_handlers"]

Handlers: TypeAlias = dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]

_BODILESS = (204, 205, 304)


def problem_handlers() -> Handlers:
    """Handlers for ``exception_handlers``, by which every error of an app is problem+json with a ``code``.

    - A ``Refusal`` that an endpoint raises: answered as one of a policy, and told to access logs and traces. On a
      WebSocket a denial, or a close with 1008 where it is accepted already.
    - ``HTTPException``, the app's 404 and 405 among them: its status, text and headers; the code is the status in words
      (``not-found``). What is no text goes along as ``errors``.
    - FastAPI's ``RequestValidationError``: 422 ``unprocessable-content`` with ``errors``: where, what and of which
      type, but not the values that were sent.
    - Anything else: 500 ``internal-server-error``, which says nothing of what went wrong; the server's log does.
    """
    handlers: Handlers = {Refusal: _refusal, HTTPException: _http_exception, Exception: _failure}
    fastapi = sys.modules.get("fastapi.exceptions")
    if fastapi is not None:
        handlers[fastapi.RequestValidationError] = _invalid
    return handlers


async def _refusal(connection: HTTPConnection, error: Refusal) -> Response:
    scope = connection.scope
    refusal = refused(Exchange.of(scope) or Exchange(scope), error)
    if isinstance(connection, WebSocket) and connection.application_state is not WebSocketState.CONNECTING:
        await connection.close(1008, refusal.code)
        return Response()
    messages = refusal_messages(refusal, scope)
    if isinstance(connection, WebSocket):
        for message in messages:
            await connection.send(message)
        return Response()
    start, body = messages
    response = Response(body["body"], refusal.status)
    response.raw_headers = [*start["headers"]]
    return response


async def _http_exception(connection: HTTPConnection, error: HTTPException) -> Response:
    status, headers = error.status_code, error.headers
    if isinstance(connection, WebSocket):
        return await _refusal(connection, Refusal(status, _code(status), headers=headers or {}))
    if status in _BODILESS:
        return Response(status_code=status, headers=headers)
    if error.detail == _title(status):
        return _problem(status, {}, headers)
    return _problem(status, {"detail" if isinstance(error.detail, str) else "errors": error.detail}, headers)


async def _invalid(request: Request, error: Any) -> Response:  # noqa: ANN401 - FastAPI's, which is not imported
    errors = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
    return _problem(422, {"detail": "The request is not valid.", "errors": errors})


async def _failure(request: Request, error: Exception) -> Response:
    return _problem(500, {})


def _problem(status: int, told: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    document = {"type": "about:blank", "title": _title(status), "status": status, "code": _code(status), **told}
    return Response(json.dumps(document), status, headers, "application/problem+json")


def _title(status: int) -> str:
    try:
        return phrase(status)
    except ValueError:  # nobody has named it
        return "Error"


def _code(status: int) -> str:
    return re.sub("[^a-z]+", "-", _title(status).lower())
