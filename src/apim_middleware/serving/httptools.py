"""The reader of HTTP/1.1 for uvicorn, or h11 where this uvicorn is another than it was written for.

uvicorn gateway:app --http apim_middleware.serving.httptools:HttpToolsProtocol
"""

import dis
import inspect
import logging
from collections.abc import Collection
from types import FunctionType
from typing import TYPE_CHECKING, Any

log = logging.getLogger("apim_middleware")

_READER = (
    *("_should_upgrade", "_start_asgi_task", "_unset_keepalive_if_required", "connection_lost", "connection_made"),
    *("data_received", "handle_websocket_upgrade", "on_body", "on_headers_complete", "on_message_complete"),
    *("on_response_complete", "pause_writing", "send_400_response"),
    *("cycle", "flow", "headers", "logger", "loop", "parser", "pipeline", "scheme", "scope", "server_state"),
    *("transport", "url"),
)
"""What the reader changes and uses of uvicorn's, which is private to uvicorn: each version may have another."""

_RESPONSE = (
    *("run_asgi", "send", "access_log", "access_logger", "chunked_encoding", "default_headers", "disconnected", "flow"),
    *("keep_alive", "message_event", "more_body", "on_response", "response_complete", "response_started", "scope"),
    *("transport", "waiting_for_100_continue"),
)
"""The same of a response."""


def misfit(ours: type, names: Collection[str]) -> str:
    """What of these names the base of a class of ours lacks, or calls in another way; nothing where it fits."""
    theirs: Any = ours.__base__
    methods = {name: each for name, each in vars(theirs).items() if isinstance(each, FunctionType)}
    known = set(dir(theirs)).union(*map(_attributes_set_by, methods.values()))
    lacking = sorted(set(names) - known)
    if lacking:
        return f"{theirs.__name__} has no {lacking[0]}"
    changed = [name for name, each in methods.items() if name in vars(ours) and _form(each) != _form(vars(ours)[name])]
    return f"{theirs.__name__}.{changed[0]} is called in another way" if changed else ""


def no_place_for(ours: Any) -> str:  # noqa: ANN401
    """Why an object of the base cannot become one of a class of ours, as responses do; nothing where it can."""
    made = object.__new__(ours.__base__)
    try:
        made.__class__ = ours
    except TypeError as error:
        return str(error)
    return ""


def _attributes_set_by(method: FunctionType) -> set[str]:
    return {each.argval for each in dis.get_instructions(method) if each.opname == "STORE_ATTR"}


def _form(method: Any) -> tuple[int, bool]:  # noqa: ANN401
    return len(inspect.signature(method).parameters), inspect.iscoroutinefunction(method)


def _fault() -> str:
    """Why the reader cannot be built on this uvicorn; nothing where it can."""
    try:
        from apim_middleware.serving._reader import HttpToolsProtocol
        from apim_middleware.serving._response import Response
    except ImportError as error:
        return str(error)
    found = misfit(HttpToolsProtocol, _READER) or misfit(Response, _RESPONSE) or no_place_for(Response)
    theirs: Any = HttpToolsProtocol.__base__
    if not found and "should_keep_alive" not in theirs.on_headers_complete.__code__.co_names:  # before uvicorn 0.53
        found = f"{theirs.__name__} does not ask whether the client closes the connection"
    return found


def reader() -> Any:  # noqa: ANN401 - a protocol of uvicorn's
    """The class that reads requests. A server that starts with another reader is worth more than one that does not."""
    if fault := _fault():
        from uvicorn.protocols.http.h11_impl import H11Protocol

        log.warning("the reader of apim_middleware does not fit this uvicorn (%s): h11 reads requests", fault)
        return H11Protocol
    from apim_middleware.serving._reader import HttpToolsProtocol

    return HttpToolsProtocol


if TYPE_CHECKING:
    from apim_middleware.serving._reader import HttpToolsProtocol as HttpToolsProtocol
else:
    HttpToolsProtocol = reader()
