"""Real front servers before our gateway: Caddy, Apache httpd and nginx, configured by the files of the examples."""

import http.client
import json
import os
import runpy
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from tests.certificates import write_certificate
from tests.servers import LOOPBACK, PATIENCE, Running, free_port, program, serving
from tests.talking import Talk, talk

EXAMPLES = Path(__file__).parents[2] / "examples"
HOST = "api.example"
CLIENT = "127.0.0.5"
"""Where the tests' client connects from: loopback, but not where the front connects to the gateway from."""


class Upstream:
    """Tells what it got; streams events that wait for the test."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.closed_with: list[tuple[int, str | None]] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await self.talk(scope, receive, send)
        elif scope["type"] != "http":
            return
        elif scope["path"] == "/events":
            await self.events(send)
        elif scope["path"] == "/mirror":
            await self.mirror(scope, receive, send)
        else:
            await self.echo(scope, receive, send)

    async def echo(self, scope, receive, send):
        size, message = 0, {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            size += len(message.get("body", b""))
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        body = json.dumps({"path": scope["path"], "headers": headers, "size": size}).encode()
        lines = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    async def talk(self, scope, receive, send):
        """Tell the handshake's headers, then echo."""
        await receive()
        await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        await send({"type": "websocket.send", "text": json.dumps({"headers": headers})})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.closed_with.append((message["code"], message.get("reason")))

    async def mirror(self, scope, receive, send):
        """Send back what comes, with its type."""
        kind = [line for line in scope["headers"] if line[0] == b"content-type"]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        while (message := await receive()).get("more_body"):
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": message["body"], "more_body": False})

    async def events(self, send):
        lines = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await anyio.to_thread.run_sync(self.go_on.wait, 20)
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": False})


@dataclass(frozen=True)
class Front:
    """A front server, its two ports, whom it is vouched for by, and how to ask it."""

    name: str
    plain: int
    tls: int
    authority: Path

    def connection(self, *, tls: bool) -> http.client.HTTPConnection:
        """A connection from the client's own address."""
        if not tls:
            return http.client.HTTPConnection(LOOPBACK, self.plain, timeout=20, source_address=(CLIENT, 0))
        connection = http.client.HTTPConnection(HOST, self.tls)
        connection.sock = self.context().wrap_socket(self.socket(), server_hostname=HOST)
        return connection

    def context(self) -> ssl.SSLContext:
        """Whom the client believes: the front's authority alone."""
        return ssl.create_default_context(cafile=self.authority)

    def socket(self) -> socket.socket:
        """A connection without a word said yet."""
        return socket.create_connection((LOOPBACK, self.tls), 20, source_address=(CLIENT, 0))

    def websocket(self, path="/", **options) -> AbstractContextManager[Talk]:
        """An open WebSocket."""
        return talk(f"wss://{HOST}{path}", sock=self.socket(), ssl=self.context(), server_hostname=HOST, **options)

    def ask(self, method="GET", path="/", *, tls=True, headers=(), body=None) -> "Seen":
        """Make a request for api.example, and see what the upstream saw."""
        connection = self.connection(tls=tls)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in (("Host", HOST), *headers):
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Seen(response.status, response.read(), response.headers)
        finally:
            connection.close()


@dataclass(frozen=True)
class Seen:
    """An answer, and what the upstream says it got."""

    status: int
    body: bytes
    headers: Message | Mapping[str, str]

    def lines(self, name: str) -> list[str]:
        """The values the upstream got under a name."""
        return [value for key, value in json.loads(self.body)["headers"] if key == name]


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture(scope="session")
def behind(upstream: Upstream) -> Iterator[Running]:
    with serving(upstream, lifespan="off") as running:
        yield running


def example(folder: str, file: str, **environment: str) -> dict[str, Any]:
    """The names of an example: ``app`` is its app."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return runpy.run_path(str(EXAMPLES / folder / file))


NGINX = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {site};
}}
"""

APACHE_MODULES = "mpm_event authz_core ssl socache_shmcb headers proxy proxy_http rewrite setenvif"

APACHE = """
ServerRoot {folder}
ServerName api.example
PidFile {folder}/apache.pid
Mutex file:{folder}
ErrorLog {folder}/error.log
{modules}
{user}
Listen 127.0.0.1:{plain}
Listen 127.0.0.1:{tls}
Include {site}
"""


@dataclass(frozen=True)
class Place:
    """Where a front server runs in a test: its folder, its ports, its certificate."""

    folder: Path
    plain: int
    tls: int
    certificate: tuple[Path, Path]

    def site(self, source: Path, words: Mapping[str, str]) -> Path:
        """A configuration file of an example, with the ports and files of this place in it."""
        text = source.read_text()
        for word, other in words.items():
            assert word in text, f"{source} says nothing of {word}"
            text = text.replace(word, other)
        site = self.folder / source.name
        site.write_text(text)
        return site

    @property
    def files(self) -> dict[str, str]:
        """The certificate that examples name, and the one there is here."""
        certificate, key = map(str, self.certificate)
        return {"/etc/ssl/certs/api.example.pem": certificate, "/etc/ssl/private/api.example.key": key}


def caddy(place: Place, source: Path, words: Mapping[str, str]) -> tuple[list[str], Path]:
    """Caddy's command, and its authority."""
    ports = {"http_port 8080": f"http_port {place.plain}", "https_port 8443": f"https_port {place.tls}"}
    site = place.site(source, {**ports, **words})
    authority = place.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    return [found("caddy"), "run", "--adapter", "caddyfile", "--config", str(site)], authority


def nginx(place: Place, source: Path, words: Mapping[str, str]) -> tuple[list[str], Path]:
    """nginx's command, and its authority."""
    ports = {"listen 443 ": f"listen {LOOPBACK}:{place.tls} "}
    if source.name == "gateway.conf":
        ports["listen 80;"] = f"listen {LOOPBACK}:{place.plain};"
    site = place.site(source, {**ports, **place.files, **words})
    return main_nginx(place.folder, site), place.certificate[0]


def main_nginx(folder: Path, site: Path) -> list[str]:
    """The command of an nginx that serves a site and writes only in this folder."""
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(user=user, folder=folder, site=site))
    return [found("nginx"), "-g", "daemon off;", "-p", str(folder), "-c", str(config)]


def apache(place: Place, source: Path, words: Mapping[str, str]) -> tuple[list[str], Path]:
    """httpd's command, and its authority; run by root, it insists on another user."""
    ports = {"*:80": f"{LOOPBACK}:{place.plain}", "*:443": f"{LOOPBACK}:{place.tls}"}
    site = place.site(source, {**ports, **place.files, **words})
    folder = "/usr/lib/apache2/modules"
    values = {
        "modules": "\n".join(f"LoadModule {name}_module {folder}/mod_{name}.so" for name in APACHE_MODULES.split()),
        "user": "User www-data\nGroup www-data" if os.geteuid() == 0 else "",
        "folder": place.folder,
        "site": site,
    }
    config = place.folder / "httpd.conf"
    config.write_text(APACHE.format(plain=place.plain, tls=place.tls, **values))
    return [found("apache2"), "-DFOREGROUND", "-f", str(config)], place.certificate[0]


def found(name: str) -> str:
    """Where a program is."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert path, f"{name} is not installed: run bash .ci/servers"
    return path


SERVERS: dict[str, Callable[[Place, Path, Mapping[str, str]], tuple[list[str], Path]]] = {
    "caddy": caddy,
    "apache": apache,
    "nginx": nginx,
}
SITES = {"caddy": "Caddyfile", "apache": "gateway.conf", "nginx": "gateway.conf"}


@contextmanager
def running_front(name: str, file: str, words: Mapping[str, str], folder: Path) -> Iterator[Front]:
    """A front server as a file of its example has it, but for these words."""
    place = Place(folder, free_port(), free_port(), write_certificate(folder, HOST))
    command, authority = SERVERS[name](place, EXAMPLES / f"behind_{name}" / file, words)
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with program(command, place.tls, log=folder / "output.log", environment=environment):
        front = Front(name, place.plain, place.tls, authority)
        await_certificate(front)
        yield front


def await_certificate(front: Front) -> None:
    """Caddy listens a moment before it has its certificate."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with suppress(OSError), front.context().wrap_socket(front.socket(), server_hostname=HOST):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{front.name} has no certificate")


@pytest.fixture(scope="session", params=SERVERS)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, behind: Running) -> Iterator[Front]:
    """Each front server in turn, before the gateway of its example."""
    name = request.param
    app = example(f"behind_{name}", "app.py", UPSTREAM=behind.origin)["app"]
    with ExitStack() as stack:
        gateway = stack.enter_context(serving(app))
        words = {"127.0.0.1:8000": f"{LOOPBACK}:{gateway.port}"}
        yield stack.enter_context(running_front(name, SITES[name], words, tmp_path_factory.mktemp(name)))
