"""Who has signed a request comes in, if it is still what was signed; nobody else does, whatever they send."""

import base64
import hmac
import json
from collections.abc import Sequence
from typing import Any

import anyio.lowlevel
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apim_middleware import AnyOf, APIKeyAuth, MemoryKeys, RewritePath, Stack, Subscription
from apim_middleware._http.digests import content_digest
from apim_middleware._http.signatures import base, signatures
from apim_middleware._signing.keys import SignatureKey
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policies.http_signature import HTTPSignature
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import Answer, FakeClock, call, connect, http_scope, websocket_scope
from apim_middleware.types import RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio

PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32)
SECRET = b"s" * 32
NOW = 1_700_000_000


def pem(private: Any) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


ADA = SignatureKey(id="ada", key=pem(PRIVATE), algorithm="ed25519", subject="ada@example.com")
BOB = SignatureKey(id="bob", key=SECRET, algorithm="hmac-sha256")
TARGET = '"@method" "@authority" "@path" "@query"'


def sign(scope: Scope, described: str, key: Any = PRIVATE, label: str = "sig") -> RawHeaders:
    """The two lines that sign a request."""
    text = base(scope, signatures([f"{label}={described}".encode()], [f"{label}=:AA==:".encode()])[0].components)
    value = hmac.digest(key, text, "sha256") if isinstance(key, bytes) else key.sign(text)
    encoded = base64.b64encode(value).decode()
    return [
        (b"signature-input", f"{label}={described}".encode()),
        (b"signature", f"{label}=:{encoded}:".encode()),
    ]


def said(components: str = TARGET, *, created: int = NOW, keyid: str = "ada", more: str = "") -> str:
    return f'({components});created={created};keyid="{keyid}"{more}'


class House:
    """An app behind the policy; keeps what reached it."""

    def __init__(self, *before: Any, **fields: Any) -> None:
        self.clock = FakeClock(NOW)
        self.seen: list[Scope] = []
        self.bodies: list[bytes] = []
        policy = HTTPSignature(**{"keys": (ADA, BOB), **fields})
        self.app = Stack(*before, policy, env=Env(clock=self.clock, place="here"))(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(dict(scope))
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        message = await receive()
        self.bodies.append(message.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask(
        self,
        described: str | None = None,
        *,
        key: Any = PRIVATE,
        method: str = "GET",
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        query: bytes = b"",
        signed: Scope | None = None,
        **more: Any,
    ) -> Answer:
        """Ask for /orders, signed as ``described``; ``signed`` is what was signed, where that differs."""
        lines = [(b"host", b"testserver"), *headers]
        scope = signed or http_scope(method, "/orders", headers=lines, query=query, **more)
        if described is not None:
            lines += sign(scope, described, key)
        return await call(self.app, method, "/orders", headers=lines, query=query, body=body, **more)


def code(answer: Answer) -> tuple[int, str]:

    return answer.status, json.loads(answer.body)["code"] if answer.status != 200 else ""


async def test_who_signed_comes_in_and_is_the_principal() -> None:
    house = House()
    assert (await house.ask(said())).status == 200
    assert house.seen[0]["user"].subject == "ada@example.com"


async def test_one_key_is_given_as_it_is() -> None:
    house = House(keys=ADA)
    assert (await house.ask(said())).status == 200
    assert (await house.ask(said(keyid="bob"), key=SECRET)).status == 401


async def test_a_request_without_a_signature_is_told_what_is_wanted() -> None:
    answer = await House(once=True, tag="shop").ask()
    assert code(answer) == (401, "signature-missing")
    wanted = b'sig=("@method" "@authority" "@path" "@query" "content-digest");created;keyid;nonce;tag="shop"'
    assert answer.header(b"accept-signature") == wanted
    assert answer.header(b"www-authenticate") == b'Signature realm="api"'


async def test_optional_lets_in_who_has_not_signed_but_nobody_who_signed_badly() -> None:
    house = House(optional=True)
    assert (await house.ask()).status == 200
    assert "user" not in house.seen[0]
    assert code(await house.ask(said(), key=ed25519.Ed25519PrivateKey.generate())) == (401, "signature-invalid")


KINDS: dict[str, tuple[Any, Any]] = {
    "ecdsa-p256-sha256": (ec.generate_private_key(ec.SECP256R1()), (ec.ECDSA(SHA256()), 32)),
    "ecdsa-p384-sha384": (ec.generate_private_key(ec.SECP384R1()), (ec.ECDSA(SHA384()), 48)),
    "rsa-pss-sha512": (rsa.generate_private_key(65537, 2048), (padding.PSS(padding.MGF1(SHA512()), 64), SHA512())),
    "rsa-v1_5-sha256": (rsa.generate_private_key(65537, 2048), (padding.PKCS1v15(), SHA256())),
}


class Signer:
    """A private key that signs as RFC 9421 §3.3 says."""

    def __init__(self, algorithm: str) -> None:
        self.private, self.how = KINDS[algorithm]

    def sign(self, text: bytes) -> bytes:
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(text, *self.how)
        scheme, size = self.how
        return b"".join(each.to_bytes(size) for each in decode_dss_signature(self.private.sign(text, scheme)))


@pytest.mark.parametrize("algorithm", KINDS)
async def test_every_algorithm_lets_in_its_own_signatures(algorithm: Any) -> None:
    signer = Signer(algorithm)
    house = House(keys=(SignatureKey(id="ada", key=pem(signer.private), algorithm=algorithm),))
    assert (await house.ask(said(more=f';alg="{algorithm}"'), key=signer)).status == 200
    assert code(await house.ask(said(), key=PRIVATE)) == (401, "signature-invalid")


async def test_a_shared_secret_lets_in() -> None:
    assert (await House().ask(said(keyid="bob"), key=SECRET)).status == 200


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 72, 4096])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
async def test_no_number_of_equal_bytes_is_a_signature(size: int, byte: bytes) -> None:
    algorithm: Any = "ecdsa-p256-sha256"
    house = House(keys=(SignatureKey(id="ada", key=pem(KINDS[algorithm][0]), algorithm=algorithm),))

    class Zeros:
        def sign(self, text: bytes) -> bytes:
            return byte * size

    assert code(await house.ask(said(), key=Zeros())) == (401, "signature-invalid")


async def test_a_public_key_is_never_used_as_a_secret() -> None:
    house = House()
    for text in (ADA.key, base64.b64decode(str(ADA.key).split("\n")[1])):
        secret = text.encode() if isinstance(text, str) else text
        assert code(await house.ask(said(more=';alg="hmac-sha256"'), key=secret)) == (401, "signature-invalid")


@pytest.mark.parametrize(
    "changed",
    [
        http_scope("POST", "/orders"),
        http_scope("GET", "/other"),
        http_scope("GET", "/orders", query=b"a=1"),
        http_scope("GET", "/orders", headers=[(b"host", b"elsewhere")]),
    ],
    ids=["method", "path", "query", "host"],
)
async def test_what_was_signed_for_another_request_is_not_good_here(changed: Scope) -> None:
    assert code(await House().ask(said(), signed=changed)) == (401, "signature-invalid")


@pytest.mark.parametrize(
    ("described", "outcome"),
    [
        (said(created=NOW - 305), 200),
        (said(created=NOW - 306), "signature-expired"),
        (said(created=NOW + 5), 200),
        (said(created=NOW + 6), "signature-invalid"),
        (said(more=f";expires={NOW - 5}"), 200),
        (said(more=f";expires={NOW - 6}"), "signature-expired"),
        (said(created=NOW - 306, more=f";expires={NOW + 9_999}"), "signature-expired"),
        (f'({TARGET});keyid="ada"', "signature-invalid"),
        (f'({TARGET});created="{NOW}";keyid="ada"', "signature-invalid"),
        (f'({TARGET});created={NOW}.0;keyid="ada"', "signature-invalid"),
        (f'({TARGET});created;keyid="ada"', "signature-invalid"),
        (said(more=";expires=?1"), "signature-invalid"),
        (f"({TARGET});created={NOW}", "signature-invalid"),
        (f"({TARGET});created={NOW};keyid=ada", 200),
        (said(keyid="nobody"), "signature-invalid"),
        (said(keyid="a" * 257), "signature-invalid"),
        (said(more=';alg="rsa-pss-sha512"'), "signature-invalid"),
        (said(more=';alg="none"'), "signature-invalid"),
        (said('"@method" "@path" "@query"'), "signature-invalid"),
        (said('"@method" "@target-uri"'), 200),
        (said('"@method" "@authority" "@request-target"'), 200),
        (said('"host";bs "@method" "@path" "@query"'), "signature-invalid"),
    ],
)
async def test_what_a_signature_says_decides(described: str, outcome: int | str) -> None:
    answer = await House().ask(described)
    assert answer.status == outcome if isinstance(outcome, int) else code(answer) == (401, outcome)


@pytest.mark.parametrize(
    "lines",
    [
        [(b"signature-input", b"sig=()")],
        [(b"signature-input", b"sig=(("), (b"signature", b"sig=:AA==:")],
        [(b"signature-input", b"\xff"), (b"signature", b"sig=:AA==:")],
        [(b"signature-input", said().encode().replace(b"(", b"sig=(", 1)), (b"signature", b"sig=::")],
        [(b"signature-input", b"sig=" + b"(" * 4000), (b"signature", b"sig=:AA==:")],
    ],
)
async def test_malformed_signatures_are_refused(lines: RawHeaders) -> None:
    assert code(await call(House().app, headers=lines)) == (401, "signature-invalid")


async def test_a_good_signature_counts_beside_a_bad_one() -> None:
    house = House()
    scope = http_scope(path="/orders")
    (_, bad_input), (_, bad) = sign(scope, said(), ed25519.Ed25519PrivateKey.generate(), "one")
    (_, good_input), (_, good) = sign(scope, said(), PRIVATE, "two")
    lines = [(b"signature-input", bad_input + b", " + good_input), (b"signature", bad), (b"signature", good)]
    assert (await call(house.app, path="/orders", headers=lines)).status == 200


async def test_no_more_than_four_signatures_are_looked_at() -> None:
    house = House()
    scope = http_scope(path="/orders")
    signed = [sign(scope, said(), ed25519.Ed25519PrivateKey.generate(), f"s{number}") for number in range(4)]
    signed.append(sign(scope, said(), PRIVATE, "good"))
    lines = [line for each in signed for line in each]
    assert code(await call(house.app, path="/orders", headers=lines)) == (401, "signature-invalid")


async def test_only_signatures_with_the_tag_are_looked_at() -> None:
    house = House(tag="shop")
    assert code(await house.ask(said())) == (401, "signature-missing")
    assert code(await house.ask(said(more=';tag="other"'))) == (401, "signature-missing")
    assert (await house.ask(said(more=';tag="shop"'))).status == 200


# Bodies

BODY = b'{"order": 7}'
DIGEST = [(b"content-digest", content_digest(BODY).encode()), (b"content-length", b"12")]
WITH_BODY = said(f'{TARGET} "content-digest"')


async def test_a_body_reaches_the_app_as_it_was_signed() -> None:
    house = House()
    assert (await house.ask(WITH_BODY, method="POST", headers=DIGEST, body=BODY)).status == 200
    assert house.bodies == [BODY]


async def test_another_body_is_refused_before_the_app_sees_it() -> None:
    house = House()
    answer = await house.ask(WITH_BODY, method="POST", headers=DIGEST, body=b'{"order": 8}')
    assert code(answer) == (400, "digest-mismatch")
    assert answer.header(b"want-content-digest") == b"sha-256=10, sha-512=9"
    assert house.seen == []


@pytest.mark.parametrize("header", [(b"content-length", b"12"), (b"transfer-encoding", b"chunked")])
async def test_a_body_nobody_signed_is_refused(header: tuple[bytes, bytes]) -> None:
    house = House()
    assert code(await house.ask(said(), method="POST", headers=[header], body=BODY)) == (401, "signature-invalid")
    assert house.seen == []


async def test_over_http_2_a_body_is_refused_where_none_was_signed() -> None:
    house = House()
    assert (await house.ask(said(), http_version="2")).status == 200
    assert code(await house.ask(said(), body=BODY, http_version="2")) == (401, "signature-invalid")


async def test_a_digest_that_cannot_be_used_is_refused() -> None:
    headers = [(b"content-digest", b"md5=:AA==:"), (b"content-length", b"12")]
    assert code(await House().ask(WITH_BODY, method="POST", headers=headers, body=BODY)) == (400, "digest-mismatch")


async def test_a_body_too_large_is_refused() -> None:
    answer = await House(max_body_bytes=11).ask(WITH_BODY, method="POST", headers=DIGEST, body=BODY)
    assert code(answer) == (413, "body-too-large")


async def test_bodies_flow_unseen_where_digests_are_not_wanted() -> None:
    house = House(content_digest=False, max_body_bytes=1)
    assert (await house.ask(said(), method="POST", headers=[(b"content-length", b"12")], body=BODY)).status == 200


async def test_a_client_that_leaves_within_its_body_gets_no_answer_and_reaches_nobody() -> None:
    house = House()
    lines = [(b"host", b"testserver"), *DIGEST]
    lines += sign(http_scope("POST", "/orders", headers=lines), WITH_BODY)
    scope = http_scope("POST", "/orders", headers=lines)
    sent = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await house.app(scope, receive, send)
    assert (sent, house.seen) == ([], [])


# Nonces


async def test_a_nonce_is_used_once() -> None:
    house = House(once=True)
    assert (await house.ask(said(more=';nonce="n1"'))).status == 200
    assert code(await house.ask(said(more=';nonce="n1"'))) == (401, "signature-replayed")
    assert (await house.ask(said(more=';nonce="n2"'))).status == 200


async def test_a_nonce_of_one_key_is_not_that_of_another() -> None:
    house = House(once=True)
    assert (await house.ask(said(more=';nonce="n"'))).status == 200
    assert (await house.ask(said(keyid="bob", more=';nonce="n"'), key=SECRET)).status == 200


async def test_nonces_of_one_key_do_not_take_the_room_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apim_middleware._signing.once._MOST", 4)
    house = House(once=True)
    found = [await house.ask(said(more=f';nonce="{number}"')) for number in range(3)]
    assert [each.status for each in found] == [200, 200, 503]
    assert (await house.ask(said(keyid="bob", more=';nonce="n"'), key=SECRET)).status == 200


async def test_who_cannot_sign_uses_up_nobodys_nonce() -> None:
    house = House(once=True)
    await house.ask(said(more=';nonce="n"'), key=ed25519.Ed25519PrivateKey.generate())
    assert (await house.ask(said(more=';nonce="n"'))).status == 200


@pytest.mark.parametrize("nonce", ["", ';nonce=""', ";nonce=1", f';nonce="{"n" * 257}"'])
async def test_a_signature_without_a_nonce_is_refused(nonce: str) -> None:
    assert code(await House(once=True).ask(said(more=nonce))) == (401, "signature-invalid")


async def test_a_nonce_is_remembered_for_as_long_as_its_signature_counts() -> None:
    house = House(once=True)
    described = said(created=NOW + 5, more=';nonce="n"')
    assert (await house.ask(described)).status == 200
    house.clock.advance(309)
    assert code(await house.ask(described)) == (401, "signature-replayed")
    house.clock.advance(3)
    assert code(await house.ask(described)) == (401, "signature-expired")


# Stores


async def test_keys_are_found_by_a_function_that_waits() -> None:
    async def find(name: str) -> SignatureKey | None:
        await anyio.lowlevel.checkpoint()
        return ADA if name == "ada" else None

    house = House(keys=find)
    assert (await house.ask(said())).status == 200
    assert code(await house.ask(said(keyid="eve"))) == (401, "signature-invalid")


async def test_nobody_comes_in_while_the_keys_cannot_be_read() -> None:
    def find(name: str) -> SignatureKey | None:
        raise StoreError("down")

    assert code(await House(keys=find).ask(said())) == (503, "key-store-unavailable")


async def test_while_keys_cannot_be_read_it_is_told_once_and_the_next_time_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def find(name: str) -> SignatureKey | None:
        if failing:
            raise StoreError("down")
        return ADA

    house = House(keys=find)
    for failing in (True, True, True, False, False, True, True):
        assert (await house.ask(said())).status == (503 if failing else 200)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


async def test_nobody_comes_in_while_nonces_cannot_be_kept() -> None:
    class Down(MemoryCounters):
        async def hit(self, hits: Any) -> Any:
            raise StoreError("down")

    env: Any = Env(clock=FakeClock(NOW), counters=Down(), place="here")
    house = House()
    house.app = Stack(HTTPSignature(keys=(ADA,), once=True), env=env)(house.inner)
    assert code(await house.ask(said(more=';nonce="n"'))) == (503, "replay-store-unavailable")


async def test_while_nonces_cannot_be_kept_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    class Shaky(MemoryCounters):
        away = True

        async def hit(self, hits: Any) -> Any:
            if self.away:
                raise StoreError("down")
            return await super().hit(hits)

    counters = Shaky(clock=FakeClock(NOW))
    env: Any = Env(clock=FakeClock(NOW), counters=counters, place="here")
    house = House()
    house.app = Stack(HTTPSignature(keys=(ADA,), once=True), env=env)(house.inner)
    for number in range(6):
        counters.away = number < 3
        await house.ask(said(more=f';nonce="n{number}"'))
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


# Together with others


async def test_a_websocket_is_judged_by_its_handshake() -> None:
    house = House()
    lines = sign(websocket_scope("/live"), said())
    assert (await connect(house.app, "/live", headers=lines)).status == 101
    assert (await connect(house.app, "/live")).status == 401


async def test_what_is_signed_is_the_request_before_it_is_rewritten_behind() -> None:
    clock = FakeClock(NOW)
    house = House()
    policies = (HTTPSignature(keys=(ADA,)), RewritePath(match="/orders", to="/v2/orders"))
    house.app = Stack(*policies, env=Env(clock=clock))(house.inner)
    assert (await house.ask(said())).status == 200
    assert house.seen[0]["path"] == "/v2/orders"


async def test_any_of_asks_the_next_where_nobody_signed() -> None:
    keys = MemoryKeys()
    keys.add(Subscription(id="one"))
    key = keys.issue("one").encode()
    house = House()
    stack = Stack(AnyOf(HTTPSignature(keys=(ADA,)), APIKeyAuth(keys=keys)), env=Env(clock=FakeClock(NOW)))
    house.app = stack(house.inner)
    assert (await house.ask(headers=[(b"ocp-apim-subscription-key", key)])).status == 200
    assert (await house.ask(WITH_BODY, method="POST", headers=DIGEST, body=BODY)).status == 200
    assert house.bodies[-1] == BODY
    assert code(await house.ask(WITH_BODY, method="POST", headers=DIGEST, body=b"x" * 12)) == (400, "digest-mismatch")


async def test_the_exchange_knows_who_signed() -> None:
    known = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        known.append(Exchange.of(scope).principal)  # type: ignore[union-attr]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    house = House()
    house.app = Stack(HTTPSignature(keys=(ADA,)), env=Env(clock=house.clock))(app)
    await house.ask(said())
    assert known[0].issuer == "urn:apim-middleware:http-signature"


# Configuration


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"keys": ()}, "keys"),
        ({"keys": (ADA, ADA)}, "keys"),
        ({"covered": ()}, "covered"),
        ({"covered": ("@status",)}, "covered"),
        ({"covered": ("Date",)}, "covered"),
        ({"max_age": 0.0}, "max_age"),
        ({"leeway": -1.0}, "leeway"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"tag": 'a"'}, "tag"),
        ({"realm": ""}, "realm"),
    ],
)
def test_mistakes_are_named(fields: Any, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        HTTPSignature(**{"keys": (ADA,), **fields})
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "ä"}, "id"),
        ({"key": "no pem"}, "key"),
        ({"key": SECRET}, "key"),
        ({"key": pem(KINDS["rsa-pss-sha512"][0])}, "key"),
        ({"algorithm": "ecdsa-p256-sha256"}, "key"),
        ({"algorithm": "hmac-sha256"}, "key"),
        ({"algorithm": "hmac-sha256", "key": b"short"}, "key"),
        ({"algorithm": "rsa-pss-sha512", "key": pem(rsa.generate_private_key(65537, 1024))}, "key"),
        ({"algorithm": "ecdsa-p256-sha256", "key": pem(KINDS["ecdsa-p384-sha384"][0])}, "key"),
    ],
)
def test_keys_that_fit_nothing_are_mistakes(fields: Any, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        SignatureKey(**{"id": "ada", "key": pem(PRIVATE), "algorithm": "ed25519", **fields})
    assert raised.value.field == field


def test_no_secret_is_shown() -> None:
    assert repr(SECRET)[1:] not in repr(BOB) + repr(HTTPSignature(keys=(BOB,)))


# What an attacker tried


async def test_a_body_that_no_header_tells_of_is_refused_where_none_was_signed() -> None:
    house = House()
    assert code(await house.ask(said(), body=b"extra", method="POST")) == (401, "signature-invalid")
    assert house.bodies == []


async def test_a_nonce_is_remembered_up_to_the_last_moment_its_signature_counts() -> None:
    house = House(once=True)
    described = said(created=NOW + 5, more=';nonce="n"')
    assert (await house.ask(described)).status == 200
    house.clock.advance(310)
    assert code(await house.ask(described)) == (401, "signature-replayed")


async def test_a_component_is_a_string_and_no_token() -> None:
    house = House(covered=("@method",))
    signed = [(b"signature-input", f'sig=("@method" date);created={NOW};keyid="ada"'.encode())]
    answer = await call(house.app, headers=[*signed, (b"signature", b"sig=:AA==:"), (b"date", b"now")])
    assert code(answer) == (401, "signature-invalid")
    assert b"no component" in answer.body


async def test_a_signature_covers_64_components_at_most() -> None:
    def names(count: int) -> str:
        return " ".join([TARGET, *(f'"@query-param";name="a{number}"' for number in range(count))])

    query = "&".join(f"a{number}=1" for number in range(61)).encode()
    assert (await House().ask(said(names(60)), query=query)).status == 200
    described = said(names(61))
    lines = [(b"signature-input", f"sig={described}".encode()), (b"signature", b"sig=:AA==:")]
    answer = await call(House().app, headers=lines, query=query)
    assert code(answer) == (401, "signature-invalid")
    assert b"more than 64" in answer.body
