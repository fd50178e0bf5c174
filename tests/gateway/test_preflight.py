"""A CORS preflight has no key: policies may answer it, but nothing else is let in that way."""

from dataclasses import dataclass

import anyio.lowlevel
import pytest
from starlette.responses import Response
from tests.gateway.houses import Backend, Passes, Subscribers, code, get

from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Operation, Product
from apim_middleware.policy import Policy
from apim_middleware.stores.keys import KeyRecord, MemoryKeys
from apim_middleware.types import ASGIApp

pytestmark = pytest.mark.anyio

ASKS = [(b"origin", b"https://shop.example"), (b"access-control-request-method", b"GET")]


@dataclass(frozen=True)
class AnswersPreflights(Policy):
    """As a policy for CORS does."""

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        if exchange.method == "OPTIONS" and exchange.header(b"access-control-request-method"):
            return Response(status_code=204, headers={"access-control-allow-origin": "*"})
        return None


def house(*policies: Policy, operations: tuple[Operation, ...] = (), gateway: tuple[Policy, ...] = ()) -> Gateway:
    api = Api("a", "/a", backend=Backend(), policies=policies, operations=operations)
    return Gateway(apis=(api,), keys=Subscribers().store, policies=gateway)


@pytest.mark.parametrize("operations", [(), (Operation("GET", "/x"),)])
async def test_a_policy_of_the_api_may_answer(operations: tuple[Operation, ...]) -> None:
    app = house(Passes("first"), AnswersPreflights(), operations=operations)
    answer = await get(app, "/a/x", ASKS, "OPTIONS")
    assert (answer.status, answer.header(b"access-control-allow-origin")) == (204, b"*")
    assert answer.all(b"x-passed") == [b"first"]


@pytest.mark.parametrize("operations", [(), (Operation("GET", "/x"),)])
async def test_where_no_policy_answers_it_is_refused_like_any_other(operations: tuple[Operation, ...]) -> None:
    app = house(operations=operations)
    answer = await get(app, "/a/x", ASKS, "OPTIONS")
    assert (answer.status, code(answer)) == (401, "subscription-key-missing")
    assert app.apis[0].backend.seen == []  # type: ignore[attr-defined]


async def test_only_a_true_preflight_is_one() -> None:
    app = house(AnswersPreflights())
    for headers in ([], ASKS[:1], ASKS[1:]):
        assert (await get(app, "/a/x", headers, "OPTIONS")).status == 401


async def test_a_preflight_for_a_method_nobody_has_is_not_there() -> None:
    app = house(AnswersPreflights(), operations=(Operation("POST", "/x"),))
    assert (await get(app, "/a/x", ASKS, "OPTIONS")).status == 404


async def test_an_operation_of_its_own_goes_before() -> None:
    app = house(AnswersPreflights(), operations=(Operation("GET", "/x"), Operation("OPTIONS", "/x")))
    assert (await get(app, "/a/x", ASKS, "OPTIONS")).status == 401


async def test_a_backend_that_asks_nobody_answers_itself() -> None:
    backend = Backend()
    app = Gateway(apis=(Api("a", "/a", backend=backend, subscription_required=False),))
    assert (await get(app, "/a/x", ASKS, "OPTIONS")).status == 200
    narrow = Gateway(
        apis=(Api("a", "/a", backend=backend, subscription_required=False, operations=(Operation("GET", "/x"),)),)
    )
    assert (await get(narrow, "/a/x", ASKS, "OPTIONS")).status == 404
    assert len(backend.seen) == 1


async def test_policies_of_an_open_product_stand_in_front() -> None:
    app = Gateway(
        apis=(Api("a", "/a", backend=Backend(), operations=(Operation("GET", "/x"),)),),
        products=(Product("free", apis=("a",), policies=(AnswersPreflights(),), subscription_required=False),),
    )
    assert (await get(app, "/a/x", ASKS, "OPTIONS")).status == 204


async def test_what_was_answered_was_not_refused() -> None:
    seen: list[object] = []

    @dataclass(frozen=True)
    class Looks(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(exchange.refusal and exchange.refusal.code)

    app = house(gateway=(Looks(), AnswersPreflights()))
    assert (await get(app, "/nowhere", ASKS, "OPTIONS")).status == 204
    assert (await get(app, "/nowhere")).status == 404
    assert seen == [None, "operation-not-found"]


class Waits:
    """A store of keys that has to be waited for."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys

    async def find(self, digest: bytes) -> KeyRecord | None:
        await anyio.lowlevel.checkpoint()
        return self.keys.find(digest)


async def test_a_preflight_comes_as_far_where_the_store_of_keys_is_waited_for() -> None:
    subscribers, backend = Subscribers(), Backend()
    lines = subscribers.add("one", api="*")
    api = Api("a", "/a", backend=backend, policies=(Passes("first"),))
    app = Gateway(apis=(api,), keys=Waits(subscribers.store))
    refused = await get(app, "/a/x", ASKS, "OPTIONS")
    assert (refused.status, code(refused), refused.all(b"x-passed")) == (401, "subscription-key-missing", [b"first"])
    assert backend.seen == []
    assert (await get(app, "/a/x", [*ASKS, *lines], "OPTIONS")).status == 200
    answering = Gateway(
        apis=(Api("a", "/a", backend=backend, policies=(AnswersPreflights(),)),), keys=Waits(subscribers.store)
    )
    assert (await get(answering, "/a/x", ASKS, "OPTIONS")).status == 204
    assert len(backend.seen) == 1
