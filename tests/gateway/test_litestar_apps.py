"""Apps of Litestar behind a gateway: their documents are read as FastAPI's are."""

import json
from typing import Any

import pytest
from litestar import Litestar, get
from tests.gateway.houses import get as ask

from apim_middleware.gateway import Gateway
from apim_middleware.gateway.app_of_apps import AppOfApps
from apim_middleware.gateway.sub_app import SubApp
from apim_middleware.openapi import openapi_of

pytestmark = pytest.mark.anyio

OPEN: dict[str, Any] = {"subscription_required": False}


@get("/{number:int}", operation_id="show")
async def order() -> dict[str, str]:
    return {"name": "order"}


async def test_its_operations_are_those_of_its_document() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=Litestar([order]), only_documented=True, **OPEN))
    assert json.loads((await ask(one, "/orders/7")).body) == {"name": "order"}
    assert (await ask(one, "/orders/schema/redoc")).status == 404
    assert [each.operation for each in one.gateway.rows()] == ["show"]
    assert set(openapi_of(one.gateway)["paths"]) == {"/orders/{number}"}


async def test_one_without_a_document_passes_whole() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=Litestar([order], openapi_config=None), **OPEN))
    assert (await ask(one, "/orders/7")).status == 200
    assert [each.path for each in one.gateway.rows()] == ["/orders/*"]
