"""Redis shared by several processes: exactly as many pass as may, and who is killed lets others in."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import redis
from tests.servers import RedisServer

from apim_middleware.stores.redis import RedisPermits
from apim_middleware.testing import FakeClock

from .redis_process import LIMITS

PROGRAM = Path(__file__).with_name("redis_process.py")


@contextlib.contextmanager
def running(job: str, url: str, number: int) -> Iterator[Any]:
    """A process that does a job of the program."""
    command = [sys.executable, str(PROGRAM), job, url, str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def go(processes: list[Any]) -> None:
    for process in processes:
        process.stdin.write(b"!")
        process.stdin.flush()


def test_eight_processes_let_in_exactly_the_limit(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    """A thousand concurrent requests each, by every algorithm."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running("race", shared_redis.url, 1_000)) for _ in range(8)]
        go(processes)
        counts = [json.loads(process.stdout.readline()) for process in processes]
    assert [sum(column) for column in zip(*counts, strict=True)] == [1_000] * len(LIMITS)


def test_four_processes_let_exactly_as_many_holders_in_as_there_is_room_for(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running("crowd", shared_redis.url, 60)) for _ in range(4)]
        go(processes)
        counts = [json.loads(process.stdout.readline()) for process in processes]
        assert sum(counts) == 100
        go(processes)
        assert [process.wait() for process in processes] == [0] * 4
    assert not emptied_redis.keys()  # all let out at the end


def test_the_permits_of_a_process_that_was_killed_come_back_after_the_lease(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    with running("hold", shared_redis.url, 3) as process:
        assert [json.loads(process.stdout.readline()) for _ in range(3)] == [[True, 1], [True, 2], [True, 3]]

    async def come_later() -> list[tuple[bool, int]]:
        clock = FakeClock()
        permits = RedisPermits(shared_redis.url, clock=clock)
        told = []
        for seconds in (0.0, 14.9, 0.1):
            clock.advance(seconds)
            told.append(await permits.acquire("door", 3, "another"))
        await permits.aclose()
        return told

    assert anyio.run(come_later) == [(False, 3), (False, 3), (True, 1)]
