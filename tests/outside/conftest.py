"""Real front servers before our gateway: Caddy, Apache httpd and nginx, as a fresh configuration file has them."""

import datetime as dt
import http.client
import json
import os
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.servers import LOOPBACK, Running, free_port, program, serving

from apim_middleware.policies.client import TrustedProxies
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy

CLIENT = "127.0.0.5"
"""Where the tests' client connects from: loopback, but not where the front connects to the gateway from."""


class Upstream:
    """Tells what it got; streams events that wait for the test."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        if scope["path"] == "/events":
            await self.events(send)
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

    async def events(self, send):
        lines = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await anyio.to_thread.run_sync(self.go_on.wait, 20)
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": False})


@dataclass(frozen=True)
class Front:
    """A front server, its two ports, and how to ask it."""

    name: str
    plain: int
    tls: int

    def connection(self, *, tls: bool) -> http.client.HTTPConnection:
        """A connection from the client's own address."""
        source = (CLIENT, 0)
        if not tls:
            return http.client.HTTPConnection(LOOPBACK, self.plain, timeout=20, source_address=source)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(LOOPBACK, self.tls, timeout=20, source_address=source, context=context)

    def ask(self, method="GET", path="/", *, tls=True, headers=(), body=None) -> "Seen":
        """Make a request for api.example, and see what the upstream saw."""
        connection = self.connection(tls=tls)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in (("Host", "api.example"), *headers):
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Seen(response.status, response.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Seen:
    """An answer, and what the upstream says it got."""

    status: int
    body: bytes

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


@pytest.fixture(scope="session")
def gateway(behind: Running) -> Iterator[Running]:
    """The gateway as the docs have it: it trusts the front alone, and what that one is known to write."""
    client = TrustedProxies(trusted=(LOOPBACK,), header="x-forwarded", also=("scheme", "host"))
    with serving(Stack(client)(Proxy(behind.origin))) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api.example")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName("api.example")])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("certificate")
    pem, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, plain))
    return folder / "cert.pem", folder / "key.pem"


CADDY = """
{{
    admin off
    auto_https off
    storage file_system {folder}/storage
}}
:{tls} {{
    tls {certificate} {key}
    reverse_proxy 127.0.0.1:{gateway}
}}
http://:{plain} {{
    reverse_proxy 127.0.0.1:{gateway}
}}
"""

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
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{gateway};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
        }}
    }}
}}
"""

APACHE_MODULES = "mpm_event authz_core ssl socache_shmcb headers proxy proxy_http setenvif"

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
ProxyPreserveHost On
ProxyPass "/" "http://127.0.0.1:{gateway}/" flushpackets=on
RequestHeader unset Connection
RequestHeader set X-Forwarded-Proto "expr=%{{REQUEST_SCHEME}}"
<VirtualHost 127.0.0.1:{plain}>
</VirtualHost>
<VirtualHost 127.0.0.1:{tls}>
    SSLEngine on
    SSLCertificateFile {certificate}
    SSLCertificateKeyFile {key}
</VirtualHost>
"""


def caddy(values: dict[str, object]) -> tuple[str, list[str]]:
    """Caddy's file and command."""
    return CADDY.format(**values), [found("caddy"), "run", "--adapter", "caddyfile", "--config"]


def nginx(values: dict[str, object]) -> tuple[str, list[str]]:
    """nginx's file and command."""
    user = "user root;" if os.geteuid() == 0 else ""
    return NGINX.format(user=user, **values), [found("nginx"), "-g", "daemon off;", "-p", str(values["folder"]), "-c"]


def apache(values: dict[str, object]) -> tuple[str, list[str]]:
    """Apache's file and command; run by root, it insists on another user."""
    command, folder = found("apache2"), "/usr/lib/apache2/modules"
    modules = "\n".join(f"LoadModule {name}_module {folder}/mod_{name}.so" for name in APACHE_MODULES.split())
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    return APACHE.format(modules=modules, user=user, **values), [
        command,
        "-DFOREGROUND",
        "-f",
    ]


def found(name: str) -> str:
    """Where a program is."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert path, f"{name} is not installed: run bash .ci/servers"
    return path


FRONTS: dict[str, Callable[[dict[str, object]], tuple[str, list[str]]]] = {
    "caddy": caddy,
    "apache": apache,
    "nginx": nginx,
}


@pytest.fixture(scope="session", params=FRONTS)
def front(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    gateway: Running,
    certificate: tuple[Path, Path],
) -> Iterator[Front]:
    """Each front server in turn, before the same gateway."""
    folder = tmp_path_factory.mktemp(request.param)
    ports = {"plain": free_port(), "tls": free_port()}
    files = {"folder": folder, "certificate": certificate[0], "key": certificate[1]}
    text, command = FRONTS[request.param]({**ports, **files, "gateway": gateway.port})
    (folder / "config").write_text(text)
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = folder / "output.log"
    with program([*command, str(folder / "config")], ports["tls"], log=log, environment=environment):
        yield Front(request.param, **ports)
