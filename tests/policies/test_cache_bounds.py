"""What cannot be taken away by each of its names is not kept, nor what takes too much room."""

from types import SimpleNamespace
from typing import Any

import pytest

from apim_middleware._caching.purging import CachedResponses
from apim_middleware._caching.recordings import Recording, Room
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio


class House:
    """A cache, and an app whose responses have these tags."""

    def __init__(self, entries: Elsewhere | None) -> None:
        self.env, self.tags = Env(entries=entries), b"tea"
        self.app = Stack(Cache(), env=self.env, place="shop")(self.answer)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"max-age=60"), (b"cache-tag", self.tags)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def told(self, path: str = "/") -> str:
        return status(await call(self.app, path=path, headers=[(b"host", b"shop.test")]))


@pytest.fixture(params=["memory", "elsewhere"])
def house(request: pytest.FixtureRequest) -> House:
    return House(Elsewhere() if request.param == "elsewhere" else None)


async def test_sixty_four_tags_can_all_be_purged(house: House) -> None:
    house.tags = b",".join(b"t%d" % number for number in range(64))
    await house.told()
    assert "hit" in await house.told()
    await CachedResponses(house.env).purge_tag("t63")
    assert "stored" in await house.told()


@pytest.mark.parametrize("tags", [b",".join(b"t%d" % number for number in range(65)), b"t" * 1025])
async def test_more_or_longer_tags_are_said_to_be_the_reason(house: House, tags: bytes) -> None:
    house.tags = tags
    assert await house.told() == "apim;fwd=uri-miss;detail=too-many-tags"


async def test_a_deep_prefix_can_be_purged(house: House) -> None:
    house.tags = b",".join(b"t%d" % number for number in range(64))
    path = "/a" * 59 + "/"
    await house.told(path)
    assert "hit" in await house.told(path)
    await CachedResponses(house.env).purge_prefix("http://shop.test" + path)
    assert "stored" in await house.told(path)


async def test_what_is_deeper_is_not_kept(house: House) -> None:
    assert await house.told("/a" * 60 + "/") == "apim;fwd=uri-miss;detail=too-deep"


@pytest.mark.parametrize(("number", "told"), [(1_000, "hit"), (20_000, "uri-miss")])
async def test_a_response_in_crumbs_takes_the_room_that_holding_them_needs(number: int, told: str) -> None:
    """Only bytes were counted, and each chunk of one byte took eighty."""

    async def crumbling(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        for each in range(number):
            await send({"type": "http.response.body", "body": bytes([each % 256]), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    app = Stack(Cache(max_entry_bytes=1 << 20, max_bytes=1 << 22))(crumbling)
    for _ in range(2):
        answer = await call(app, headers=[(b"host", b"shop.test")])
        assert len(answer.body) == number
    assert told in status(answer)


async def test_what_crumbs_took_is_given_back() -> None:
    room = Room(1 << 20, 1 << 22)
    for size in (1, 3):
        keeping: Any = SimpleNamespace(headers=(), age=0.0)
        recording = Recording(room, keeping, status=200, now=0.0, received=0.0)
        for _ in range(5_000):
            recording.tap(b"x" * size, last=False)
        assert room.taken == 5_000 * size + (5_000 - 1_024) * 64
        recording.give_up()
        assert room.taken == 0
