"""The example as a newcomer would run it: servers are killed and stopped, and every request is answered."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.servers import PATIENCE, free_port, program

EXAMPLE = Path(__file__).parents[2] / "examples" / "pool.py"


class Session:
    """The running example."""

    def __init__(self, running, log):
        self.running = running
        printed = log.read_text()
        first, second = re.search(r"kill -9 (\d+); kill -STOP (\d+)", printed).groups()
        self.processes = [int(first), int(second)]
        self.last = re.search(r"drain\?url=([^']+)", printed)[1]

    def ask(self, path="/", method="GET"):
        line = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        head, _, body = self.running.talk(line.encode()).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), json.loads(body)

    def all_seen(self):
        """The processes of all servers, once each has answered."""
        seen, give_up = set(), time.monotonic() + PATIENCE
        while len(seen) < 3:
            assert time.monotonic() < give_up
            seen.add(self.ask()[1].get("process"))
            seen.discard(None)
        self.until("ready", "ready", "ready")
        return seen

    def states(self):
        return [each["state"] for each in self.ask("/members")[1]]

    def until(self, *states):
        give_up = time.monotonic() + PATIENCE
        while self.states() != list(states):
            assert time.monotonic() < give_up, self.states()
            time.sleep(0.02)


@pytest.fixture
def example(tmp_path):
    port, log = free_port(), tmp_path / "log"
    ports = [str(free_port()) for _ in range(3)]
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--port", str(port), "--ports", *ports]
    with program(command, port, log=log) as running:
        yield Session(running, log)


def test_every_request_is_answered_whatever_happens_to_the_servers(example):
    seen = example.all_seen()
    killed, stopped = example.processes
    os.kill(killed, signal.SIGKILL)
    os.kill(stopped, signal.SIGSTOP)
    answers = [example.ask() for _ in range(10)]
    assert {status for status, _ in answers} == {200}
    assert {body["process"] for _, body in answers} == seen - {killed, stopped}
    example.until("unhealthy", "unhealthy", "ready")
    os.kill(stopped, signal.SIGCONT)
    example.until("unhealthy", "ready", "ready")
    _, members = example.ask(f"/drain?url={example.last}", "POST")
    assert [each["state"] for each in members] == ["unhealthy", "ready", "draining"]
    assert {example.ask()[1]["process"] for _ in range(6)} == {stopped}
