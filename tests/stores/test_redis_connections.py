"""The ways to a Redis server: TLS, Unix sockets and ready clients; what fails on them is a StoreError too."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
import redis.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from tests.servers import LOOPBACK, free_port, redis_server

from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.redis import RedisCounters, RedisPermits
from apim_middleware.stores.redis.target import target_of

HIT = [Hit("a", Limit(10, 3_600.0, "sliding", "here"))]


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the loopback address that nobody knows, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1)
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("certificate")
    pem, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, plain))
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.anyio
async def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key))
    with redis_server(tmp_path, *options, "--tls-auth-clients", "no"):
        url = f"rediss://{LOOPBACK}:{port}/0"
        unknown = RedisCounters(url)
        with pytest.raises(StoreError) as caught:
            await unknown.hit(HIT)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        for remaining, more in ((9, f"?ssl_ca_certs={cert}"), (8, "?ssl_cert_reqs=none")):
            counters = RedisCounters(url + more)
            assert (await counters.hit(HIT))[0].remaining == remaining
            await counters.aclose()


@pytest.mark.anyio
async def test_a_unix_socket_will_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unix")
    with redis_server(folder, "--unixsocket", str(folder / "redis.sock")):
        counters = RedisCounters(f"unix://{folder}/redis.sock?db=1")
        assert (await counters.hit(HIT))[0].remaining == 9
        assert repr(counters) == f"<RedisCounters: unix://{folder}/redis.sock>"
        await counters.aclose()


def test_a_url_says_who_where_and_which_database() -> None:
    target = target_of("redis://me:p%40ss@cache.example:7000/3")
    assert (target.host, target.port, target.database) == ("cache.example", 7000, 3)
    assert target.greeting(target.password) == [(b"AUTH", b"me", b"p@ss"), (b"SELECT", b"3")]
    assert target_of("redis://:secret@h").greeting("new") == [(b"AUTH", b"new")]
    assert target_of("redis://[::1]?db=2").greeting("") == [(b"SELECT", b"2")]
    assert target_of("redis://").address == "redis://localhost:6379/0"
    assert "secret" not in repr(target_of("redis://:secret@h"))


def test_a_url_says_how_certificates_are_checked() -> None:
    strict, trusting, unnamed = (
        target_of(f"rediss://h{more}").tls for more in ("", "?ssl_cert_reqs=none", "?ssl_check_hostname=false")
    )
    assert strict is not None
    assert trusting is not None
    assert unnamed is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)
    assert (unnamed.verify_mode, unnamed.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert target_of("redis://h").tls is None


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost", "http://h", "redis://h:port", "redis://h/one", "redis://h?nonsense=1", "redis://h?nonsense",
        "redis://h?ssl_cert_reqs=none", "rediss://h?ssl_ca_certs=/nowhere", "redis://[::1",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_a_mistake(url: str) -> None:
    with pytest.raises(ConfigError, match=r"RedisPermits\.redis: is no URL of a server"):
        RedisPermits(url)


@pytest.mark.anyio
async def test_a_ready_client_that_cannot_connect_is_an_error() -> None:
    async with redis.asyncio.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(StoreError, match="ConnectionError") as caught:
            await RedisCounters(client).hit(HIT)
        assert isinstance(caught.value.__cause__, redis.exceptions.ConnectionError)


@pytest.mark.anyio
async def test_a_ready_client_without_patience_of_its_own_has_ours(tmp_path: Path) -> None:
    """And the connection on which an answer is missing is used no more."""
    with redis_server(tmp_path) as server:
        async with redis.asyncio.Redis.from_url(server.url, socket_timeout=None) as client:
            counters = RedisCounters(client, connect=1.0, timeout=0.5)
            await counters.hit(HIT)
            server.freeze()
            with pytest.raises(StoreError, match="in time"):
                await counters.hit(HIT)
            server.thaw()
            patient = RedisCounters(client, timeout=20.0)
            told = [(await patient.hit([Hit("b", HIT[0].limit)]))[0].remaining for _ in range(3)]
            assert told == [9, 8, 7]
