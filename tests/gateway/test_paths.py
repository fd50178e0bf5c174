"""No form of a path leads around a policy: what is judged is what the backend gets, byte for byte."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.houses import code

from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Operation
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.proxy.app import Proxy
from apim_middleware.testing import Answer, call
from apim_middleware.types import RawHeaders

pytestmark = pytest.mark.anyio


class Upstream:
    """A transport to an upstream that answers everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> "Upstream":
        self.asked.append(request)
        return self

    status = 200
    headers: RawHeaders = [(b"content-length", b"0")]  # noqa: RUF012

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in ():
            yield chunk

    async def aclose(self) -> None:
        """There is nothing to close."""


PASS = [(b"x-pass", b"let me in")]
LOCK = RequireHeader(name="x-pass", values=("let me in",))


def house(upstream: Upstream, base: str = "") -> Gateway:
    """An API whose operations below ``/admin`` need a header, and all others do not."""
    return Gateway(
        apis=(
            Api(
                "shop",
                "/shop",
                backend=Proxy(f"http://upstream{base}", transport=upstream),
                operations=(Operation("*", "/admin/*", policies=(LOCK,)), Operation("*", "/*")),
                subscription_required=False,
            ),
            Api(
                "vault",
                "/vault",
                backend=Proxy(f"http://upstream{base}/~vault", transport=upstream),
                policies=(LOCK,),
                subscription_required=False,
            ),
        )
    )


async def ask(app: Any, raw: bytes, **more: Any) -> Answer:
    """A request whose path a server hands on as the wire had it."""
    path, _, query = raw.partition(b"?")
    text = unquote(path.decode("latin-1"))
    return await call(app, "GET", text, query=query, raw_path=path, **more)


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (b"/shop/x", b"/x"),
        (b"/shop/admin", "refused"),
        (b"/shop/admin/x", "refused"),
        (b"/shop/admin/", "refused"),
        (b"/shop//admin", "refused"),
        (b"//shop///admin//x", "refused"),
        (b"/shop/%61dmin", "refused"),
        (b"/%73hop/admin/x", "refused"),
        (b"/shop/public/../admin", "bad-target"),
        (b"/shop/public/%2e%2e/admin", "bad-target"),
        (b"/shop/public/.%2e/admin", "bad-target"),
        (b"/shop/public/..%2fadmin", "bad-target"),
        (b"/shop/./admin", "bad-target"),
        (b"/shop/public/..;/admin", "bad-target"),
        (b"/shop/public%5c..%5cadmin", "bad-target"),
        (b"/shop/admin%2fx", "bad-target"),
        (b"/shop/admin%00", "bad-target"),
        (b"/shop/admin%zz", "bad-target"),
        (b"/shop/%c0%ae%c0%ae/admin", "bad-target"),
        (b"/shop/admin;x=1", b"/admin;x=1"),
        (b"/shop/%2561dmin", b"/%2561dmin"),
        (b"/shop/ADMIN", b"/ADMIN"),
        (b"/shop/%EF%BD%81dmin", b"/%EF%BD%81dmin"),
        (b"/shop/a%3fadmin=1", b"/a%3fadmin=1"),
        (b"/shop/x?_method=DELETE", b"/x?_method=DELETE"),
        (b"/shop;rev=1/admin", "refused"),
        (b"/shop;rev=1/x", b"/x"),
        (b"/shop;rev=2/admin", "operation-not-found"),
        (b"/shop;x/admin", "operation-not-found"),
        (b"/SHOP/admin", "operation-not-found"),
        (b"/vault", "refused"),
        (b"/vault;rev=1", "refused"),
        (b"/vault/x/../../shop/x", "bad-target"),
    ],
)
async def test_every_form_is_judged_as_the_backend_gets_it(raw: bytes, outcome: bytes | str) -> None:
    upstream = Upstream()
    answer = await ask(house(upstream), raw)
    if isinstance(outcome, bytes):
        assert [request.target for request in upstream.asked] == [outcome]
        return
    assert upstream.asked == []
    assert code(answer) == {"refused": "header-missing"}.get(outcome, outcome)


async def test_who_brings_what_it_takes_comes_in() -> None:
    upstream = Upstream()
    for raw in (b"/shop/admin", b"/shop//admin/x?a=1", b"/vault", b"/vault/y"):
        assert (await ask(house(upstream, "/base"), raw, headers=PASS)).status == 200
    targets = [request.target for request in upstream.asked]
    assert targets == [b"/base/admin", b"/base/admin/x?a=1", b"/base/~vault", b"/base/~vault/y"]


async def test_a_gateway_below_a_path_judges_what_is_below() -> None:
    upstream = Upstream()
    app = house(upstream)
    assert (await ask(app, b"/outer/shop/admin", root_path="/outer")).status != 200
    assert (await ask(app, b"/outer/shop/x", root_path="/outer")).status == 200
    assert [request.target for request in upstream.asked] == [b"/x"]


async def test_the_target_of_an_absolute_form_is_the_path_alone() -> None:
    upstream = Upstream()
    answer = await call(house(upstream), "GET", "http://evil/shop/admin", raw_path=b"http://evil/shop/admin")
    assert (answer.status, upstream.asked) == (400, [])


async def test_other_ways_to_name_a_path_are_not_looked_at() -> None:
    upstream = Upstream()
    lines = [(b"x-original-url", b"/shop/x"), (b"x-rewrite-url", b"/shop/x"), (b"x-http-method-override", b"GET")]
    assert (await ask(house(upstream), b"/shop/admin", headers=lines)).status != 200
    assert (await ask(house(upstream), b"/shop/x", headers=lines)).status == 200
    names = {name for name, _ in upstream.asked[0].headers}
    assert names.isdisjoint(name for name, _ in lines)


pieces = st.sampled_from(
    [
        *b"shop admin ADMIN vault x .. . ;rev=1 ;rev=2 %61dmin %2e%2e %2f %2561dmin %5c ..; ; %00 %ff %E2%80%AE"
        b" shop;rev=1 admin;v=1 %3b %20".split(),
        b"",
    ]
)


@given(st.lists(pieces, max_size=6), st.booleans())
def test_nothing_below_admin_is_reached_without_the_header(parts: list[bytes], slash: bool) -> None:
    upstream = Upstream()
    raw = b"/" + b"/".join(parts) + (b"/" if slash else b"")
    anyio.run(ask, house(upstream), raw)
    for request in upstream.asked:
        path = unquote(request.target.partition(b"?")[0].decode())
        first = [segment for segment in path.split("/") if segment][:1]
        assert first not in (["admin"], ["~vault"]), raw


@given(st.lists(pieces, max_size=6))
def test_the_path_that_is_matched_is_the_path_that_is_sent(parts: list[bytes]) -> None:
    upstream = Upstream()
    seen: list[list[str]] = []

    class Looks:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            exchange = Exchange.of(scope)
            assert exchange is not None
            assert exchange.match is not None
            seen.append(list(exchange.match.segments))
            await self.app(scope, receive, send)

    api = Api("shop", "/shop", backend=Looks(Proxy("http://upstream", transport=upstream)), subscription_required=False)
    anyio.run(ask, Gateway(apis=(api,), env=Env()), b"/shop/" + b"/".join(parts))
    for segments, request in zip(seen, upstream.asked, strict=True):
        path = unquote(request.target.partition(b"?")[0].decode(), errors="strict")
        assert path.split("/")[1:] == (segments or [""])
