"""A response cache whose responses are kept elsewhere: large ones in parts, and a store that fails at any point."""

from collections.abc import Mapping

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 4096  # 1 MiB


class App:
    def __init__(self, body: bytes = BODY) -> None:
        self.count, self.body = 0, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.count += 1
        headers = [(b"cache-control", b"max-age=60"), (b"etag", b'"one"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, len(self.body), 65536):
            await send({"type": "http.response.body", "body": self.body[at : at + 65536], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Heard:
    """Counts events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        self.events.append(event)


@pytest.fixture
def entries() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def origin() -> App:
    return App()


@pytest.fixture
def app(entries: Elsewhere, heard: Heard, origin: App) -> ASGIApp:
    env = Env(clock=FakeClock(), entries=entries)
    env.listen(heard)
    return Stack(Cache(max_entry_bytes=4 << 20), env=env, place="here")(origin)


def is_hit(answer: Answer) -> bool:
    return (answer.header(b"cache-status") or b"").startswith(b"apim;hit")


async def test_a_large_body_is_kept_in_parts_and_comes_back_whole(app: ASGIApp, entries: Elsewhere) -> None:
    await call(app)
    assert max(map(len, entries.kept.values())) <= 256 * 1024
    assert len(entries.pages) == 6
    answer = await call(app)
    assert is_hit(answer)
    assert answer.body == BODY


@pytest.mark.parametrize("spoil", ["gone", "changed", "shorter", "swapped"])
async def test_one_whose_parts_are_not_what_they_were_is_a_miss(
    app: ASGIApp, entries: Elsewhere, origin: App, heard: Heard, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    await call(app)
    parts = sorted(key for key, value in entries.kept.items() if len(value) == 256 * 1024)
    if spoil == "gone":
        del entries.kept[parts[1]]
    elif spoil == "changed":
        entries.kept[parts[1]] = bytes(256 * 1024)
    elif spoil == "shorter":
        entries.kept[parts[1]] = entries.kept[parts[1]][1:]
    else:
        first, second = parts[:2]
        entries.kept[first], entries.kept[second] = entries.kept[second], entries.kept[first]
    answer = await call(app)
    assert answer.body == BODY
    assert not is_hit(answer)
    assert origin.count == 2
    assert caplog.messages == ["the store of the response cache gave back what was never stored"]
    assert "apim.cache.store_failed" in heard.events


@pytest.mark.parametrize("act", ["get", "add", "set", "delete"])
async def test_a_store_that_fails_at_any_point_costs_no_response(
    app: ASGIApp, entries: Elsewhere, heard: Heard, act: str
) -> None:
    entries.down = {act}
    for _ in range(2):
        answer = await call(app)
        assert (answer.status, answer.body) == (200, BODY)
    assert "apim.cache.store_failed" in heard.events
    entries.down = set()
    assert (await call(app)).body == BODY


async def test_a_lease_is_given_back_whatever_becomes_of_the_response(entries: Elsewhere) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("boom")

    app = Stack(Cache(), env=Env(clock=FakeClock(), entries=entries), place="here")(fails)
    with pytest.raises(RuntimeError, match="boom"):
        await call(app)
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert entries.kept == {}
