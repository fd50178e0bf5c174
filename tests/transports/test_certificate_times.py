"""An upstream's certificate counts from its beginning to its end, whoever vouches for it."""

import datetime as dt
import ssl

import anyio
import anyio.abc
import anyio.streams.tls
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.servers import LOOPBACK

from apim_middleware.errors import ConnectFailed
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports.default import DefaultTransport

pytestmark = pytest.mark.anyio

DAY = dt.timedelta(days=1)


def certificate(folder, begin, end):
    """One for this machine that vouches for itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now + begin).not_valid_after(now + end)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = folder / "both.pem"
    signed = builder.sign(key, hashes.SHA256()).public_bytes(pem)
    file.write_bytes(signed + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


@pytest.mark.parametrize(("begin", "end", "good"), [(-2 * DAY, -DAY, False), (DAY, 2 * DAY, False), (-DAY, DAY, True)])
async def test_who_shows_one_out_of_its_time_is_not_asked(tmp_path, begin, end, good):
    file = certificate(tmp_path, begin, end)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    asked = []

    async def serve(stream):
        async with stream:
            asked.append(await stream.receive())
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
    origin = f"https://localhost:{plain.extra(anyio.abc.SocketAttribute.local_port)}"
    listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=False)
    transport = DefaultTransport(verify=ssl.create_default_context(cafile=file))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        with anyio.fail_after(10):
            if good:
                response = await transport.send(UpstreamRequest("GET", origin))
                assert [chunk async for chunk in response] == [b"ok"]
                await response.aclose()
            else:
                with pytest.raises(ConnectFailed):
                    await transport.send(UpstreamRequest("GET", origin))
        await transport.aclose()
        tasks.cancel_scope.cancel()
    assert bool(asked) == good
