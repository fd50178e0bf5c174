"""Background jobs: work that hooks which never await leave to the background."""

import anyio
import anyio.lowlevel
import pytest

from apim_middleware.stores.background import BackgroundJob


class Pile:
    """Some work, and who did how much of it."""

    def __init__(self) -> None:
        self.left = 0
        self.done: list[bool] = []
        self.opened: anyio.Event | None = None
        self.failure: Exception | None = None
        self.job = BackgroundJob(self.work)

    async def work(self, *, last: bool) -> None:
        while self.left:
            await anyio.lowlevel.checkpoint()
            if self.failure is not None:
                raise self.failure
            if self.opened is not None and not last:
                await self.opened.wait()
            self.left -= 1
            self.done.append(last)

    def add(self, number: int = 1) -> None:
        self.left += number
        self.job.wake()


@pytest.fixture
def pile() -> Pile:
    return Pile()


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.anyio
async def test_work_is_done_soon_and_once(pile: Pile) -> None:
    for _ in range(3):
        pile.add()
    await pile.job.over()
    pile.add(2)
    await pile.job.over()
    await pile.job.over()
    assert pile.done == [False] * 5


@pytest.mark.anyio
async def test_it_outlives_the_request_that_woke_it(pile: Pile) -> None:
    async def request() -> None:
        pile.add()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    await pile.job.over()
    assert pile.done == [False]


@pytest.mark.anyio
async def test_an_error_is_logged_and_the_next_begins_anew(pile: Pile, caplog: pytest.LogCaptureFixture) -> None:
    pile.failure = LookupError("oops")
    pile.add()
    await pile.job.over()
    assert "work in the background failed" in caplog.text
    pile.failure = None
    pile.job.wake()
    await pile.job.over()
    assert pile.done == [False]


def test_an_event_loop_that_ends_is_waited_for_once_more(pile: Pile, backend: str) -> None:
    async def main() -> None:
        pile.opened = anyio.Event()
        pile.add(3)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert pile.done == []

    anyio.run(main, backend=backend)
    assert pile.done == [True] * 3


def test_an_error_at_the_end_of_an_event_loop_is_logged_and_ends_nothing_else(
    pile: Pile, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        pile.opened = anyio.Event()
        pile.add()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        pile.failure = LookupError("oops")

    anyio.run(main, backend=backend)
    assert [record.message for record in caplog.records] == ["work in the background failed"]


def test_another_event_loop_goes_on_with_it(pile: Pile, backend: str) -> None:
    pile.add()  # no event loop runs: nothing happens yet
    assert pile.done == []

    async def main() -> None:
        pile.add()
        await pile.job.over()

    anyio.run(main, backend=backend)
    anyio.run(main, backend=backend)
    assert pile.done == [False] * 3
