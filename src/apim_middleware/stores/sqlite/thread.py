"""One thread that does the blocking work of a store, for everybody who waits at the same time in one go."""

import asyncio
import contextlib
import os
import queue
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import anyio

from apim_middleware.errors import NotDone, StoreError

Job = TypeVar("Job")

Call: TypeAlias = Callable[..., object]
"""Takes a function and its arguments, and has an event loop call it soon; may be used from any thread."""

_AT_ONCE = 256
"""How many jobs go into one batch at most: few enough that nobody waits long for the others."""


class Work(ABC, Generic[Job]):
    """What the thread does; everything here is called in it alone."""

    @abstractmethod
    def do(self, jobs: Sequence[Job]) -> Sequence[object]:
        """Do all the jobs or none, and give back what comes of each. Raises StoreError."""

    def rest(self) -> float | None:
        """After how many idle seconds ``do`` is to be called without jobs; None for never."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""


class Clerk(Generic[Job]):
    """Takes jobs from any event loop, asyncio's or trio's, and answers each when its batch is done.

    The thread starts with the first job. A forked process begins with a thread, and so a connection, of its own.
    At most ``room`` jobs wait; more than that are refused, for they would wait longer than anybody likes.
    """

    def __init__(self, make: Callable[[], Work[Job]], *, room: int) -> None:
        """Have the work made by ``make`` when there is some."""
        self._make = make
        self._room = room
        self._closed = False
        self._begin()
        _clerks.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._inbox: _Inbox[Job] | None = None

    async def ask(self, job: Job) -> Any:  # noqa: ANN401 - what the work makes of it
        """Have a job done, and give back what came of it. Raises StoreError.

        Who stops waiting before the job has begun, has it not done.
        """
        if self._closed:
            raise NotDone("the store is closed")
        inbox = self._inbox or self._started()
        if inbox.qsize() >= self._room:
            raise NotDone(f"{self._room} others wait for the store already")
        return await _answered(inbox, _Ticket(job))

    def leave(self, job: Job) -> None:
        """Have a job done, and do not wait for it."""
        if inbox := self._inbox:
            inbox.put(_Ticket(job))

    async def aclose(self) -> None:
        """Finish what is waiting, and end the thread; nothing can be asked afterwards."""
        self._closed = True
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            with anyio.CancelScope(shield=True):
                await _answered(inbox, _Ticket[Job](None))

    def _started(self) -> "_Inbox[Job]":
        with self._lock:
            if self._inbox is None:
                self._inbox = _Inbox()
                threading.Thread(target=_run, args=(self._make, self._inbox), name="store", daemon=True).start()
                weakref.finalize(self, self._inbox.put, None)
            return self._inbox


class _Ticket(Generic[Job]):
    """A job, or None to end, and how to tell who waits for it."""

    __slots__ = ("answer", "call", "error", "event", "given_up", "job")

    def __init__(self, job: Job | None) -> None:
        self.job = job
        self.call = _from_any_thread()
        self.event = anyio.Event()
        self.given_up = False
        self.answer: object = None
        self.error: Exception | None = None


class _Inbox(queue.SimpleQueue["_Ticket[Job] | None"]):
    """The tickets on their way to the thread; None ends it, and nobody waits for that."""


async def _answered(inbox: _Inbox[Job], ticket: _Ticket[Job]) -> object:
    inbox.put(ticket)
    try:
        await ticket.event.wait()
    except BaseException:
        ticket.given_up = True
        raise
    if ticket.error is not None:  # one for each who waits, as each has a traceback of its own
        kind = NotDone if isinstance(ticket.error, NotDone) else StoreError
        raise kind(*ticket.error.args) from ticket.error.__cause__ or ticket.error
    return ticket.answer


def _from_any_thread() -> Call:
    """How the event loop that runs here is told something from another thread."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        call: Call = trio.lowlevel.current_trio_token().run_sync_soon
        return call
    return asyncio.get_running_loop().call_soon_threadsafe


# In the thread


def _run(make: Callable[[], Work[Job]], inbox: _Inbox[Job]) -> None:
    work = make()
    with _gate:
        guard = _guards[work] = threading.Lock()
    while _serve(work, inbox, guard):
        pass
    del _guards[work]


def _serve(work: Work[Job], inbox: _Inbox[Job], guard: threading.Lock) -> bool:
    """Do what is waiting; whether to go on."""
    tickets, last = _gathered(inbox, work.rest())
    wanted = [ticket for ticket in tickets if ticket.job is not None and not ticket.given_up]
    with guard:
        if wanted or not last:
            _do(work, wanted)
        if last:
            work.close()
    _tell(tickets)
    return not last


def _gathered(inbox: _Inbox[Job], rest: float | None) -> tuple[list[_Ticket[Job]], bool]:
    """What is waiting, once there is something or the rest is over; and whether that is all there will be."""
    tickets: list[_Ticket[Job]] = []
    with contextlib.suppress(queue.Empty):
        ticket = inbox.get(timeout=rest)
        while ticket is not None:
            tickets.append(ticket)
            if ticket.job is None:
                return tickets, True
            if len(tickets) == _AT_ONCE:
                return tickets, False
            ticket = inbox.get_nowait()
        return tickets, True
    return tickets, False


def _do(work: Work[Job], tickets: Sequence[_Ticket[Job]]) -> None:
    try:
        answers = work.do([ticket.job for ticket in tickets if ticket.job is not None])
    except Exception as error:  # whatever it is: who waits must be told
        for ticket in tickets:
            ticket.error = error
    else:
        for ticket, answer in zip(tickets, answers, strict=True):
            ticket.answer = answer


def _tell(tickets: Sequence[_Ticket[Job]]) -> None:
    """Wake who waits: one call for each event loop."""
    by_loop: defaultdict[Call, list[_Ticket[Job]]] = defaultdict(list)
    for ticket in tickets:
        by_loop[ticket.call].append(ticket)
    for call, theirs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # their event loop is gone
            call(_wake, theirs)


def _wake(tickets: Sequence[_Ticket[Job]]) -> None:
    for ticket in tickets:
        ticket.event.set()


# Processes that are forked: SQLite forbids to use there, or even close, what the old process has open, and a thread in
# the middle of something would leave SQLite's own locks behind, held by nobody. So threads finish before a fork.

_gate = threading.Lock()
_guards: dict[Work[Any], threading.Lock] = {}
_paused: list[threading.Lock] = []
_left_alone: list[Work[Any]] = []
_clerks: "weakref.WeakSet[Clerk[Any]]" = weakref.WeakSet()


def _pause() -> None:
    _gate.acquire()
    _paused.extend(_guards.values())
    for guard in _paused:
        guard.acquire()


def _resume() -> None:
    for guard in _paused:
        guard.release()
    _paused.clear()
    _gate.release()


def _begin_anew() -> None:
    _resume()
    _left_alone.extend(_guards)
    _guards.clear()
    for clerk in _clerks:
        clerk._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_begin_anew)
