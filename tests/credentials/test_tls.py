"""A client certificate is shown to an upstream that asks for one, and the new one as soon as its files have changed."""

import datetime as dt
import os
import ssl
from pathlib import Path
from typing import Any

import anyio
import anyio.streams.tls
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.servers import LOOPBACK

from apim_middleware.credentials.tls import ClientCertificateContext, client_certificate
from apim_middleware.errors import ConfigError, TransportError
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.proxy.app import Proxy
from apim_middleware.testing import FakeClock, call
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.transports.httpx import HttpxTransport

PEM = serialization.Encoding.PEM

# Python 3.13 holds certificates to RFC 5280, 4.2.1: key identifiers for all, and a usage for an authority's.
VOUCHING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Makes certificates and files of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        own = self._signed(self.name, self.key.public_key(), basic, identifier, VOUCHING)
        self.file = folder / "authority.pem"
        self.file.write_bytes(own.public_bytes(PEM))

    def _signed(self, name: x509.Name, key: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1))
        builder = builder.not_valid_after(now + dt.timedelta(days=1))
        for each in extensions:
            builder = builder.add_extension(each, critical=isinstance(each, x509.BasicConstraints | x509.KeyUsage))
        return builder.sign(self.key, hashes.SHA256())

    def make(self, name: str, *, password: str | None = None) -> tuple[Path, Path]:
        """Files with a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = self._signed(subject, key.public_key(), names, issuer)
        secrecy = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password.encode())
        )
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(PEM))
        files[1].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, secrecy))
        return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def upstream(authority: Authority) -> Any:
    """An upstream that wants a certificate, and answers with the name in it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(*authority.make("upstream"))
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(plain: Any) -> None:
        try:
            stream = await anyio.streams.tls.TLSStream.wrap(plain, ssl_context=context, standard_compatible=False)
        except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
            await plain.aclose()
            return
        async with stream:
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += await stream.receive()
            subject = stream.extra(anyio.streams.tls.TLSAttribute.peer_certificate)["subject"]
            name = dict(pair for pairs in subject for pair in pairs)["commonName"].encode()
            await stream.send(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name)
            )

    listener = await anyio.create_tcp_listener(local_host=LOOPBACK)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"https://localhost:{port}"
        tasks.cancel_scope.cancel()


async def shown(transport: Any, origin: str) -> bytes:
    """The name in the certificate that the upstream was shown."""
    response = await transport.send(UpstreamRequest("GET", origin, headers=[(b"host", b"localhost")]))
    try:
        return b"".join([chunk async for chunk in response])
    finally:
        await response.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("transport", [DefaultTransport, HttpxTransport])
async def test_the_upstream_is_shown_the_certificate_and_then_the_new_one(
    upstream: str, authority: Authority, clock: FakeClock, transport: Any
) -> None:
    one = authority.make("one")
    context = client_certificate(*one, authorities=authority.file, monotonic=clock.monotonic)
    line = transport(verify=context)
    assert await shown(line, upstream) == b"one"
    for new, old in zip(authority.make("two"), one, strict=True):
        new.replace(old)
    assert await shown(line, upstream) == b"one"
    clock.advance(60)
    assert await shown(line, upstream) == b"two"
    await line.aclose()


@pytest.mark.anyio
async def test_a_proxy_shows_it(upstream: str, authority: Authority) -> None:
    context = client_certificate(*authority.make("gateway"), authorities=authority.file)
    assert (await call(Proxy(upstream, verify=context))).body == b"gateway"


@pytest.mark.anyio
async def test_an_upstream_nobody_vouches_for_is_not_spoken_to(upstream: str, authority: Authority) -> None:
    line = DefaultTransport(verify=client_certificate(*authority.make("one")))
    with pytest.raises(TransportError):
        await shown(line, upstream)
    await line.aclose()


@pytest.fixture
def watched(authority: Authority, clock: FakeClock) -> tuple[ClientCertificateContext, Path, Path]:
    files = authority.make("one")
    return client_certificate(*files, monotonic=clock.monotonic), *files


def connect(context: ssl.SSLContext) -> None:
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")


def test_files_that_do_not_fit_together_change_nothing_until_they_do(
    watched: tuple[ClientCertificateContext, Path, Path],
    authority: Authority,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    context, certificate, key = watched
    loaded = []
    context.load_cert_chain = lambda *args, **more: loaded.append(args)  # type: ignore[method-assign]
    other = authority.make("two")
    other[0].replace(certificate)
    clock.advance(60)
    connect(context)
    assert loaded == []
    assert "stays what it was" in caplog.text
    other[1].replace(key)
    connect(context)
    assert loaded == []
    clock.advance(60)
    connect(context)
    assert len(loaded) == 1
    clock.advance(60)
    connect(context)
    assert len(loaded) == 1


def test_files_that_are_gone_change_nothing(
    watched: tuple[ClientCertificateContext, Path, Path], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    context, certificate, _ = watched
    certificate.unlink()
    clock.advance(60)
    connect(context)
    assert "stays what it was" in caplog.text


def test_files_replaced_while_they_are_read_are_read_again(authority: Authority, clock: FakeClock) -> None:
    one = authority.make("one")

    class Rotating(os.PathLike[str]):
        """The file of authorities; to read it takes so long that meanwhile the certificate is another."""

        def __fspath__(self) -> str:
            for new, old in zip(authority.make("two"), one, strict=True):
                new.replace(old)
            return str(authority.file)

    context = client_certificate(*one, authorities=Rotating(), monotonic=clock.monotonic)  # type: ignore[arg-type]
    loaded = []
    context.load_cert_chain = lambda *args, **more: loaded.append(args)  # type: ignore[method-assign]
    clock.advance(60)
    connect(context)
    assert len(loaded) == 1


def test_files_are_not_looked_at_for_each_connection(
    watched: tuple[ClientCertificateContext, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _, _ = watched
    monkeypatch.setattr(os, "stat", None)
    for _ in range(100):
        connect(context)


def test_an_encrypted_key_needs_its_password_and_asks_nobody(authority: Authority) -> None:
    files = authority.make("one", password="hush")
    client_certificate(*files, password="hush")
    for password in (None, "wrong-hush"):
        with pytest.raises(ConfigError) as caught:
            client_certificate(*files, password=password)
        assert caught.value.field == "certificate"
        assert "hush" not in str(caught.value)


def test_both_may_stand_in_one_file(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.make("one")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert client_certificate(str(both)).check_hostname


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("certificate", "gone.pem"),
        ("authorities", "gone.pem"),
        ("check_every", 0),
        ("check_every", "5"),
        ("check_every", float("nan")),
    ],
)
def test_a_mistake_is_told_while_building(authority: Authority, tmp_path: Path, field: str, wrong: Any) -> None:
    files = dict(zip(("certificate", "key"), authority.make("one"), strict=True))
    with pytest.raises(ConfigError) as caught:
        client_certificate(**{**files, field: tmp_path / wrong if wrong == "gone.pem" else wrong})
    assert caught.value.field == field
