"""The gateway with nothing in front, run as its first lines say: real workers, real certificates, real signals."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.to_thread
import pytest
from cryptography import x509
from tests.certificates import write_certificate
from tests.servers import Running, free_port, program, serving
from tests.talking import LONG, talk
from websockets.exceptions import ConnectionClosed

EXAMPLE = Path(__file__).parents[2] / "examples" / "standalone.py"
HOST = "gateway.example"


class Upstream:
    """Answers at once, or when the test says so; echoes on WebSockets."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            return
        if scope["path"] == "/slow":
            self.asked.set()
            await anyio.to_thread.run_sync(self.go_on.wait, LONG)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})


class Gateway:
    """The example, served; who asks believes its certificate alone."""

    def __init__(self, running: Running, folder: Path, *, tls: bool = True) -> None:
        self.running, self.folder, self.tls = running, folder, tls

    def socket(self) -> socket.socket:
        plain = self.running.connect(LONG)
        return self.context().wrap_socket(plain, server_hostname=HOST) if self.tls else plain

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "cert.pem")

    def connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.socket()
        return connection

    def get(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        with contextlib.closing(self.connection()) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}

    def websocket(self):
        plain = self.running.connect(LONG)
        return talk(f"wss://{HOST}/", sock=plain, ssl=self.context()) if self.tls else talk(f"ws://{HOST}/", sock=plain)

    def serial(self) -> int:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(self.running.connect(LONG), server_hostname=HOST) as wire:
            return x509.load_der_x509_certificate(wire.getpeercert(binary_form=True)).serial_number

    def workers(self) -> list[int]:
        """The processes that the first one has started."""
        process = self.running.process
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@contextlib.contextmanager
def run(command: list[str], folder: Path, upstream: Upstream, *, tls=True, **environment: str) -> Iterator[Gateway]:
    with serving(upstream, lifespan="off") as behind:
        port = free_port()
        own = {"UPSTREAMS": behind.origin, "COUNTS": str(folder / "counts.db"), "PORT": str(port), **environment}
        command = [each.replace("{port}", str(port)) for each in command]
        with program(command, port, log=folder / "log", environment={**os.environ, **own}) as running:
            yield Gateway(running, folder, tls=tls)


@contextlib.contextmanager
def standalone(folder: Path, upstream: Upstream, **environment: str) -> Iterator[Gateway]:
    certificate, key = map(str, write_certificate(folder, HOST, serial=1))
    files = {"CERTIFICATE": certificate, "KEY": key}
    with run([sys.executable, str(EXAMPLE)], folder, upstream, **files, **environment) as gateway:
        yield gateway


def until(holds) -> None:
    """Wait for what will be so, and not for ever."""
    give_up = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_workers_count_together_and_follow_the_certificate(tmp_path, upstream):
    with standalone(tmp_path, upstream, WORKERS="2", GRACE="0") as gateway:
        assert gateway.get("/readyz")[:2] == (200, b'{"status": "ok"}')
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: gateway.get("/"), range(24)))
        assert {(status, body) for status, body, _ in answers} == {(200, b"done")}
        left = sorted(int(headers["ratelimit"].partition("r=")[2].partition(";")[0]) for _, _, headers in answers)
        assert left == list(range(76, 100))
        with gateway.websocket() as websocket:
            websocket.send("hello")
            assert websocket.recv() == "hello"
        assert gateway.serial() == 1
        write_certificate(tmp_path, HOST, serial=2)
        until(lambda: gateway.serial() == 2)


def test_it_is_not_ready_without_an_upstream(tmp_path, upstream):
    nowhere = "http://127.0.0.1:1"
    with standalone(tmp_path, upstream, WORKERS="1", GRACE="0", UPSTREAMS=nowhere, EVERY="0.05") as gateway:
        until(lambda: gateway.get("/readyz")[:2] == (503, b'{"status": "unavailable"}'))
        assert gateway.get("/healthz")[:2] == (200, b'{"status": "ok"}')
        assert gateway.get("/")[0] == 503


def test_the_end_loses_nothing(tmp_path, upstream):
    """A second signal ends the time of grace, which would otherwise be waited for."""
    with standalone(tmp_path, upstream, WORKERS="2", GRACE="600") as gateway, ThreadPoolExecutor(1) as threads:
        slow = threads.submit(gateway.get, "/slow")
        assert upstream.asked.wait(LONG)
        with gateway.websocket() as websocket, contextlib.closing(gateway.connection()) as kept:
            websocket.send("hello")
            assert websocket.recv() == "hello"
            kept.request("GET", "/")
            assert kept.getresponse().read() == b"done"
            os.kill(gateway.running.process, signal.SIGTERM)
            until(lambda: gateway.get("/readyz")[1] == b'{"status": "draining"}')
            status, body, headers = gateway.get("/")
            assert (status, body, headers["connection"]) == (200, b"done", "close")
            websocket.send("still here")
            assert websocket.recv() == "still here"
            until(lambda: all(signalled(gateway) for _ in range(12)))
            for worker in gateway.workers():
                os.kill(worker, signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                websocket.recv()
            assert websocket.close_code == 1012
            assert kept.sock.recv(1) == b""
        assert not slow.done()
        upstream.go_on.set()
        assert slow.result(LONG)[:2] == (200, b"done")


def signalled(gateway: Gateway) -> bool:
    """Whether the worker that happens to answer knows of the end."""
    return gateway.get("/readyz")[0] == 503


def test_granian_serves_it_with_several_workers(tmp_path, upstream):
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--workers", "2", "--port", "{port}"]
    options = ["--working-dir", str(EXAMPLE.parent), "standalone:app"]
    with run([*command, *options], tmp_path, upstream, tls=False, GRACE="0") as gateway:
        until(lambda: answers(gateway))
        assert gateway.get("/readyz")[:2] == (200, b'{"status": "ok"}')
        assert {gateway.get("/")[:2] for _ in range(8)} == {(200, b"done")}
        with gateway.websocket() as websocket:
            websocket.send("hello")
            assert websocket.recv() == "hello"
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(gateway.get, "/slow")
            assert upstream.asked.wait(LONG)
            os.kill(gateway.running.process, signal.SIGTERM)
            until(lambda: not answers(gateway))
            upstream.go_on.set()
            assert slow.result(LONG)[:2] == (200, b"done")


def test_granian_reads_the_certificate_anew_when_told_to(tmp_path, upstream):
    certificate, key = map(str, write_certificate(tmp_path, HOST, serial=1))
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", "{port}"]
    files = ["--ssl-certificate", certificate, "--ssl-keyfile", key]
    options = [*files, "--working-dir", str(EXAMPLE.parent), "standalone:app"]
    with run([*command, *options], tmp_path, upstream, GRACE="0") as gateway:
        until(lambda: answers(gateway))
        assert gateway.serial() == 1
        write_certificate(tmp_path, HOST, serial=2)
        os.kill(gateway.running.process, signal.SIGHUP)
        until(lambda: answers(gateway) and gateway.serial() == 2)


def answers(gateway: Gateway) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return gateway.get("/healthz")[0] == 200
    return False
