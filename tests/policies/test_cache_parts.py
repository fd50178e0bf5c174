"""Large responses that stand in several entries: what becomes of them when they change, are replaced or forged."""

import struct
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

import anyio
import pytest

from apim_middleware._caching.packing import fingerprint
from apim_middleware._caching.purging import CachedResponses
from apim_middleware._caching.shared_parts import _MARK
from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio

SIZE = 700_000
AGAIN = [(b"cache-control", b"no-cache")]


class App:
    """Has one large resource, which every other method than GET changes."""

    def __init__(self) -> None:
        self.version = 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.version += scope["method"] != "GET"
        headers = [(b"cache-control", b"max-age=60"), (b"cache-tag", b"tea")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%d" % self.version * SIZE})


class Busy(Elsewhere):
    """A store where something else is done just after, or just before, an entry is set or some are looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.after_sets = self.before_looks = -1
        self.deed: Callable[[], Awaitable[object]] | None = None
        self.fails_then: set[str] = set()

    async def _maybe(self, left: int) -> None:
        deed = self.deed
        if left == 0 and deed is not None:
            self.deed = None
            await deed()
            self.down = self.fails_then

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        kept = await super().set(key, value, ttl, tags=tags, since=since)
        self.after_sets -= 1
        await self._maybe(self.after_sets)
        return kept

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.before_looks -= 1
        await self._maybe(self.before_looks)
        return await super().get_many(keys)


class Slow(Elsewhere):
    """A store that lets others go first."""

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        await anyio.lowlevel.checkpoint()
        return await super().set(key, value, ttl, tags=tags, since=since)


@pytest.fixture
def store() -> Busy:
    return Busy()


@pytest.fixture
def env(store: Busy) -> Env:
    return Env(clock=FakeClock(), entries=store)


@pytest.fixture
def origin() -> App:
    return App()


@pytest.fixture
def app(env: Env, origin: App) -> ASGIApp:
    return Stack(Cache(), env=env, place="here")(origin)


def headers(store: Elsewhere) -> list[bytes]:
    return [key for key, value in store.kept.items() if value.startswith(_MARK)]


@pytest.mark.parametrize("sets", range(1, 6))
@pytest.mark.parametrize("purges", [False, True])
async def test_a_change_while_it_is_being_kept_is_not_undone(
    app: ASGIApp, env: Env, origin: App, store: Busy, sets: int, purges: bool
) -> None:
    """Only the moment before the first entry was looked at."""

    async def change() -> None:
        if purges:
            origin.version += 1
            await CachedResponses(env).purge_tag("tea")
        else:
            await call(app, "POST")

    store.after_sets, store.deed = sets, change
    await call(app)
    assert store.deed is None
    assert store.pages == []
    assert (await call(app)).body[:1] == b"2"


async def test_what_cannot_be_taken_back_is_not_given_away(app: ASGIApp, store: Busy) -> None:
    async def change() -> None:
        await call(app, "POST")

    store.after_sets, store.deed, store.fails_then = 4, change, {"delete"}
    await call(app)
    store.down = set()
    assert (await call(app)).body[:1] == b"2"


async def test_keeping_it_again_leaves_nothing_of_the_one_before(app: ASGIApp, store: Busy) -> None:
    await call(app)
    before = set(store.pages)
    for _ in range(3):
        assert "stored" in status(await call(app, headers=AGAIN))
    assert len(store.pages) == len(before) == 4
    assert not before & set(store.pages) - set(headers(store))


async def test_many_who_keep_it_at_once_leave_one(origin: App) -> None:
    store = Slow()
    app = Stack(Cache(), env=Env(clock=FakeClock(), entries=store), place="here")(origin)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(partial(call, app, headers=AGAIN))
    assert len(store.pages) == 4


async def test_a_change_takes_its_parts_along(app: ASGIApp, store: Busy) -> None:
    await call(app)
    await call(app, "POST")
    assert store.kept == {}


async def test_a_purge_takes_its_parts_along(app: ASGIApp, env: Env, store: Busy) -> None:
    await call(app)
    await CachedResponses(env).purge_tag("tea")
    assert store.pages == []


async def test_nothing_is_left_of_what_could_not_be_kept(app: ASGIApp, store: Busy) -> None:
    async def fail() -> None:
        raise StoreError("full")

    store.after_sets, store.deed = 2, fail
    await call(app)
    assert store.kept == {}


async def test_who_reads_it_while_it_is_replaced_gets_the_new_one(app: ASGIApp, store: Busy) -> None:
    await call(app)

    async def replace() -> None:
        await call(app, headers=AGAIN)

    store.before_looks, store.deed = 1, replace
    answer = await call(app)
    assert store.deed is None
    assert status(answer) == "apim;hit;ttl=60"


def forged(key: bytes, size: int) -> bytes:
    """A header that is as it should be, of parts that are not there."""
    name = b"0" * 16
    return struct.pack(">5s24s16sQ", _MARK, fingerprint(("parts", key, name, b"%d" % size)), name, size)


@pytest.mark.parametrize(
    "header",
    [
        b"[5,100]", b"[null,10]", b"[" * 100_000, b'["x",400000000000]', b'["x",1e400]', b'["x",-5]', b"{}", b"",
        b"x" * 48, 0, 1, 10**11, 2**64 - 1,
    ],
)  # fmt: skip
@pytest.mark.parametrize("changed", [False, True])
async def test_a_forged_header_is_a_miss(app: ASGIApp, store: Busy, header: bytes | int, changed: bool) -> None:
    await call(app)
    [key] = headers(store)
    store.kept[key] = _MARK + header if isinstance(header, bytes) else forged(key, header)
    if changed:
        assert (await call(app, "POST")).status == 200
    assert [status(await call(app)) for _ in range(2)] == ["apim;fwd=uri-miss;stored", "apim;hit;ttl=60"]


async def test_the_header_of_another_page_is_a_miss(app: ASGIApp, store: Busy) -> None:
    await call(app)
    await call(app, path="/other")
    one, other = headers(store)
    store.kept[other] = store.kept[one]
    assert status(await call(app, path="/other")) == "apim;fwd=uri-miss;stored"
