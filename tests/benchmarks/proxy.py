"""Table 3: a reverse proxy on one core, next to nginx, Apache httpd and Caddy, all before the same upstream.

Every server is pinned to core 0; upstream and load share core 1. All are up at once and loaded in turn, in a new order
each round; what is not installed here is left out, and said.
"""

import math
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from harness import Effort, table
from proxy_servers import APACHE, APACHE_MODULES, CADDY, NGINX, UPSTREAM
from served import HERE, READER, cpu_seconds, measured, memory, pin
from visit import credentials, headers

PATH_OF_SERVERS = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
CONNECTIONS = (1, 8, 64, 256, 512)
MOST_PACED = 4000  # requests a second that pace.py can make on a core it shares with the upstream
_LATE = re.compile(r"50%: ([\d.]+) 99%: ([\d.]+)")


@dataclass
class Front:
    """A running server before the upstream, and what it did in each round."""

    process: int
    port: int
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def processes(self) -> list[int]:
        """The process and all that it has started."""
        found = [self.process]
        for each in found:
            with suppress(OSError):
                found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        return found

    def cpu(self) -> float:
        """The CPU seconds of all its processes."""
        return sum(map(cpu_seconds, self.processes()))

    def memory(self) -> float:
        """The resident MiB of all its processes."""
        return sum(map(memory, self.processes()))

    def peak(self) -> float:
        """The most MiB that all its processes ever had resident; not known without /proc."""
        return sum(map(_peak, self.processes()))

    def stress(self, connections: int, seconds: int) -> None:
        """Put it under load and keep what it did."""
        before = self.cpu()
        load = measured(f"http://127.0.0.1:{self.port}/1k", headers(), connections, seconds)
        self.rates.append(load.rate)
        self.costs.append(1e6 * (self.cpu() - before) / (load.rate * seconds))
        self.tails.append(load.p99)


def _peak(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), math.nan)


def run(effort: Effort) -> None:
    """Print the tables."""
    credentials()  # before the servers start, which share them
    with tempfile.TemporaryDirectory(dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        if found("nginx") is None:
            print("\nnginx is not installed, so nothing can be proxied.")
            return
        upstream = stack.enter_context(upstreams(folder, effort.body))
        fronts = {name: stack.enter_context(made) for name, made in servers(folder, upstream).items()}
        missing = [each for each in ("apache2", "caddy", "granian", "wrk") if found(each) is None]
        print(f"\nNot installed: {', '.join(missing)}." if missing else "")
        rounds(fronts, effort)
        few = {name: front for name, front in fronts.items() if name in ("nginx", OURS, GRANIAN)}
        halved(few, effort)
        growth(few, effort)
        bodies(few, effort)


def rounds(fronts: Mapping[str, Front], effort: Effort) -> None:
    """1 KiB over 64 connections."""
    order = random.Random(1)
    for _ in range(effort.served_rounds):
        for name in order.sample(list(fronts), len(fronts)):
            fronts[name].stress(64, effort.load)
    best = fronts["nginx"]
    rows = []
    for name, each in fronts.items():
        against = [times(each, fronts.get(other)) for other in ("Apache httpd", "Caddy")]
        cost, tail = median(each.costs), median(each.tails)
        spent = [f"{cost:.1f}", f"{median(best.costs) / cost:.2f}", "-" if math.isnan(tail) else f"{tail:.1f}"]
        rows.append([name, f"{median(each.rates):,.0f}", *against, *spent, f"{each.memory():.0f}"])
    head = ["1 KiB, 64 connections", "req/s", "x Apache", "x Caddy", "CPU us", "of nginx", "p99 ms", "MiB"]
    table("Proxies, one core each", head, rows)


def times(one: Front, other: Front | None) -> str:
    """How many times the other's rate its own is, in the middle of all rounds."""
    if other is None:
        return "-"
    return f"{median(mine / theirs for mine, theirs in zip(one.rates, other.rates, strict=True)):.2f}"


def halved(fronts: Mapping[str, Front], effort: Effort) -> None:
    """How late answers are at half the rate that ours bears on uvicorn, the same for all."""
    rate = min(MOST_PACED, median(fronts[OURS].rates) / 2)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in fronts}
    order = random.Random(2)
    for _ in range(effort.served_rounds):
        for name in order.sample(list(fronts), len(fronts)):
            found[name].append(paced(f"http://127.0.0.1:{fronts[name].port}/1k", rate, effort.paced))
    rows, best = [], median(tail for _, tail in found["nginx"])
    for name, times in found.items():
        middle, tail = (median(each) for each in zip(*times, strict=True))
        rows.append([name, f"{middle:.2f}", f"{tail:.2f}", f"{tail / best:.1f}"])
    table(f"Proxies at half load, {rate:,.0f} req/s for all", ["64 connections", "p50 ms", "p99 ms", "x nginx"], rows)


def paced(url: str, rate: float, seconds: float) -> tuple[float, float]:
    """The milliseconds after which 50 and 99 % of all requests were answered that were due at this rate."""
    command = [sys.executable, str(HERE / "pace.py"), str(rate), "64", str(seconds), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, 1)
        said, _ = process.communicate()
    late = _LATE.search(said)
    if late is None:
        raise RuntimeError(said)
    return float(late[1]), float(late[2])


def growth(fronts: Mapping[str, Front], effort: Effort) -> None:
    """The same from one connection to many."""
    rows, steps = [], CONNECTIONS if effort.served_rounds > 1 else (CONNECTIONS[-1],)
    for name, each in fronts.items():
        rates: dict[int, list[float]] = {connections: [] for connections in steps}
        for _ in range(min(3, effort.served_rounds)):
            for connections in steps:
                url = f"http://127.0.0.1:{each.port}/1k"
                rates[connections].append(measured(url, {}, connections, effort.load).rate)
        rows.append([name, *(f"{median(rates[connections]):,.0f}" for connections in steps)])
    table("Proxies as connections grow", ["req/s", *(f"{each} at once" for each in steps)], rows)


def bodies(fronts: Mapping[str, Front], effort: Effort) -> None:
    """Large bodies both ways, and what they take of memory."""
    rows, everywhere = [], os.sched_getaffinity(0)
    pin(os.getpid(), 1)
    for name, each in fronts.items():
        before = each.peak()
        speeds = [
            median(transfer(each.port, effort.body) for _ in range(effort.served_rounds))
            for transfer in (download, upload)
        ]
        rows.append([name, *(f"{speed:,.0f}" for speed in speeds), f"{each.peak() - before:+.1f}"])
    os.sched_setaffinity(0, everywhere)
    table(f"Proxies, bodies of {effort.body >> 20:,} MiB", ["MB/s", "down", "up", "MiB grown at the most"], rows)


def download(port: int, size: int) -> float:
    """MB/s of one body down."""
    start, left, buffer = time.perf_counter(), size, bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while count := client.recv_into(buffer):
            left -= count
    assert left <= 0, "the body did not come whole"
    return size / 1e6 / (time.perf_counter() - start)


def upload(port: int, size: int) -> float:
    """MB/s of one body up."""
    start, part = time.perf_counter(), bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(part)):
            client.sendall(part)
        answer = client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return size / 1e6 / (time.perf_counter() - start)


# The servers

OURS, GRANIAN = "Proxy on uvicorn", "Proxy on granian"
SEVEN = ("... behind seven policies", "... behind seven policies, granian")


def found(program: str) -> str | None:
    """Where a program is, if it is installed."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else shutil.which(program, path=PATH_OF_SERVERS)


def servers(folder: Path, upstream: int) -> dict[str, AbstractContextManager[Front]]:
    """The servers to compare that are installed here, each still to be started."""
    user = {"nginx": "user root;", "apache": "User www-data\nGroup www-data"} if os.geteuid() == 0 else {}
    modules = "\n".join(f"LoadModule {each}_module /usr/lib/apache2/modules/mod_{each}.so" for each in APACHE_MODULES)
    given = {"folder": folder, "upstream": upstream}
    made: dict[str, AbstractContextManager[Front]] = {}
    if nginx := found("nginx"):
        text = NGINX.format(user=user.get("nginx", ""), port=(port := free_port()), **given)
        made["nginx"] = running([nginx, "-p", str(folder), "-c", written(folder / "nginx.conf", text)], port, 0)
    if apache := found("apache2"):
        text = APACHE.format(user=user.get("apache", ""), modules=modules, port=(port := free_port()), **given)
        made["Apache httpd"] = running([apache, "-DFOREGROUND", "-f", written(folder / "apache.conf", text)], port, 0)
    if caddy := found("caddy"):
        text, home = CADDY.format(port=(port := free_port()), **given), {"HOME": str(folder), "GOMAXPROCS": "1"}
        command = [caddy, "run", "--adapter", "caddyfile", "--config", written(folder / "Caddyfile", text)]
        made["Caddy"] = running(command, port, 0, home)
    where = {"APIM_BENCHMARK_UPSTREAM": f"http://127.0.0.1:{upstream}"}
    for name, app in ((OURS, "proxy"), (SEVEN[0], "proxy_seven"), ("... on httpx", "proxy_httpx")):
        made[name] = running(uvicorn(app, port := free_port()), port, 0, where)
    if found("granian"):
        for name, app in ((GRANIAN, "proxy"), (SEVEN[1], "proxy_seven")):
            made[name] = running(granian(app, port := free_port()), port, 0, where)
    return made


def uvicorn(app: str, port: int) -> list[str]:
    """uvicorn with one worker."""
    options = ["--factory", "--app-dir", str(HERE), "--port", str(port), "--loop", "uvloop", "--http", READER]
    quiet = ["--no-proxy-headers", "--no-access-log", "--no-server-header", "--no-date-header", "--log-level", "error"]
    return [sys.executable, "-m", "uvicorn", f"proxy_apps:{app}", *options, *quiet]


def granian(app: str, port: int) -> list[str]:
    """granian with one worker of one thread."""
    options = ["--interface", "asgi", "--workers", "1", "--runtime-threads", "1", "--loop", "uvloop", "--no-ws"]
    where = ["--factory", "--working-dir", str(HERE), "--host", "127.0.0.1", "--port", str(port)]
    return [str(found("granian")), *options, *where, "--log-level", "error", f"proxy_apps:{app}"]


@contextmanager
def upstreams(folder: Path, size: int) -> Iterator[int]:
    """An nginx with a file of 1 KiB and a large one; uploads end in a thread here."""
    (folder / "1k").write_bytes(os.urandom(512).hex().encode())
    with (folder / "large").open("wb") as large:
        large.truncate(size)
    for each in (folder, folder / "1k", folder / "large"):
        each.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as sink:
        threading.Thread(target=swallow, args=(sink,), daemon=True).start()
        port, user = free_port(), "user root;" if os.geteuid() == 0 else ""
        text = UPSTREAM.format(user=user, folder=folder, port=port, sink=sink.getsockname()[1])
        command = [str(found("nginx")), "-p", str(folder), "-c", written(folder / "upstream.conf", text)]
        with running(command, port, 1):
            yield port


def swallow(listener: socket.socket) -> None:
    """Read what comes over each connection to its announced end, and say thanks."""
    buffer = bytearray(1 << 20)
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1)
                length = re.search(rb"content-length: *(\d+)", head, re.I)
                left = int(length[1]) if length else 0
                while left > 0:
                    left -= connection.recv_into(buffer)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@contextmanager
def running(command: list[str], port: int, core: int, environment: Mapping[str, str] | None = None) -> Iterator[Front]:
    """A server on one core, once it listens."""
    settings = {**os.environ, **(environment or {})}
    start: Callable[[], None] = lambda: pin(0, core)  # noqa: E731 - before the program, so that its children are too
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=settings, preexec_fn=start)
        try:
            while not listens(port):
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(said.read().decode(errors="replace"))
                time.sleep(0.05)
            yield Front(process.pid, port)
        finally:
            process.terminate()
            process.wait()


def listens(port: int) -> bool:
    """Whether somebody does, on this port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def written(file: Path, text: str) -> str:
    """The file's path, with the text in it."""
    file.write_text(text)
    return str(file)
