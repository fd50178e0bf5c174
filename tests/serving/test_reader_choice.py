"""Which class reads requests for uvicorn: ours where it fits this version, else h11, and the log says so."""

import ast
import logging
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from tests.servers import serving
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.h11_impl import H11Protocol

from apim_middleware.serving import httptools
from apim_middleware.serving._reader import HttpToolsProtocol
from apim_middleware.serving._response import Response

READER, CYCLE = httptools_impl.HttpToolsProtocol, httptools_impl.RequestResponseCycle


def test_ours_reads_where_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    assert httptools.reader() is httptools.HttpToolsProtocol is HttpToolsProtocol
    assert caplog.records == []


@pytest.mark.parametrize(
    ("theirs", "name", "told"),
    [
        (READER, "_should_upgrade", "HttpToolsProtocol has no _should_upgrade"),
        (READER, "_start_asgi_task", "HttpToolsProtocol has no _start_asgi_task"),
        (CYCLE, "run_asgi", "RequestResponseCycle has no run_asgi"),
        (httptools_impl, "STATUS_LINE", "cannot import name 'STATUS_LINE'"),
        (httptools_impl, "HttpToolsProtocol", "cannot import name 'HttpToolsProtocol'"),
    ],
)
def test_h11_reads_where_something_is_gone(
    theirs: Any, name: str, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(theirs, name)
    if theirs is httptools_impl:
        for module in ("_reader", "_response"):
            monkeypatch.delitem(sys.modules, f"apim_middleware.serving.{module}")
    assert httptools.reader() is H11Protocol
    [said] = caplog.records
    assert said.levelno == logging.WARNING
    assert told in said.getMessage()


def test_h11_reads_where_an_attribute_is_kept_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(self: Any, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self.waiting = []

    monkeypatch.setattr(READER, "__init__", made)
    assert httptools.misfit(HttpToolsProtocol, ("flow", "loop")) == "HttpToolsProtocol has no loop"
    assert httptools.reader() is H11Protocol


def test_h11_reads_where_a_method_is_called_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def _start_asgi_task(self: Any, cycle: Any) -> None:
        self.tasks.add(cycle)

    def run_asgi(self: Any, app: Any) -> None:
        self.loop.run_until_complete(app)

    with monkeypatch.context() as patch:
        patch.setattr(READER, "_start_asgi_task", _start_asgi_task)
        assert httptools.reader() is H11Protocol
    with monkeypatch.context() as patch:
        patch.setattr(CYCLE, "run_asgi", run_asgi)
        assert httptools.reader() is H11Protocol
    assert httptools.reader() is HttpToolsProtocol


def test_h11_reads_where_a_client_that_closes_is_not_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before uvicorn 0.53 the reader left that to the response, which is ours."""

    def on_headers_complete(self: Any) -> None:
        self.cycle = None

    monkeypatch.setattr(READER, "on_headers_complete", on_headers_complete)
    assert httptools.reader() is H11Protocol


def test_requests_are_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(READER, "_start_asgi_task")
    with serving(PlainTextResponse("hello"), http=httptools.reader(), lifespan="off") as running:
        assert httpx.get(f"http://127.0.0.1:{running.port}").text == "hello"


@pytest.mark.parametrize(("kind", "names"), [(HttpToolsProtocol, httptools._READER), (Response, httptools._RESPONSE)])
def test_all_that_is_built_on_is_looked_for(kind: type, names: tuple[str, ...]) -> None:
    assert built_on(kind) - set(names) == set()
    assert httptools.misfit(kind, names) == ""


def built_on(kind: type) -> set[str]:
    """The attributes a class uses of itself and does not set, and those it takes the place of."""
    text = Path(sys.modules[kind.__module__].__file__ or "").read_text("utf-8")
    [body] = [
        each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.ClassDef) and each.name == kind.__name__
    ]
    own = [each for each in ast.walk(body) if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self"]
    made = {each.attr for each in own if isinstance(each.ctx, ast.Store)} | set(vars(kind))
    used = {each.attr for each in own if isinstance(each.ctx, ast.Load)}
    of_base = set(dir(kind.__base__)) - set(dir(object))
    return {name for name in used if name not in made} | (set(vars(kind)) & of_base) - {"__module__", "__dict__"}


def test_a_response_that_cannot_become_ours_is_found_before_there_is_one() -> None:
    class Theirs:
        __slots__ = ("scope",)

    class Ours(Theirs):
        __slots__ = ("more",)

    assert "layout" in httptools.no_place_for(Ours)
    assert not httptools.no_place_for(Response)
