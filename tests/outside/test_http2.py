"""Upstreams that speak HTTP/2, through the transport that does: real servers, asked by our proxy."""

import ssl
import struct
from collections.abc import Iterator

import pytest
from tests.certificates import write_certificate
from tests.servers import Running, free_port, program, serving

from apim_middleware.proxy import Proxy
from apim_middleware.transports.httpx import HttpxTransport

from .conftest import Upstream, found, main_nginx

SITE = """
server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location / {{
        proxy_pass {origin};
        proxy_http_version 1.1;
        proxy_buffering off;
        proxy_request_buffering off;
        client_max_body_size 0;
        proxy_set_header X-Spoken $server_protocol;
        add_header X-Spoken $server_protocol;
    }}
}}
"""

CADDY = """
{{
    admin off
    auto_https off
}}
https://localhost:{port} {{
    tls {certificate} {key}
    header X-Spoken {{http.request.proto}}
    reverse_proxy {origin} {{
        header_up X-Spoken {{http.request.proto}}
    }}
}}
"""


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def over_http2(request, tmp_path_factory, behind: Running) -> Iterator[Running]:
    """Our proxy before a server that speaks HTTP/2 with it."""
    folder = tmp_path_factory.mktemp(f"h2{request.param}")
    certificate, key = write_certificate(folder, "localhost")
    port = free_port()
    origin = behind.origin.removeprefix("http://") if request.param == "caddy" else behind.origin
    text = (CADDY if request.param == "caddy" else SITE).format(
        port=port, certificate=certificate, key=key, origin=origin
    )
    (folder / "site").write_text(text)
    if request.param == "caddy":
        command = [found("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "site")]
    else:
        command = main_nginx(folder, folder / "site")
    context = ssl.create_default_context(cafile=certificate)
    proxy = Proxy(f"https://localhost:{port}", transport=HttpxTransport(verify=context, http2=True))
    with program(command, port, log=folder / "output.log"), serving(proxy) as gateway:
        yield gateway


def ask(gateway: Running, head: bytes, body: bytes = b"") -> bytes:
    return gateway.talk(head + b"Host: a\r\nConnection: close\r\n\r\n" + body)


def test_it_speaks_http2_with_the_upstream(over_http2: Running):
    answer = ask(over_http2, b"GET /a?b=c HTTP/1.1\r\nTE: trailers\r\nCookie: a=b; c=d\r\nAuthorization: Bearer x\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nx-spoken: HTTP/2.0\r\n" in answer
    assert b'["x-spoken", "HTTP/2.0"]' in answer
    assert b'["cookie", "a=b; c=d"]' in answer
    assert b'["authorization", "Bearer x"]' in answer


def test_a_large_body_passes(over_http2: Running):
    body = bytes(1_000_000)
    answer = ask(over_http2, b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n", body)
    assert b'"size": 1000000' in answer


def test_a_grpc_web_call_passes_to_the_byte(over_http2: Running):
    """Its trailers are the last frame of its body, so that any proxy passes them on."""
    message, trailers = b"\x0a\x05hello", b"grpc-status:0\r\n"
    frames = b"\x00" + struct.pack("!I", len(message)) + message + b"\x80" + struct.pack("!I", len(trailers)) + trailers
    head = b"POST /mirror HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n"
    answer = ask(over_http2, head + b"Content-Length: %d\r\n" % len(frames), frames)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/grpc-web+proto" in head.lower()
    assert frames in body


def test_events_pass_when_they_come(over_http2: Running, upstream: Upstream):
    upstream.go_on.clear()
    try:
        with over_http2.connect() as connection:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            heard = b""
            while b"data: 1\n\n" not in heard:
                heard += connection.recv(65536)
            assert not upstream.go_on.is_set()
            upstream.go_on.set()
            while b"data: 2\n\n" not in heard:
                heard += connection.recv(65536)
    finally:
        upstream.go_on.set()
