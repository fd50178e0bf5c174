"""Counters in a SQLite file and several processes: racing, forked, and killed in the middle of their work."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.protocols import Hit
from apim_middleware.stores.sqlite import SQLiteCounters

from .sqlite_process import AT_ONCE, LIMITS, MOST, TRAFFIC

PROGRAM = Path(__file__).with_name("sqlite_process.py")


@contextlib.contextmanager
def running(job: str, path: Path, number: int = 0, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that does a job of the program."""
    command = [sys.executable, str(PROGRAM), job, str(path), str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def told(job: str, path: Path, number: int = 0, **options: Any) -> list[Any]:
    """What a job says until it ends."""
    with running(job, path, number, **options) as process:
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait() == 0
        return lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counts.db"


def test_eight_processes_on_one_new_file_let_in_exactly_the_limit(path: Path) -> None:
    """A thousand concurrent requests each, by every algorithm; the processes race to make the file, too."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running("race", path, 1_000)) for _ in range(8)]
        for process in processes:
            process.stdin.write(b"!")
            process.stdin.flush()
        counts = [json.loads(process.stdout.readline()) for process in processes]
    assert [sum(column) for column in zip(*counts, strict=True)] == [1_000] * len(LIMITS)


def test_a_process_that_is_forked_opens_the_file_anew(path: Path) -> None:
    *counts, rest = told("family", path, 300)
    assert [sum(column) for column in zip(*counts, strict=True)] == [900] * len(LIMITS)
    assert rest == [1] * len(LIMITS)
    assert anyio.run(left, path) == [98] * len(LIMITS)


def test_a_process_can_be_forked_while_others_count(path: Path) -> None:
    """Whatever lock of SQLite's the counting thread would have held: the child does not hang."""
    assert told("busy_family", path, 40) == [[3] * len(LIMITS)] * 40


async def left(path: Path) -> list[int]:
    counters = SQLiteCounters(path)
    tallies = await counters.peek([Hit("a", limit) for limit in LIMITS])
    await counters.aclose()
    return [tally.remaining for tally in tallies]


def test_a_process_that_is_killed_loses_nothing_it_told_and_gives_nothing_back(path: Path) -> None:
    answered = 0
    for round_ in range(1, 5):
        answered += answered_until_killed(path, at_least=400)
        counts = [MOST - tally.remaining for tally in anyio.run(traffic_so_far, path)]
        assert len(set(counts)) == 1  # all limits of a hit, or none
        assert answered <= counts[0] <= answered + round_ * AT_ONCE
    assert answered >= 1_600


def answered_until_killed(path: Path, at_least: int) -> int:
    with running("traffic", path) as process:
        answers = len(process.stdout.read(at_least))
        process.send_signal(signal.SIGKILL)
        return answers + len(process.stdout.read())


async def traffic_so_far(path: Path) -> Any:
    counters = SQLiteCounters(path)
    tallies = await counters.peek([Hit("a", limit) for limit in TRAFFIC])
    await counters.aclose()
    return tallies


def test_a_full_disk_is_an_error_that_passes_with_it(path: Path) -> None:
    """The system lets no file grow beyond a size; afterwards what was counted is there, and nothing else."""
    [number, cause], remaining = told("small_disk", path, 300_000)
    assert number > 1
    assert cause == "OperationalError"
    assert remaining == [999, 1_000]


def test_a_file_that_may_not_be_written_is_told_while_building() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "counts.db")
        anyio.run(left, path)
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        [[error, _, text]] = told("hit_once", path)
        [[error_of_new, _, text_of_new]] = told("hit_once", path.with_name("new.db"))
    assert (error, error_of_new) == ("ConfigError", "ConfigError")
    assert "cannot be written" in text
    assert "its folder cannot be written" in text_of_new
