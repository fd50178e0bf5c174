"""Signals that begin a drain reach every worker of ``apim serve``, on whichever server, and end nothing themselves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from tests.servers import PATIENCE, Running, free_port, program

from apim_middleware.cli._standing import longest_grace
from apim_middleware.policy import Stack
from apim_middleware.serving.health import Health

from . import apps

SERVE = [sys.executable, "-c", "from apim_middleware.cli import main; main()", "serve"]
SERVERS = [("uvicorn", 1), ("uvicorn", 2), ("granian", 1), ("granian", 2)]
OFTEN = 12
"""So often all workers have most likely been asked."""


@contextmanager
def served(server: str, workers: int, folder: Path, app: str = "probed") -> Iterator[Running]:
    """``apim serve``, once all its workers serve."""
    port, log = free_port(), folder / "log"
    command = [*SERVE, f"tests.cli.apps:{app}", "--server", server, "--workers", str(workers), "--port", str(port)]
    with program(command, port, log=log) as running:
        until(lambda: log.read_text().count("a worker is up") == workers)
        try:
            yield running
        finally:
            for process in (running.process, *children(running)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)  # which knows no grace


def children(running: Running) -> list[int]:
    """The processes that the first one has started."""
    return [int(each) for each in Path(f"/proc/{running.process}/task/{running.process}/children").read_text().split()]


def says(running: Running, status: str) -> bool:
    """Whether ``/readyz`` says so whoever answers."""
    return {httpx2.get(f"{running.origin}/readyz").json()["status"] for _ in range(OFTEN)} == {status}


def until(holds: Callable[[], bool]) -> None:
    """Wait for what will be so, and not for ever."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize(("server", "workers"), SERVERS)
def test_the_signal_to_drain_reaches_every_worker_and_ends_none(server: str, workers: int, tmp_path: Path) -> None:
    with served(server, workers, tmp_path) as running:
        before = children(running)
        assert says(running, "ok")
        os.kill(running.process, signal.SIGUSR2)
        until(lambda: says(running, "draining"))
        assert httpx2.get(running.origin).headers["connection"] == "close"
        assert children(running) == before


@pytest.mark.parametrize(("server", "workers"), SERVERS)
def test_where_nobody_listens_the_signal_to_drain_ends_nothing(server: str, workers: int, tmp_path: Path) -> None:
    """It killed workers without a ``Health``, or the only process."""
    with served(server, workers, tmp_path, "unprobed") as running:
        before = children(running)
        for process in (running.process, *before):
            os.kill(process, signal.SIGUSR2)
        assert {httpx2.get(running.origin).status_code for _ in range(OFTEN)} == {404}
        assert children(running) == before


@pytest.mark.parametrize(("server", "workers"), SERVERS)
def test_a_worker_that_is_told_to_drain_before_it_is_up_comes_up(server: str, workers: int, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    options = ["tests.cli.apps:late", "--server", server, "--workers", str(workers), "--port", str(port)]
    options += ["--stop-after", "1"]  # a worker of granian may miss the signal to end while it starts
    with log.open("wb") as output, subprocess.Popen([*SERVE, *options], stdout=output, stderr=output) as process:
        running = Running(port, process.pid)
        try:
            until(lambda: "is loaded" in log.read_text())
            while log.read_text().count("a worker is up") < workers:
                assert process.poll() is None
                for each in (process.pid, *children(running)):
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGUSR2)
                time.sleep(0.02)
            assert log.read_text().count("is loaded") <= 1 + workers
        finally:
            process.terminate()


@pytest.mark.parametrize(("server", "workers"), SERVERS)
def test_a_program_that_handles_the_signal_to_drain_keeps_it(server: str, workers: int, tmp_path: Path) -> None:
    with served(server, workers, tmp_path, "handling") as running:
        os.kill(running.process, signal.SIGUSR2)
        until(lambda: (tmp_path / "log").read_text().count("its own handler") == workers)


@pytest.mark.parametrize(("server", "workers"), SERVERS)
def test_between_the_signal_to_end_and_the_end_all_is_served(server: str, workers: int, tmp_path: Path) -> None:
    """granian ended at once, whatever the grace was; it is given also when the drain has begun before."""
    with served(server, workers, tmp_path) as running:
        if workers > 1:
            os.kill(running.process, signal.SIGUSR2)
            until(lambda: says(running, "draining"))
        os.kill(running.process, signal.SIGTERM)
        until(lambda: says(running, "draining"))
        assert httpx2.get(running.origin).status_code == 404


def test_workers_have_the_longest_grace_to_end() -> None:
    assert longest_grace(apps.probed) == 600
    assert longest_grace(Stack(Health(grace=5), Health(live="/a", ready="/b"))(apps.probed)) == 600
    assert longest_grace(apps.guarded) == 0
