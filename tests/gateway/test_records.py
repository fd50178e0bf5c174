"""Subscriptions that are kept as records: what is changed at run time holds from the next request on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway.houses import KEY, Backend, code, get

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.gateway import Gateway
from apim_middleware.identity import Subscription
from apim_middleware.model import Api, Product
from apim_middleware.policies.limits import Quota
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.stores.sqlite.records import SQLiteRecords

pytestmark = pytest.mark.anyio


@pytest.fixture
async def keys(tmp_path: Path, anyio_backend: str) -> AsyncIterator[RecordKeys]:
    records = SQLiteRecords(tmp_path / "gateway.db")
    yield RecordKeys(records)
    await records.aclose()


async def test_subscriptions_change_while_the_gateway_serves(keys: RecordKeys) -> None:
    app = Gateway(
        apis=(Api("orders", "/orders", backend=Backend()),),
        products=(Product("starter", apis=("orders",)),),
        keys=keys,
    )
    assert code(await get(app, "/orders")) == "subscription-key-missing"
    await keys.add(Subscription(id="ada", product="starter"))
    lines = [(KEY, (await keys.issue("ada")).encode())]
    assert (await get(app, "/orders", lines)).status == 200
    await keys.suspend("ada")
    assert (await get(app, "/orders", lines)).status == 401
    await keys.resume("ada")
    assert (await get(app, "/orders", lines)).status == 200
    fresh = [(KEY, (await keys.rotate("ada")).encode())]
    assert [(await get(app, "/orders", each)).status for each in (lines, fresh)] == [200, 200]
    await keys.revoke("ada", "primary")
    assert [(await get(app, "/orders", each)).status for each in (lines, fresh)] == [401, 401]


async def test_counts_in_a_store_are_those_of_the_scope_after_a_restart(tmp_path: Path) -> None:
    statuses = []
    for calls in (2, 2):
        counters = SQLiteCounters(tmp_path / "counts.db")
        app = Gateway(
            apis=(
                Api(
                    "a",
                    "/a",
                    backend=Backend(),
                    policies=(Quota(calls=3, per=3600, by=by.client),),
                    subscription_required=False,
                ),
                Api(
                    "b",
                    "/b",
                    backend=Backend(),
                    policies=(Quota(calls=3, per=3600, by=by.client),),
                    subscription_required=False,
                ),
            ),
            env=Env(counters=counters, place="shop"),
        )
        statuses += [(await get(app, "/a/x")).status for _ in range(calls)]
        statuses.append((await get(app, "/b/x")).status)
        await counters.aclose()
    assert statuses == [200, 200, 200, 200, 403, 200]
