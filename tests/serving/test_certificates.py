"""The server's certificate follows its files."""

import logging
import socket
import ssl
import threading

import pytest
from cryptography import x509
from tests.certificates import write_certificate
from tests.servers import serving

from apim_middleware.errors import ConfigError
from apim_middleware.serving.certificates import server_context
from apim_middleware.testing import FakeClock


def shown(context: ssl.SSLContext, name: str | None = "gateway.example") -> int:
    """The serial number of the certificate that a client is shown."""
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with context.wrap_socket(theirs, server_side=True) as wire:
            wire.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    with client.wrap_socket(ours, server_hostname=name) as wire:
        raw = wire.getpeercert(binary_form=True)
        wire.sendall(b"x")
    thread.join()
    return x509.load_der_x509_certificate(raw).serial_number


@pytest.mark.parametrize("name", ["gateway.example", None], ids=["named", "unnamed"])
def test_a_new_certificate_is_shown_to_the_next_client(tmp_path, name):
    clock = FakeClock()
    context = server_context(*write_certificate(tmp_path, "gateway.example", serial=1), clock=clock)
    assert shown(context, name) == 1
    write_certificate(tmp_path, "gateway.example", serial=2)
    assert shown(context, name) == 1
    clock.advance(1.0)
    assert shown(context, name) == 2


def test_one_that_cannot_be_used_changes_nothing(tmp_path, caplog):
    clock = FakeClock()
    certificate, key = write_certificate(tmp_path, "gateway.example", serial=1)
    context = server_context(certificate, key, clock=clock)
    certificate.write_text("half")
    for _ in range(3):
        clock.advance(1.0)
        assert shown(context) == 1
    assert len(caplog.messages) == 1
    assert "cannot be used" in caplog.messages[0]
    certificate.unlink()
    clock.advance(1.0)
    assert shown(context) == 1
    write_certificate(tmp_path, "gateway.example", serial=3)
    clock.advance(1.0)
    assert shown(context) == 3


def test_a_key_that_does_not_belong_to_it_waits_for_the_other_file(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    clock = FakeClock()
    context = server_context(*write_certificate(tmp_path, "gateway.example", serial=1), clock=clock)
    (tmp_path / "new").mkdir()
    certificate, key = write_certificate(tmp_path / "new", "gateway.example", serial=2)
    certificate.replace(tmp_path / "cert.pem")
    clock.advance(1.0)
    assert shown(context) == 1
    key.replace(tmp_path / "key.pem")
    clock.advance(1.0)
    assert shown(context) == 2


def test_files_that_cannot_be_read_are_found_while_building(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        server_context(tmp_path / "none.pem")


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        *[("certificate", odd) for odd in (None, 5, True, b"cert.pem", "", ("cert.pem", "key.pem"), "a\0b")],
        *[("key", odd) for odd in (5, False, b"key.pem", ["key.pem"])],
        *[("every", odd) for odd in (None, True, "1", -1, float("nan"), float("inf"), 1e9)],
        *[("alpn", odd) for odd in (None, 5, "h2", (b"h2",), ("",), ("h2", 5), ("x" * 256,), ("hä",))],
        *[("clock", odd) for odd in (5, "now", FakeClock)],
    ],
)
def test_a_mistake_names_its_field(tmp_path, field, odd):
    files = dict(zip(("certificate", "key"), write_certificate(tmp_path, "gateway.example"), strict=True))
    with pytest.raises(ConfigError, match=rf"^server_context\.{field}: "):
        server_context(**{**files, field: odd})


async def later():
    return "secret"


@pytest.mark.parametrize("password", ["secret", b"secret", 5, (), lambda again: again, later])
def test_a_password_is_asked_for_and_never_shown(tmp_path, password):
    with pytest.raises(ConfigError, match=r"^server_context\.password: ") as raised:
        server_context(*write_certificate(tmp_path, "gateway.example"), password=password)
    assert "secret" not in str(raised.value)


def test_uvicorn_serves_with_it(tmp_path):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    files = write_certificate(tmp_path, "gateway.example", serial=7)
    client = ssl.create_default_context(cafile=files[0])
    server = serving(app, lifespan="off", ssl_context_factory=lambda config, default: server_context(*files))
    with server as running, client.wrap_socket(running.connect(), server_hostname="gateway.example") as wire:
        wire.sendall(b"GET / HTTP/1.1\r\nHost: gateway.example\r\nConnection: close\r\n\r\n")
        assert wire.recv(15) == b"HTTP/1.1 200 OK"
        assert wire.version() == "TLSv1.3"
