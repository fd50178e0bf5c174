"""Our own transport before a real nginx: kept connections, early answers, conditional requests, a Unix socket."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.servers import LOOPBACK, free_port, program

from apim_middleware.transports.http1 import Http1Transport

from .conformance import ask, chunks

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 4096  # 1 MiB

NGINX = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 5;
    gzip_min_length 1;
    gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        listen unix:{folder}/socket;
        root {folder}/www;
        location /packed {{ gzip on; alias {folder}/www/file; }}
        location /small {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:1; }}
        location /none {{ return 204; }}
    }}
}}
"""


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # short enough for the path of a socket
        yield Path(made)


@pytest.fixture(scope="module")
def nginx(folder):
    command = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert command, "nginx is not installed: run bash .ci/servers"
    (folder / "www").mkdir()
    (folder / "www" / "file").write_bytes(BODY)
    for path in (folder, folder / "www", folder / "www" / "file"):
        path.chmod(0o755)
    port, user = free_port(), "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(user=user, folder=folder, port=port))
    run = [command, "-g", "daemon off;", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with program(run, port, log=folder / "nginx.log") as running:
        yield running


@pytest.fixture
async def transport():
    made = Http1Transport()
    yield made
    await made.aclose()


async def test_a_body_of_known_length_comes_whole(transport, nginx):
    assert (await ask(transport, nginx, target=b"/file"))[2] == BODY


async def test_a_chunked_body_comes_whole(transport, nginx):
    headers = [(b"accept-encoding", b"gzip")]
    status, lines, body = await ask(transport, nginx, target=b"/packed", headers=headers)
    assert status == 200
    assert (b"transfer-encoding", b"chunked") in lines
    assert body[:2] == b"\x1f\x8b"


async def test_what_has_no_body_leaves_the_connection_usable(transport, nginx):
    _, lines, _ = await ask(transport, nginx, "HEAD", b"/file")
    assert (await ask(transport, nginx, target=b"/none"))[0] == 204
    headers = [(b"if-none-match", dict(lines)[b"etag"])]
    assert (await ask(transport, nginx, target=b"/file", headers=headers))[0] == 304
    assert (await ask(transport, nginx, target=b"/file"))[2] == BODY
    assert transport.connections == 1


async def test_many_requests_outlive_many_connections(transport, nginx):
    """This nginx closes each connection after five requests, and says so."""

    async def client():
        for _ in range(20):
            assert (await ask(transport, nginx, target=b"/none"))[0] == 204

    await asyncio.gather(*(client() for _ in range(16)))
    assert transport.connections <= 16


async def test_an_answer_before_the_body_is_heard(transport, nginx):
    status, _, _ = await ask(transport, nginx, "POST", b"/small", body=chunks(*[bytes(65536)] * 64), length=64 * 65536)
    assert status == 413
    assert (await ask(transport, nginx, target=b"/none"))[0] == 204


async def test_a_unix_socket_will_do(nginx, folder):
    transport = Http1Transport(uds=str(folder / "socket"))
    assert (await ask(transport, f"http://{LOOPBACK}", target=b"/file"))[2] == BODY
    await transport.aclose()
