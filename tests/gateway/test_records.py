"""Subscriptions that are kept as records: what is changed at run time holds from the next request on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway.houses import KEY, Backend, code, get

from apim_middleware.gateway import Gateway
from apim_middleware.identity import Subscription
from apim_middleware.model import Api, Product
from apim_middleware.stores.record_keys import RecordKeys
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
