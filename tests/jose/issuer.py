"""An issuer for tests: makes tokens, honest and forged, publishes keys, and misbehaves on request."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any

import anyio
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import Algorithm, get_default_algorithms

from apim_middleware.errors import ConnectFailed
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.types import RawHeaders

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
AUDIENCE = "https://api.example"
SECRET = bytes(range(1, 65))

ALGORITHMS: dict[str, Algorithm] = get_default_algorithms()


def rsa_key(name: str = "one", bits: int = 2048) -> rsa.RSAPrivateKey:
    """A private key by name, made once."""
    return _rsa_key(name, bits)


@cache
def _rsa_key(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """A private key by curve, made once."""
    return _ec_key(curve)


@cache
def _ec_key(curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    """The public half as PEM text."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def jwk(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    name = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    algorithm = next((each for kind, each in name.items() if isinstance(key, kind)), "EdDSA")
    made: dict[str, Any] = dict(ALGORITHMS[algorithm].to_jwk(key.public_key(), as_dict=True))
    made.pop("key_ops", None)
    return {**made, **({} if kid is None else {"kid": kid}), **more}


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def as_json(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def forged(header: object, claims: object, key: Any = None, algorithm: str = "RS256") -> bytes:
    """A token of any header and claims, given as JSON values or as bytes, signed whatever they say."""
    signed = encoded(as_json(header)) + b"." + encoded(as_json(claims))
    return signed + b"." + encoded(ALGORITHMS[algorithm].sign(signed, rsa_key() if key is None else key))


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of an honest token, some changed, and none where None is given."""
    honest = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 600}
    return {name: value for name, value in {**honest, **changed}.items() if value is not None}


def token(key: Any = None, algorithm: str = "RS256", kid: str | None = None, **changed: Any) -> bytes:
    """An honest token, some of its claims changed."""
    headers = {} if kid is None else {"kid": kid}
    key = rsa_key() if key is None else key
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers=headers).encode()


class Reply:
    """An upstream's answer, in chunks."""

    def __init__(self, body: bytes | list[bytes], status: int = 200, headers: RawHeaders | None = None) -> None:
        self.status = status
        self.headers: RawHeaders = headers or []
        self.chunks = [body] if isinstance(body, bytes) else list(body)
        self.closed = False
        self.read = 0

    def __aiter__(self) -> "Reply":
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.chunks:
            raise StopAsyncIteration
        self.read += len(self.chunks[0])
        return self.chunks.pop(0)

    async def aclose(self) -> None:
        self.closed = True


Answering = Callable[[UpstreamRequest], Awaitable[Reply]]


class Published:
    """A transport behind which an issuer publishes its keys; ``behave`` takes another answer in their place."""

    def __init__(self, *keys: Mapping[str, Any], headers: RawHeaders | None = None) -> None:
        self.keys: list[Any] = list(keys)
        self.headers = headers
        self.asked: list[UpstreamRequest] = []
        self.replies: list[Reply] = []
        self._behave: Answering | None = None

    def behave(self, answer: Answering | None) -> None:
        self._behave = answer

    async def send(self, request: UpstreamRequest) -> Reply:
        self.asked.append(request)
        await anyio.lowlevel.checkpoint()
        if self._behave is not None:
            reply = await self._behave(request)
        else:
            reply = Reply(as_json({"keys": self.keys}), headers=self.headers)
        self.replies.append(reply)
        return reply

    async def aclose(self) -> None:
        """Nothing is open."""


def answering(*given: Any, **more: Any) -> Answering:
    """Always this reply."""

    async def answer(request: UpstreamRequest) -> Reply:
        return Reply(*given, **more)

    return answer


async def down(request: UpstreamRequest) -> Reply:
    """Nobody is there."""
    raise ConnectFailed("no route to the issuer\r\nFORGED log line")


async def silent(request: UpstreamRequest) -> Reply:
    """The connection stands and nothing comes."""
    await anyio.sleep_forever()
    raise AssertionError


class Held:
    """An issuer that answers when it is let."""

    def __init__(self, published: Published) -> None:
        self.asked = anyio.Event()
        self.let = anyio.Event()
        self._published = published

    async def __call__(self, request: UpstreamRequest) -> Reply:
        self.asked.set()
        await self.let.wait()
        return Reply(as_json({"keys": self._published.keys}))
