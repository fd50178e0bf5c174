"""What every way to an upstream must do over TLS: whom it believes, and what it says of itself."""

import datetime as dt
import ssl
from functools import partial

import anyio
import anyio.streams.tls
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.servers import LOOPBACK

from apim_middleware.errors import ConfigError, ConnectFailed
from apim_middleware.protocols import UpstreamRequest

from .conformance import OK


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for the loopback address that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1)
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


@pytest.fixture
async def tls_origin(authority):
    """An upstream that speaks TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)

    async def serve(stream):
        async with stream:
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += await stream.receive()
            await stream.send(OK)

    plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
    port = plain.extra(anyio.abc.SocketAttribute.local_port)
    listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(listener.serve, serve))
        yield f"https://localhost:{port}"
        tasks.cancel_scope.cancel()


async def fetch(transport, origin):
    try:
        response = await transport.send(UpstreamRequest("GET", origin))
        body = b"".join([chunk async for chunk in response])
        await response.aclose()
    finally:
        await transport.aclose()
    return body


class TLSConformance:
    pytestmark = pytest.mark.anyio
    kind: type

    @pytest.fixture
    def make(self):
        return self.kind

    async def test_a_certificate_of_ones_own_authority_will_do(self, make, authority, tls_origin):
        context = ssl.create_default_context(cafile=authority)
        assert await fetch(make(verify=context), tls_origin) == b"ok"

    async def test_a_certificate_of_an_unknown_authority_will_not(self, make, tls_origin):
        with pytest.raises(ConnectFailed) as failed:
            await fetch(make(), tls_origin)
        assert failed.value.__cause__ is not None

    async def test_a_certificate_for_another_name_will_not(self, make, authority, tls_origin):
        context = ssl.create_default_context(cafile=authority)
        with pytest.raises(ConnectFailed):
            await fetch(make(verify=context), tls_origin.replace("localhost", LOOPBACK))

    @pytest.mark.parametrize("verify", [True, None, 0, 1, 0.0, "", "ca.pem", b"", [], (), {}], ids=repr)
    async def test_nothing_but_false_lets_an_unknown_authority_through(self, make, tls_origin, verify):
        """What was only false, None among it, turned the check off; the name of a file was taken for True."""
        with pytest.raises((ConfigError, ConnectFailed)):
            await fetch(make(verify=verify), tls_origin)

    @pytest.mark.parametrize("verify", [None, 0, "", "ca.pem", [], ()], ids=repr)
    async def test_what_is_no_verify_is_told_with_the_field_for_a_file(self, make, verify):
        with pytest.raises(ConfigError) as raised:
            make(verify=verify)
        told = str(raised.value)
        assert told.startswith(f"{self.kind.__name__}.verify: {verify!r} is not ")
        assert 'ca="' in told or "cafile=" in told

    async def test_nobody_asks_for_certificates_when_told_not_to(self, make, tls_origin):
        assert await fetch(make(verify=False), tls_origin) == b"ok"
