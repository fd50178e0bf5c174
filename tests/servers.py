"""Real servers for tests, on loopback ports of their own: uvicorn in a thread, programs, and stubs that speak bytes.

Nothing here waits by the clock alone: sockets listen before anybody is told of them, and programs are asked until they
answer or have died.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import uvicorn

LOOPBACK = "127.0.0.1"
PATIENCE = 20.0
"""Seconds after which a server that does not answer is given up."""


def free_port() -> int:
    """A loopback port that was free a moment ago, for programs that want to bind it themselves."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A server that answers on a loopback port."""

    port: int
    process: int = 0
    """The process id of a program."""

    @property
    def origin(self) -> str:
        """Where it is, as a URL."""
        return f"http://{LOOPBACK}:{self.port}"

    def connect(self, seconds: float = PATIENCE) -> socket.socket:
        """A connection on which nothing takes longer than this."""
        return socket.create_connection((LOOPBACK, self.port), seconds)

    def talk(self, *parts: bytes, seconds: float = PATIENCE) -> bytes:
        """Send bytes on a connection of their own, and read until the server hangs up or says no more."""
        with self.connect(seconds) as connection:
            with contextlib.suppress(ConnectionError):  # a server need not hear everything
                for part in parts:
                    connection.sendall(part)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Everything that still comes on a connection, to its end, its breaking, or long silence."""
    heard = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while data := connection.recv(65536):
            heard += data
    return heard


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[Running]:
    """Serve an app with uvicorn in a thread, as users are told to: it does not rewrite the client's address."""
    settings = {
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "access_log": False,
        "log_config": None,
        "timeout_graceful_shutdown": 2,
        **options,
    }
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    with socket.create_server((LOOPBACK, 0), backlog=512) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Running(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
    assert not thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def program(
    command: Sequence[str], port: int, *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a program until it listens on the port; stop it afterwards. What it says goes to ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        _await_listener(process, port, log)
        yield Running(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class RedisServer:
    """A Redis server that keeps nothing; it can be killed, started again and stopped in its tracks."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._log = folder / f"redis-{self.port}.log"
        own = ("--port", str(self.port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no", "--dir", str(folder))
        self._command = ("redis-server", *own, "--enable-debug-command", "yes", *options)
        self._running = contextlib.ExitStack()
        self._process = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Run, with nothing kept of an earlier run."""
        self._process = self._running.enter_context(program(self._command, self.port, log=self._log)).process

    def stop(self) -> None:
        """Die at once."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
        self._process = 0
        self._running.close()

    def freeze(self) -> None:
        """Hear nothing and say nothing, with all connections open."""
        os.kill(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        os.kill(self._process, signal.SIGCONT)


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a Redis server with these options besides; kill it afterwards."""
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _await_listener(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
            return
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"{process.args!r} does not listen on {port}: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.01)


@dataclass
class Stub:
    """An upstream that says exactly what a test wants, and remembers what it heard."""

    port: int
    heard: list[bytearray] = field(default_factory=list)
    """The bytes of each connection."""

    @property
    def origin(self) -> str:
        """Where it is, as a URL."""
        return f"http://{LOOPBACK}:{self.port}"


class Spoken:
    """A connection to a stub: read a request's head or more, say bytes."""

    def __init__(self, stream: anyio.abc.SocketStream, heard: bytearray) -> None:
        self.stream = stream
        self.heard = heard
        self._read = 0

    async def until(self, mark: bytes = b"\r\n\r\n") -> bytes:
        """What comes up to and including the mark; empty when the other side hung up."""
        while (end := self.heard.find(mark, self._read)) < 0:
            if not await self.more():
                return b""
        begin, self._read = self._read, end + len(mark)
        return bytes(self.heard[begin : self._read])

    async def more(self) -> bytes:
        """What comes next, kept as well; empty when the other side hung up."""
        try:
            data = await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""
        self.heard += data
        return data

    async def say(self, data: bytes) -> None:
        """Send bytes; nobody minds when the other side is gone."""
        with contextlib.suppress(anyio.BrokenResourceError):
            await self.stream.send(data)

    async def hang_on(self) -> None:
        """Read until the other side hangs up."""
        while await self.more():
            pass


Speaker = Callable[[Spoken], Awaitable[None]]


@contextlib.asynccontextmanager
async def stub(speak: Speaker) -> AsyncIterator[Stub]:
    """An upstream that gives each connection to ``speak`` and closes it afterwards."""
    listener = await anyio.create_tcp_listener(local_host=LOOPBACK)
    made = Stub(listener.extra(anyio.abc.SocketAttribute.local_port))

    async def serve(stream: anyio.abc.SocketStream) -> None:
        heard = bytearray()
        made.heard.append(heard)
        async with stream:
            await speak(Spoken(stream, heard))

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield made
        tasks.cancel_scope.cancel()


def saying(*parts: bytes) -> Speaker:
    """Answer the first request of a connection with these bytes, and hang up."""

    async def speak(spoken: Spoken) -> None:
        if await spoken.until():
            for part in parts:
                await spoken.say(part)

    return speak
