"""The standalone gateway, started as a newcomer would, and tried with the very lines it prints."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway.py"


class Session:
    """A running gateway, and what it printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.printed = ""
        while "The gateway listens on" not in self.printed:
            line = self.read()
            assert line, f"it ended: {self.printed}"
        blocks = re.findall(r"^# (\d{3}): (.*)\n((?:curl|for) .*)$", self.printed, re.MULTILINE)
        self.lines = {what: (int(status), command) for status, what, command in blocks}
        self.variables = "\n".join(re.findall(r"^[A-Z]+='.*'$", self.printed, re.MULTILINE))

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.printed += line
        return line

    def run(self, command: str) -> str:
        script = f"{self.variables}\n{command}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout


@contextmanager
def running(example: Path) -> Iterator[Session]:
    """An example that serves, from its start to its end."""
    command = [sys.executable, "-W", "error", str(example), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    ) as process:
        try:
            yield Session(process)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Session]:
    with running(EXAMPLE) as session:
        yield session


def test_every_line_it_prints_shows_what_it_says(gateway: Session) -> None:
    assert len(gateway.lines) == 15
    seen = {}
    for what, (status, command) in gateway.lines.items():
        answer = seen[what] = gateway.run(command)
        told = re.findall(r"^(?:HTTP/1.1 )?(\d{3})\b", answer, re.MULTILINE)
        assert told[-1] == str(status), (what, answer)
    hit = seen["the same answer from the cache (age, cache-status: hit)"]
    assert re.search(r"^cache-status: apim;hit", hit, re.MULTILINE)
    made = re.compile(r'"made_at":[\d.]+')
    fresh = seen["from a server (look at cache-status, ratelimit, and at what the server has seen)"]
    assert made.findall(hit) == made.findall(fresh) != []
    assert '"x-user-id":"alice"' in fresh
    assert '"x-product-id":"starter"' in fresh
    assert "ocp-apim-subscription-key" not in fresh
    assert "x-powered-by" not in fresh
    assert fresh.lower().count("\ndate:") == 1
    single = seen["one of the two servers is busy with single orders, and the other is asked"]
    assert single.count('{"order":7,"server":"one","query":"via=gateway"}\n200\n') == 4
    assert seen["events as they happen"].count("data: ") == 3
    assert seen["and none too many for the product business"] == "200\n" * 11


def test_every_request_leaves_a_span_on_the_console(gateway: Session) -> None:
    while "span " not in gateway.printed:
        assert gateway.read()
    assert re.search(r"^span [A-Z]+( /\S*)? [\d.]+ ms \{", gateway.printed, re.MULTILINE)
