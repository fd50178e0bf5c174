"""Questions asked in one tick of the event loop travel together, and so do those that come while others are away."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from typing import Generic, TypeAlias, TypeVar

from apim_middleware._config import check_count
from apim_middleware.errors import NotDone, StoreError
from apim_middleware.stores.redis.link import Silence

Q = TypeVar("Q")
A = TypeVar("A")

Carry: TypeAlias = Callable[[list[Q]], Awaitable[Sequence[A | StoreError]]]
"""Takes questions to the server and brings an answer or an error for each; raises StoreError when all failed."""


_BATCH = 32  # questions in one script: the server works on one half of a rush while we work on the other
_ABROAD = 2  # batches on their way at the same time


class Lane(Generic[Q, A]):
    """A queue in front of one server: first come, first served, a batch at a time.

    A question whose asker was cancelled before it left is dropped; one that has left is answered to nobody.
    """

    def __init__(self, carry: Carry[Q, A], most: int) -> None:
        """Let at most so many wait for their turn."""
        self._carry, self._most = carry, most
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._carriers: set[asyncio.Task[None]] = set()
        self._starting = False
        self._abroad = 0

    def ask(self, question: Q, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[A]":
        """The answer, some time. Raises StoreError when too many wait."""
        if len(self._waiting) >= self._most:
            raise NotDone(f"{self._most} wait for the store already")
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, future))
        if not self._starting and self._abroad < _ABROAD:
            self._start(loop)
        return future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send a carrier; it leaves in the next tick, when all questions of this one are there."""
        self._starting = True
        self._abroad += 1
        # In a context of its own: what it does is not done for the request that happened to come first.
        carrier = loop.create_task(self._go(loop), context=Context())
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)

    async def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting = False
        try:
            while batch := self._next():
                if self._waiting and not self._starting and self._abroad < _ABROAD:
                    self._start(loop)
                await self._deliver(batch)
        finally:
            self._abroad -= 1  # here and not when the task is done, which is a tick later: nobody would come to ask

    def _next(self) -> list[tuple[Q, "asyncio.Future[A]"]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        waiting = self._waiting
        while waiting and len(batch) < _BATCH:
            asked = waiting.popleft()
            if not asked[1].done():
                batch.append(asked)
        return batch

    async def _deliver(self, batch: list[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            answers: Sequence[A | StoreError] = await self._carry([question for question, _ in batch])
            if len(answers) != len(batch):
                raise StoreError(f"the store answered {len(answers)} of {len(batch)} questions")
        except StoreError as error:
            answers = [_another(error) for _ in batch]
            if isinstance(error, Silence | NotDone):
                self._disappoint(error)
        except asyncio.CancelledError:  # the loop ends
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            problem = StoreError(f"the store could not be asked ({type(error).__name__})")
            problem.__cause__ = error
            answers = [_another(problem) for _ in batch]
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, StoreError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _disappoint(self, error: StoreError) -> None:
        """The server is silent or will not serve: who waits need not ask once more to hear the same."""
        untold = error
        if not isinstance(error, NotDone):
            untold = NotDone(str(error))
            untold.__cause__ = error.__cause__
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(_another(untold))

    async def aclose(self) -> None:
        """Wait for what is on its way, and what waits."""
        while self._carriers:
            await asyncio.wait(self._carriers)


def lanes(owner: str, spaces: Iterable[bytes], carry: Carry[Q, A], most: int) -> dict[bytes, Lane[Q, A]]:
    """One for each of these places."""
    check_count(owner, "max_waiting", most)
    return {space: Lane(carry, most) for space in spaces}


def _another(error: StoreError) -> StoreError:
    """One for each who asked: an exception that is raised in many places collects the traces of all."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
