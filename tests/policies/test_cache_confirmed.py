"""Stored responses that the app has confirmed: they go by the names they had."""

import pytest
from fastapi import FastAPI, Request, Response

from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("tagged", [{200}, {304}, {200, 304}, set()])
@pytest.mark.parametrize("show_tags", [False, True])
async def test_a_confirmed_response_is_still_one_of_its_route(
    clock: FakeClock, entries: Elsewhere | None, tagged: set[int], show_tags: bool
) -> None:
    """Tags in the fields took the place of the route, which no field says."""
    api = FastAPI()

    @api.get("/prices/{name}")
    def price(request: Request) -> Response:
        code = 304 if "if-none-match" in request.headers else 200
        tags = {"cache-tag": "tea"} if code in tagged else {}
        return Response(status_code=code, headers={"cache-control": "max-age=60", "etag": '"1"', **tags})

    env = Env(clock=clock, entries=entries)
    app = Stack(Cache(show_tags=show_tags), env=env, place="here")(api)
    await call(app, path="/prices/tea")
    clock.advance(61)
    assert "fwd-status=304" in status(await call(app, path="/prices/tea"))
    await CachedResponses(env).purge_route("/prices/{name}")
    assert status(await call(app, path="/prices/tea")) == "apim;fwd=uri-miss;stored"
