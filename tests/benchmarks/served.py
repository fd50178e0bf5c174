"""Measures apps behind uvicorn: all servers are up at once and loaded in turn, ratios are taken within a round."""

import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple

from harness import Effort
from visit import PATH, headers

HERE = Path(__file__).parent
CONNECTIONS = 64
READER = "apim_middleware.serving.httptools:HttpToolsProtocol"
_RUNNING_ON = re.compile(rb"running on http://127\.0\.0\.1:(\d+)")
_TAIL = re.compile(r"^ +99% +([\d.]+)(us|ms|s)$", re.M)
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_REQUESTS = re.compile(r"^Requests/sec: +([\d.]+)$", re.M)


@dataclass
class Server:
    """A running uvicorn process, and what it did in each round: requests per second, CPU microseconds for each."""

    process: subprocess.Popen[bytes]
    port: int
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    memory: float = 0.0

    def stress(self, seconds: int) -> None:
        """Put it under load and keep what it did."""
        before = cpu_seconds(self.process.pid)
        rate = load(self.port, seconds)
        self.rates.append(rate)
        self.costs.append(1e6 * (cpu_seconds(self.process.pid) - before) / (rate * seconds))
        self.memory = memory(self.process.pid)

    def times(self, other: "Server") -> float:
        """How many times the other's rate its own is, in the middle of all rounds."""
        return median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


def stressed(apps: Mapping[str, str], effort: Effort, *, by_us: Collection[str] = ()) -> dict[str, Server]:
    """Serve every app (``module:factory``) and load them in turn, in a new order each round.

    Those ``by_us`` are read and written as ``apim serve`` does it, the others as plain uvicorn does.
    """
    order = random.Random(1)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(app, READER if name in by_us else "httptools"))
            for name, app in apps.items()
        }
        for _ in range(effort.served_rounds):
            for name in order.sample(list(servers), len(servers)):
                servers[name].stress(effort.load)
    return servers


@contextmanager
def serving(app: str, reader: str) -> Iterator[Server]:
    """A uvicorn with one worker on a free port of the loopback interface."""
    command = [sys.executable, "-m", "uvicorn", app, "--factory", "--app-dir", str(HERE), "--port", "0"]
    options = ["--no-proxy-headers", "--no-access-log", "--loop", "uvloop", "--http", reader]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*command, *options], stdout=said, stderr=said)
        try:
            pin(process.pid, 0)
            yield Server(process, _port(process, said))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _port(process: subprocess.Popen[bytes], said: IO[bytes]) -> int:
    while process.poll() is None:
        said.seek(0)
        if match := _RUNNING_ON.search(said.read()):
            return int(match[1])
        time.sleep(0.02)
    said.seek(0)
    raise RuntimeError(said.read().decode())


def load(port: int, seconds: int) -> float:
    """Requests per second from 64 connections, every answer a 200."""
    return measured(f"http://127.0.0.1:{port}{PATH}", headers(), CONNECTIONS, seconds).rate


class Load(NamedTuple):
    """What came of a load: requests per second, and the milliseconds that 99 % of them took at most."""

    rate: float
    p99: float


def measured(url: str, fields: Mapping[str, str], connections: int, seconds: int) -> Load:
    """A request over so many connections, every answer a 200; the tail only where there is wrk."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    if tool := shutil.which("wrk"):
        given = [part for line in lines for part in ("-H", line)]
        command = [tool, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *given, url]
    else:
        command = [sys.executable, str(HERE / "load.py"), str(connections), str(seconds), url, *lines]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, 1)
        said, _ = process.communicate()
    found, tail = _REQUESTS.search(said), _TAIL.search(said)
    if found is None or "Non-2xx" in said:
        raise RuntimeError(said)
    return Load(float(found[1]), float(tail[1]) * _UNITS[tail[2]] if tail else math.nan)


def pin(pid: int, core: int) -> None:
    """Servers on one core and the load on another, where there are two and the system can."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0) and len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(pid, {core})


def cpu_seconds(pid: int) -> float:
    """The CPU time a process has used; not known without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """The resident memory of a process in MiB; not known without /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return float("nan")
