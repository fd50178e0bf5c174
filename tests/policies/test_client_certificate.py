"""Clients with a good certificate come in, however a trusted proxy or the server tells of it; nobody else does."""

import base64
import contextlib
import json
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._certificates import gate
from apim_middleware._certificates.checks import BadCertificate, check_purpose, holder_of, load
from apim_middleware._certificates.identities import CertificateIdentity
from apim_middleware._certificates.revocation import RevocationLists
from apim_middleware._http.certificate_fields import from_header
from apim_middleware._http.client_certificate import certificate as shown_certificate
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.policies.client import TrustedProxies
from apim_middleware.policies.client_certificate import ClientCertificate
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PROXY = ("203.0.113.7", 50000)  # where the test client calls from


class Signer:
    """Somebody with a key and a certificate, who can sign others'."""

    def __init__(self, name: str, by: "Signer | None" = None, *, ca: bool = True, **more: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if name else x509.Name([])
        self.certificate = self._made(by or self, ca=ca, **more)
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        self.der = self.certificate.public_bytes(Encoding.DER)

    def _made(
        self,
        by: "Signer",
        *,
        ca: bool,
        begin: timedelta = timedelta(days=-1),
        end: timedelta = timedelta(days=30),
        purposes: Any = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        names: Any = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(by.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + begin)
            .not_valid_after(NOW + end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), critical=False)
        )
        if ca:
            usage = dict.fromkeys(
                (
                    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                    "key_agreement", "encipher_only", "decipher_only",
                ),
                False,
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        elif purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        return builder.sign(by.key, SHA256())

    def revoking(self, *others: "Signer", due: timedelta = timedelta(days=1)) -> str:
        """A revocation list in PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(NOW - timedelta(days=1))
            .next_update(NOW + due)
        )
        for other in others:
            entry = x509.RevokedCertificateBuilder().serial_number(other.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW - timedelta(hours=1)).build())
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM).decode()


ROOT = Signer("root")
BETWEEN = Signer("between", ROOT)
STRANGER = Signer("stranger")
ORDERS = Signer(
    "orders",
    ROOT,
    ca=False,
    names=[x509.DNSName("orders.example"), x509.UniformResourceIdentifier("spiffe://x/orders")],
)


class House:
    """An app behind the policy; keeps the scopes that reached it."""

    def __init__(self, *before: Any, **fields: Any) -> None:
        self.clock = FakeClock(NOW.timestamp())
        self.seen: list[Scope] = []
        given = {"authorities": ROOT.pem, "header": "X-SSL-Cert", "trusted": (PROXY[0],), **fields}
        self.app = Stack(*before, ClientCertificate(**given), env=Env(clock=self.clock))(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(dict(scope))
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask(self, value: str | bytes | None, name: bytes = b"x-ssl-cert", **more: Any) -> Answer:
        lines = [] if value is None else [(name, value.encode() if isinstance(value, str) else value)]
        return await call(self.app, headers=lines, **more)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"] if answer.status != 200 else ""


def escaped(signer: Signer) -> str:
    return quote(signer.pem, safe="")


FORMS: dict[str, tuple[bytes, str]] = {
    "nginx": (b"x-ssl-cert", escaped(ORDERS)),
    "apache": (b"x-ssl-cert", " ".join(ORDERS.pem.split("\n"))),
    "caddy": (b"x-ssl-cert", base64.b64encode(ORDERS.der).decode()),
    "traefik": (b"x-forwarded-tls-client-cert", quote(base64.b64encode(ORDERS.der).decode(), safe="")),
    "envoy": (b"x-forwarded-client-cert", f'By=spiffe://a;Hash=00;Subject="CN=a, b";Cert="{escaped(ORDERS)}"'),
    "rfc9440": (b"client-cert", f":{base64.b64encode(ORDERS.der).decode()}:"),
}


@pytest.mark.parametrize(("name", "value"), FORMS.values(), ids=FORMS)
async def test_the_certificate_is_found_as_every_proxy_writes_it(name: bytes, value: str) -> None:
    house = House(header=name.decode())
    assert (await house.ask(value, name)).status == 200
    assert house.seen[0]["user"].subject == "CN=orders"
    assert shown_certificate(house.seen[0]) == ORDERS.der
    assert name not in dict(house.seen[0]["headers"])


async def test_the_certificate_of_the_connection_comes_from_the_tls_extension() -> None:
    house = House(header="", trusted=())
    tls = {"tls": {"client_cert_chain": [ORDERS.pem]}}
    assert (await call(house.app, extensions=tls)).status == 200
    assert code(await call(house.app, extensions={"tls": {"client_cert_chain": []}})) == (403, "certificate-missing")
    assert code(await call(house.app)) == (403, "certificate-missing")


async def test_who_is_not_a_trusted_proxy_is_not_believed() -> None:
    house = House(trusted=("192.0.2.1",), optional=True)
    assert (await house.ask(escaped(ORDERS))).status == 200
    assert "user" not in house.seen[0]
    assert b"x-ssl-cert" not in dict(house.seen[0]["headers"])
    assert shown_certificate(house.seen[0]) is None


async def test_it_is_the_peer_that_is_trusted_and_not_the_client_it_tells_of() -> None:
    proxies = TrustedProxies(trusted=(PROXY[0],))
    lines = [(b"x-ssl-cert", escaped(ORDERS).encode()), (b"x-forwarded-for", b"198.51.100.4")]
    assert (await call(House(proxies).app, headers=lines)).status == 200
    believing_clients = House(proxies, trusted=("198.51.100.4",))
    assert code(await call(believing_clients.app, headers=lines)) == (403, "certificate-missing")


@pytest.mark.parametrize("value", ["", "  "])
async def test_an_empty_header_is_no_certificate(value: str) -> None:
    assert code(await House().ask(value)) == (403, "certificate-missing")


async def test_two_headers_are_refused() -> None:
    lines = [(b"x-ssl-cert", escaped(ORDERS).encode())] * 2
    assert code(await call(House().app, headers=lines)) == (403, "certificate-invalid")


@pytest.mark.parametrize(
    "value",
    ["junk", "%", ":AA==:", "AAAA", "-----BEGIN CERTIFICATE-----", b"\xff", ORDERS.pem[:200].replace("\n", " ")],
)
async def test_what_is_no_certificate_is_refused(value: str | bytes) -> None:
    assert code(await House().ask(value)) == (403, "certificate-invalid")


BAD: dict[str, Signer] = {
    "of a stranger": Signer("orders", STRANGER, ca=False),
    "by itself": Signer("orders", ca=False),
    "expired": Signer("orders", ROOT, ca=False, end=timedelta(seconds=-1)),
    "not yet": Signer("orders", ROOT, ca=False, begin=timedelta(seconds=1)),
    "for servers": Signer("orders", ROOT, ca=False, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
    "an authority": BETWEEN,
    "the root": ROOT,
    "by one in between who did not come along": Signer("orders", BETWEEN, ca=False),
    "by a client": Signer("orders", ORDERS, ca=False),
}


@pytest.mark.parametrize("signer", BAD.values(), ids=BAD)
async def test_bad_certificates_are_refused(signer: Signer) -> None:
    house = House()
    assert code(await house.ask(escaped(signer))) == (403, "certificate-invalid")
    assert house.seen == []


async def test_those_in_between_may_come_along() -> None:
    leaf = Signer("orders", BETWEEN, ca=False)
    chain = f":{base64.b64encode(BETWEEN.der).decode()}:"
    lines = [(b"client-cert", b":%s:" % base64.b64encode(leaf.der)), (b"client-cert-chain", chain.encode())]
    house = House(header="Client-Cert")
    assert (await call(house.app, headers=lines)).status == 200
    assert not {b"client-cert", b"client-cert-chain"} & dict(house.seen[0]["headers"]).keys()


async def test_any_purpose_and_no_purpose_will_do() -> None:
    for purposes in ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], []):
        signer = Signer("orders", ROOT, ca=False, purposes=purposes)
        assert (await House().ask(escaped(signer))).status == 200


async def test_a_certificate_that_was_good_is_not_good_for_ever() -> None:
    house = House()
    assert (await house.ask(escaped(ORDERS))).status == 200
    house.clock.advance(timedelta(days=31).total_seconds())
    assert code(await house.ask(escaped(ORDERS))) == (403, "certificate-invalid")


async def test_a_certificate_that_was_good_a_moment_ago_is_looked_at_again_for_its_time() -> None:
    house, signer = House(), Signer("orders", ROOT, ca=False, end=timedelta(seconds=2))
    assert (await house.ask(escaped(signer))).status == 200
    house.clock.advance(3)
    assert code(await house.ask(escaped(signer))) == (403, "certificate-invalid")


async def test_of_certificates_that_were_good_a_bounded_number_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_REMEMBERED", 2)
    made = ClientCertificate(authorities=ROOT.pem).bind(Env(clock=FakeClock(NOW.timestamp())))
    for _ in range(4):
        tls = {"tls": {"client_cert_chain": [Signer("orders", ROOT, ca=False).pem]}}
        made.on_request(Exchange(http_scope(extensions=tls)))
    assert len(made._known) == 2


async def test_where_the_server_has_checked_the_chain_it_is_believed() -> None:
    house = House(authorities="server")
    assert (await house.ask(escaped(BAD["of a stranger"]))).status == 200
    assert code(await house.ask(escaped(BAD["expired"]))) == (403, "certificate-invalid")


async def test_too_much_that_comes_along_is_refused() -> None:
    chain = ", ".join([f":{base64.b64encode(BETWEEN.der).decode()}:"] * 8)
    lines = [(b"client-cert", b":%s:" % base64.b64encode(ORDERS.der)), (b"client-cert-chain", chain.encode())]
    assert code(await call(House(header="Client-Cert").app, headers=lines)) == (403, "certificate-invalid")


# Revocation


async def test_a_revoked_certificate_is_refused_from_the_moment_the_list_says_so() -> None:
    lists = RevocationLists(ROOT.revoking())
    house = House(revocations=lists)
    assert (await house.ask(escaped(ORDERS))).status == 200
    lists.replace(ROOT.revoking(ORDERS))
    assert code(await house.ask(escaped(ORDERS))) == (403, "certificate-revoked")


async def test_a_client_of_one_in_between_who_was_revoked_is_refused() -> None:
    leaf = Signer("orders", BETWEEN, ca=False)
    house = House(header="Client-Cert", revocations=RevocationLists(ROOT.revoking(BETWEEN)))
    chain = f":{base64.b64encode(BETWEEN.der).decode()}:"
    lines = [(b"client-cert", b":%s:" % base64.b64encode(leaf.der)), (b"client-cert-chain", chain.encode())]
    assert code(await call(house.app, headers=lines)) == (403, "certificate-revoked")


async def test_nobody_comes_in_by_a_list_that_is_out_of_date() -> None:
    house = House(revocations=RevocationLists(ROOT.revoking(due=timedelta(hours=1))))
    assert (await house.ask(escaped(ORDERS))).status == 200
    house.clock.advance(3601)
    assert code(await house.ask(escaped(ORDERS))) == (503, "revocation-unknown")


def test_a_list_somebody_else_signed_is_a_mistake_now_and_later() -> None:
    forged = Signer("root").revoking()
    with pytest.raises(ConfigError, match="not signed"):
        House(revocations=RevocationLists(forged))
    lists = RevocationLists(ROOT.revoking())
    House(revocations=lists)
    with pytest.raises(ConfigError, match="not signed"):
        lists.replace(forged)


@pytest.mark.parametrize("lists", [("junk",), (ROOT.pem,), (ROOT.revoking(), ROOT.revoking())])
def test_what_is_no_list_is_a_mistake(lists: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        RevocationLists(*lists)


# Identities


@pytest.mark.parametrize(
    "fields",
    [
        {"thumbprint": ORDERS.certificate.fingerprint(SHA256()).hex(":").upper()},
        {"serial_number": f"{ORDERS.certificate.serial_number:X}"},
        {"serial_number": f"00{ORDERS.certificate.serial_number:x}"},
        {"subject": "CN=orders", "issuer": "CN=root"},
        {"common_name": "orders"},
        {"dns_name": "Orders.example"},
        {"uri": "spiffe://x/orders"},
    ],
)
async def test_who_fits_an_identity_comes_in(fields: Any) -> None:
    other = CertificateIdentity(common_name="somebody else")
    house = House(identities=(other, CertificateIdentity(**fields)))
    assert (await house.ask(escaped(ORDERS))).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"thumbprint": "0" * 64},
        {"serial_number": "1"},
        {"common_name": "order"},
        {"dns_name": "example"},
        {"common_name": "orders", "issuer": "CN=stranger"},
        {"email": "orders"},
    ],
)
async def test_who_fits_none_does_not(fields: Any) -> None:
    house = House(identities=(CertificateIdentity(**fields),))
    assert code(await house.ask(escaped(ORDERS))) == (403, "certificate-not-allowed")


@pytest.mark.parametrize(
    ("subject", "wanted"),
    [("common-name", "orders"), ("dns-name", "orders.example"), ("uri", "spiffe://x/orders"), ("email", None)],
)
async def test_the_principal_is_called_as_asked(subject: str, wanted: str | None) -> None:
    house = House(subject=subject)
    answer = await house.ask(escaped(ORDERS))
    if wanted is None:
        assert code(answer) == (403, "certificate-not-allowed")
    else:
        assert house.seen[0]["user"].subject == wanted
        assert house.seen[0]["user"].issuer == "urn:apim-middleware:client-certificate:CN=root"
        assert house.seen[0]["user"].claims["thumbprint"] == ORDERS.certificate.fingerprint(SHA256()).hex()


async def test_an_empty_subject_is_nobody() -> None:
    assert code(await House().ask(escaped(Signer("", ROOT, ca=False)))) == (403, "certificate-not-allowed")


async def test_a_websocket_is_judged_by_its_handshake() -> None:
    house = House()
    lines = [(b"x-ssl-cert", escaped(ORDERS).encode())]
    assert (await connect(house.app, headers=lines)).status == 101
    assert (await connect(house.app)).status == 403


def test_of_several_elements_the_one_of_the_nearest_proxy_counts() -> None:
    value = f'Cert="{escaped(STRANGER)}",Hash=1;Cert="{escaped(ORDERS)}"'
    assert from_header(b"x-forwarded-client-cert", value.encode()) == [ORDERS.der]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"authorities": "junk"}, "authorities"),
        ({"header": "a b"}, "header"),
        ({"trusted": ()}, "trusted"),
        ({"header": ""}, "trusted"),
        ({"trusted": ("0.0.0.0/0", "::/0")}, "trusted"),
        ({"trusted": ("nowhere",)}, "trusted"),
    ],
)
def test_mistakes_are_named(fields: Any, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        House(**fields)
    assert raised.value.field == field


@pytest.mark.parametrize("fields", [{}, {"thumbprint": "00"}, {"thumbprint": "g" * 64}, {"serial_number": "x"}])
def test_an_identity_must_say_who_it_is(fields: Any) -> None:
    with pytest.raises(ConfigError):
        CertificateIdentity(**fields)


# What an attacker tried


@pytest.mark.parametrize(("authorities", "status"), [("server", 403), (ROOT.pem, 200)])
async def test_what_the_server_could_not_verify_counts_only_where_it_is_verified_here(
    authorities: str, status: int
) -> None:
    house = House(authorities=authorities, header="", trusted=())
    tls = {"client_cert_chain": [ORDERS.pem], "client_cert_error": "unable to get issuer certificate"}
    answer = await call(house.app, extensions={"tls": tls})
    assert answer.status == status
    assert len(house.seen) == (status == 200)


async def test_a_certificate_of_an_unknown_version_is_refused() -> None:
    other = ORDERS.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    assert other != ORDERS.der
    answer = await House(authorities="server").ask(base64.b64encode(other))
    assert code(answer) == (403, "certificate-invalid")


@given(st.lists(st.tuples(st.integers(0, len(ORDERS.der) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_whatever_is_no_certificate_is_a_bad_one_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    der = bytearray(ORDERS.der)
    for at, byte in changes:
        der[at] = byte
    with warnings.catch_warnings(), contextlib.suppress(BadCertificate, ValueError):
        warnings.simplefilter("ignore")  # of what certificates must not have, and libraries still read
        certificate = load(bytes(der))
        check_purpose(certificate)
        holder_of(certificate)


def test_a_run_of_blanks_in_pem_is_read_in_one_way() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        from_header(b"x-ssl-cert", b"-----BEGIN CERTIFICATE-----" + b" " * 16_000)


@pytest.mark.parametrize("header", ["X-SSL-Client-Cert", "X_SSL_Cert"])
def test_a_header_that_hygiene_takes_away_is_a_mistake(header: str) -> None:
    with pytest.raises(ConfigError, match="taken out of every request"):
        House(header=header)


def test_the_cure_for_such_a_header_leaves_everything_else_taken_away() -> None:
    with pytest.raises(ConfigError, match=r'each for each in Hygiene\(\).strip if each != "x-ssl-client-cert"'):
        House(header="X-SSL-Client-Cert")
