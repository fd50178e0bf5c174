"""Measures apps in process on a machine that changes its speed and has other things to do.

CPU time is measured, not the time of day. Every sample is short, the cases take turns in a new order each round, and a
fixed piece of work right before and after a sample says how fast the machine was. The third of a case's samples counts
that saw the machine at its fastest, scaled to its full speed. Medians are compared, and only within one run.
"""

import asyncio
import gc
import os
import random
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import process_time
from typing import Any, NamedTuple

Scopes = Callable[[], dict[str, Any]]
"""Makes the scope of one more request, as a server does."""

Drive = Callable[[int], Awaitable[float]]
"""Does one thing so many times, and says how many seconds that took."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to look: rounds, seconds for each sample in process, seconds under load for each server."""

    rounds: int
    sample: float
    served_rounds: int
    load: int
    paced: float = 2.0
    """Seconds at a fixed rate for each server."""
    body: int = 100 << 20
    """Bytes of a large body."""


FULL = Effort(rounds=201, sample=0.003, served_rounds=7, load=2)
SMOKE = Effort(rounds=3, sample=0.0005, served_rounds=1, load=1, paced=0.2)


class Case(NamedTuple):
    """An app to measure, and the requests it gets."""

    app: Any
    scopes: Scopes


class Sample(NamedTuple):
    """Seconds for one request, and for the fixed piece of work before and after."""

    took: float
    before: float
    after: float

    @property
    def slowness(self) -> float:
        """How slow the machine was, at one end of the sample at least."""
        return max(self.before, self.after)


class Wire:
    """The server's side of one exchange: one empty body, then silence."""

    __slots__ = ("asked", "status")

    def __init__(self) -> None:
        self.asked = False
        self.status = 0

    async def receive(self) -> dict[str, Any]:
        """The request body, once; a client that stays."""
        if self.asked:
            await asyncio.Event().wait()
        self.asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Take the message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]


def microseconds(cases: Mapping[str, Case], effort: Effort) -> dict[str, float]:
    """The median time of one request for each case, at the machine's full speed."""
    return timed({name: partial(_drive, case) for name, case in cases.items()}, effort)


def timed(drives: Mapping[str, Drive], effort: Effort) -> dict[str, float]:
    """The median time in microseconds of one of the things that are driven, at the machine's full speed."""
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        samples = runner.run(_samples(drives, effort))
    full_speed = _low(each.before for rows in samples.values() for each in rows)
    return {name: 1e6 * _median(rows, full_speed) for name, rows in samples.items()}


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop a server would use."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


async def _samples(drives: Mapping[str, Drive], effort: Effort) -> dict[str, list[Sample]]:
    order = random.Random(1)
    sizes = {name: await _size(drive, effort.sample) for name, drive in drives.items()}
    samples: dict[str, list[Sample]] = {name: [] for name in drives}
    gc.collect()
    gc.freeze()
    for _ in range(effort.rounds):
        for name in order.sample(list(drives), len(drives)):
            before = _fixed_work()
            took = await drives[name](sizes[name])
            samples[name].append(Sample(took / sizes[name], before, _fixed_work()))
    gc.unfreeze()
    return samples


async def _size(drive: Drive, sample: float) -> int:
    """How many times fill a sample, found when caches are warm.

    What a drive tells may be a difference, and nothing is left of one in a moment of noise:
    it counts for a tenth of what it took.
    """
    await drive(20)
    start = process_time()
    told = await drive(20)
    return max(1, int(20 * sample / max(told, (process_time() - start) / 10)))


async def _drive(case: Case, times: int) -> float:
    app, scopes = case
    start = process_time()
    for _ in range(times):
        wire = Wire()
        await app(scopes(), wire.receive, wire.send)
        if wire.status != 200:
            raise AssertionError(f"{app} answered {wire.status}")
    return process_time() - start


def _fixed_work() -> float:
    """Seconds for a piece of work that is always the same, of the kind that middleware does."""
    start = process_time()
    for number in range(400):
        scope = {"type": "http", "path": "/", "number": number}
        pairs = [(name, len(name)) for name in scope]
        scope = {**scope, "pairs": tuple(pairs)}
    return process_time() - start


def _median(rows: Sequence[Sample], full_speed: float) -> float:
    fastest = sorted(rows, key=lambda each: each.slowness)[: max(1, len(rows) // 3)]
    return statistics.median(each.took * full_speed * 2 / (each.before + each.after) for each in fastest)


def _low(times: Iterator[float]) -> float:
    """What the fastest tenth needs: the machine at full speed, whatever the luckiest sample was."""
    ordered = sorted(times)
    return ordered[len(ordered) // 10]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that is also Markdown."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (head, ["-" * width for width in widths], *rows):
        _, *numbers = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("|", " | ".join([row[0].ljust(widths[0]), *numbers]), "|", flush=True)


def heading() -> None:
    """Say what is running here, for numbers mean nothing without."""
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("starlette", "fastapi", "uvicorn", "pyjwt"))
    print(f"Python {sys.version.split()[0]} on {os.cpu_count()} cores; {libraries}.")
    print("Compare within one table of one run only.")
