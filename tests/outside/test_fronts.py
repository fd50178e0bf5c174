"""Behind real front servers the gateway knows who is calling, and nobody can tell it otherwise."""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
from tests.servers import LOOPBACK, Running, free_port, program, serving

from .conftest import CLIENT, EXAMPLES, Front, Seen, Upstream, example, running_front

LIES = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "gopher"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6;proto=gopher;host=evil.example"),
    ("True-Client-IP", "6.6.6.6"),
    ("X-Forwarded-Port", "666"),
]


@pytest.mark.parametrize("lies", [(), LIES], ids=["honest", "lying"])
def test_address_scheme_and_host_are_the_clients_own(front: Front, lies):
    seen = front.ask(headers=lies)
    assert seen.status == 200
    assert seen.lines("x-forwarded-for") == [CLIENT]
    assert seen.lines("x-forwarded-proto") == ["https"]
    assert seen.lines("x-forwarded-host") == ["api.example"]
    assert "6.6.6.6" not in str(seen.body)


def test_plain_http_is_sent_to_https(front: Front):
    seen = front.ask(path="/orders?page=2", tls=False)
    assert seen.status == 308
    assert re.fullmatch(r"https://api\.example(:\d+)?/orders\?page=2", seen.headers["Location"])


def test_a_client_cannot_pile_up_lies(front: Front):
    headers = [("X-Forwarded-For", "127.0.0.1, 10.0.0.1"), ("X-Forwarded-For", "127.0.0.1")]
    assert front.ask(headers=headers).lines("x-forwarded-for") == [CLIENT]


def test_a_client_cannot_nominate_the_truth_away(front: Front):
    """Apache would take away what it has set itself, if it were to see the client's Connection."""
    seen = front.ask(headers=[("Connection", "close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host")])
    assert seen.lines("x-forwarded-for") == [CLIENT]
    assert seen.lines("x-forwarded-proto") == ["https"]
    assert seen.lines("x-forwarded-host") == ["api.example"]


def test_the_credentials_pass(front: Front):
    assert front.ask(headers=[("Authorization", "Bearer a.b.c")]).lines("authorization") == ["Bearer a.b.c"]


def test_every_hop_tells_of_itself(front: Front):
    assert front.ask().lines("via")[-1].startswith("1.1 apim-")


def test_a_body_passes(front: Front):
    assert b'"size": 1000000' in front.ask("POST", body=bytes(1_000_000)).body


def test_events_pass_when_they_come(front: Front, upstream: Upstream):
    upstream.go_on.clear()
    connection = front.connection(tls=True)
    try:
        connection.request("GET", "/events", headers={"Host": "api.example"})
        response = connection.getresponse()
        assert response.readline() == b"data: 1\n"
        assert not upstream.go_on.is_set()
        upstream.go_on.set()
        assert response.read() == b"\ndata: 2\n\n"
    finally:
        upstream.go_on.set()
        connection.close()


@pytest.mark.parametrize("lies", [(), LIES], ids=["honest", "lying"])
def test_a_websocket_passes_with_who_is_calling(front: Front, upstream: Upstream, lies):
    headers = [("Authorization", "Bearer a.b.c"), *lies]
    with front.websocket(
        "/talk", additional_headers=headers, subprotocols=["chat"], origin="https://x.example"
    ) as socket:
        assert socket.subprotocol == "chat"
        seen = Seen(101, socket.recv().encode(), {})
        for message in ("text", b"bytes", "x" * 100_000):
            socket.send(message)
            assert socket.recv() == message
        socket.close(4001, "enough")
    assert seen.lines("x-forwarded-for") == [CLIENT]
    assert seen.lines("x-forwarded-proto") == ["https"]
    assert seen.lines("x-forwarded-host") == ["api.example"]
    assert seen.lines("authorization") == ["Bearer a.b.c"]
    assert seen.lines("origin") == ["https://x.example"]
    assert "6.6.6.6" not in str(seen.body)


def test_an_upgrade_to_anything_else_is_not_passed_on(front: Front):
    seen = front.ask(
        headers=[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMA")]
    )
    assert seen.status == 200
    assert seen.lines("upgrade") == seen.lines("http2-settings") == []


def test_a_tunnel_is_refused(front: Front):
    with front.context().wrap_socket(front.socket(), server_hostname="api.example") as wire:
        wire.sendall(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n")
        status = int(wire.recv(4096).split()[1])
    assert status in (400, 403, 404, 405, 421, 501)


def test_the_front_can_ask_whether_the_gateway_is_ready(front: Front):
    seen = front.ask(path="/readyz")
    assert (seen.status, seen.body) == (200, b'{"status": "ok"}')


def test_a_target_a_front_and_the_gateway_could_read_in_two_ways_is_one(front: Front):
    """Fronts resolve or pass dot segments; the gateway takes none."""
    seen = front.ask(path="/public/..%2fadmin")
    assert seen.status in (400, 404)


def test_caddy_sends_no_more_to_a_gateway_that_is_about_to_end(behind: Running, tmp_path: Path):
    names = example("behind_caddy", "app.py", UPSTREAM=behind.origin)
    with serving(names["app"]) as gateway:
        words = {
            "127.0.0.1:8000": f"{LOOPBACK}:{gateway.port}",
            "health_interval 2s": "health_interval 50ms",
            "lb_try_duration 10s": "lb_try_duration 0s",
        }
        with running_front("caddy", "Caddyfile", words, tmp_path) as front:
            assert front.ask().status == 200
            names["gateway"].layers[0].drain.begin()
            while (status := front.ask().status) == 200:
                pass
            assert status == 503


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_a_rolling_restart_behind_caddy_loses_nothing(behind: Running, tmp_path: Path, server: str):
    """granian had ended before Caddy had asked again, and what Caddy still sent was a 502."""
    replicas = [Replica(server, behind, tmp_path) for _ in range(3)]
    all_of_them = " ".join(f"{LOOPBACK}:{each.port}" for each in replicas)
    words = {"127.0.0.1:8000 {": f"{all_of_them} {{", "health_interval 2s": "health_interval 50ms"}
    with ExitStack() as stack:
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        front = stack.enter_context(running_front("caddy", "Caddyfile", words, tmp_path))
        threads, over = stack.enter_context(ThreadPoolExecutor(2)), Event()
        stack.callback(over.set)
        asking = [threads.submit(ask_until, over, front, method) for method in ("GET", "POST")]
        for replica in replicas:
            replica.stop()
            replica.start()
        over.set()
        for each in asking:
            assert set(each.result()) == {200}


class Replica:
    """One of several gateways of the same example, each in a process of its own."""

    def __init__(self, server: str, behind: Running, folder: Path) -> None:
        self.port, self._log, self._running = free_port(), folder / "gateway.log", ExitStack()
        app = str(EXAMPLES / "behind_caddy" / "app.py")
        serve = [sys.executable, "-c", "from apim_middleware.cli import main; main()", "serve", f"{app}:app"]
        self._command = [*serve, "--server", server, "--port", str(self.port)]
        self._environment = {**os.environ, "UPSTREAM": behind.origin, "GRACE": "0.5"}

    def start(self) -> None:
        """Serve, and return when it does."""
        running = program(self._command, self.port, log=self._log, environment=self._environment)
        self._running.enter_context(running)

    def stop(self) -> None:
        """Send SIGTERM, and return when the process has ended."""
        self._running.close()


def ask_until(over: Event, front: Front, method: str) -> list[int]:
    """The statuses of one request after the other."""
    statuses = []
    while not over.is_set():
        statuses.append(front.ask(method, body=b"order" if method == "POST" else None).status)
    return statuses
