"""Several responses to one URL in a store that is slow: keeping one leaves the others as they are by then."""

from functools import partial

import anyio
import pytest

from apim_middleware import by
from apim_middleware._caching import shared_turns
from apim_middleware.policies.cache import Cache
from apim_middleware.testing import Answer, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Guarded, status

pytestmark = pytest.mark.anyio


class App:
    """Speaks several languages, and thinks about English until it is told to speak."""

    def __init__(self) -> None:
        self.count, self.thinks, self.speaks = 0, anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.count += 1
        language = dict(scope["headers"])[b"accept-language"]
        body = b"%b %d" % (language, self.count)
        if language == b"en":
            self.thinks.set()
            await self.speaks.wait()
        headers = [(b"cache-control", b"max-age=60"), (b"vary", b"accept-language")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def ask(app: ASGIApp, language: bytes, *more: tuple[bytes, bytes]) -> Answer:
    return await call(app, headers=[(b"accept-language", language), *more])


@pytest.mark.parametrize("owned", [False, True])
async def test_a_response_that_was_renewed_meanwhile_stays_so(guarded: Guarded, owned: bool) -> None:
    """What stood there when the request was made was kept once more with what came."""
    origin = App()
    app = guarded(origin, Cache(vary_by=by.header("x-tenant") if owned else ()))
    assert (await ask(app, b"de")).body == b"de 1"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(ask, app, b"en"))
        await origin.thinks.wait()
        assert (await ask(app, b"de", (b"cache-control", b"no-cache"))).body == b"de 3"
        origin.speaks.set()
    answers = [await ask(app, language) for language in (b"de", b"en")]
    assert [(each.body, status(each)) for each in answers] == [
        (b"de 3", "apim;hit;ttl=60"), (b"en 2", "apim;hit;ttl=60"),
    ]  # fmt: skip


async def test_only_so_many_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who asks a slow store to keep one URL again and again would make all who come later wait."""
    monkeypatch.setattr(shared_turns, "_MOST", 1)
    turns = shared_turns.Turns()
    first = turns.turn("key")
    assert first is not None
    async with anyio.create_task_group() as tasks, first:
        tasks.start_soon(take, turns)
        while turns.turn("key") is not None:
            await anyio.lowlevel.checkpoint()
        assert turns.turn("other") is not None


async def take(turns: shared_turns.Turns) -> None:
    turn = turns.turn("key")
    assert turn is not None
    async with turn:
        pass
