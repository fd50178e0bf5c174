"""Messages signed with a shared secret, as webhooks are."""

import base64
import hashlib
import hmac
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

from apim_middleware._config import several
from apim_middleware._http.headers import is_token
from apim_middleware._signing.bodies import CheckedBody
from apim_middleware._signing.once import Once, check_once
from apim_middleware._telemetry.masking import withhold
from apim_middleware._unseen_reads import check_read
from apim_middleware.documentation import Answer, Documentation, api_key, challenged
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp

ISSUER = "urn:apim-middleware:hmac-signature"
"""The issuer of principals who know a shared secret."""

_serial = itertools.count(1)
_MOST = 8  # signatures in one header that are compared
_SHORTEST_SECRET = 16
_piece = re.compile(r"\{(\w+)\}").split
_timestamp = re.compile(r"[0-9]{1,12}").fullmatch
_HOLDS = {
    "body": re.compile(r".*", re.DOTALL),
    "timestamp": re.compile(r"[0-9]*"),
    "method": re.compile(r"[A-Z0-9!#$%&'*+\-.^_`|~]*"),
    "target": re.compile(r"[!-\"$-~]*"),
}
"""What may stand in each part of what is signed, as request hygiene lets it through."""

_DECODE: dict[str, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": lambda text: base64.b64decode(text, validate=True),
}


@dataclass(frozen=True, kw_only=True)
class HMACSignature(Policy):
    """Let in requests whose body is signed with a shared secret, as those of GitHub, Stripe, Slack and Shopify are.

    The sender puts an HMAC of ``signed`` into ``header``. The body is read whole and checked before the app sees it.
    With a timestamp in what is signed, a request counts for ``max_age`` seconds. Comparing takes the same time
    whatever is wrong.

    Refusals: 401 ``signature-missing``, ``signature-invalid``, ``signature-expired`` and ``signature-replayed``; 413
    ``body-too-large``; 503 ``replay-store-unavailable``.
    """

    provides = frozenset({"principal"})
    guards = True

    secrets: bytes | tuple[bytes, ...] = field(repr=False)
    """The secret, of at least 16 bytes; in a tuple two, while one takes the place of the other."""

    header: str = "x-signature"
    """The header with the signature."""

    prefix: str = ""
    """What stands in front of the signature, such as ``sha256=``."""

    parameter: str = ""
    """Where the header holds pairs, as ``t=1700000000,v1=5257a8``: the name of those that are signatures (``v1``)."""

    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written."""

    hash: Literal["sha256", "sha384", "sha512"] = "sha256"
    """The hash function of the HMAC (RFC 2104)."""

    signed: str = "{body}"
    """What is signed: a text with ``{body}`` in it, and where wanted ``{timestamp}``, ``{method}`` and ``{target}``
    (path and query as they were sent), with something between any two of them that cannot stand in them: a line feed
    or a blank beside method and target, a full stop beside a timestamp."""

    timestamp_header: str = ""
    """The header with the time of signing, in seconds since 1970."""

    timestamp_parameter: str = ""
    """The name of the pair with that time, where the header of the signature holds pairs (``t``)."""

    max_age: float = 300.0
    """Seconds by which the timestamp may differ from now, either way."""

    once: bool = False
    """Whether what is signed is accepted once only while its timestamp counts: by this process, or with the counters
    of Redis or SQLite by all."""

    max_body_bytes: int = 1 << 20
    """Bytes a body may have; it is held in memory while it is checked. Default: 1 MiB."""

    subject: str = "webhook"
    """Whom a good signature is of: the subject of ``exchange.principal``."""

    optional: bool = False
    """Whether a request without a signature goes on, without a principal; one with a bad one never does."""

    @stated
    def documentation(self) -> Documentation:
        """A signature in its header."""
        scheme = api_key("HMACSignature", "header", self.header, "An HMAC of the request (RFC 2104).")
        timed = self.timestamp_header or self.timestamp_parameter
        codes = ("signature-invalid", *(("signature-expired",) if timed else ()))
        codes = (*codes, *(("signature-replayed",) if self.once else ()))
        answers = [
            challenged(401, *(() if self.optional else ("signature-missing",)), *codes),
            Answer(413, ("body-too-large",)),
        ]
        if self.once:
            answers.append(Answer(503, ("replay-store-unavailable",)))
        found = Documentation(security=((scheme,),), answers=tuple(answers))
        return found.optional() if self.optional else found

    def __post_init__(self) -> None:
        """There must be a secret, the body must be signed, and a timestamp come from one place."""
        if min(map(len, several(self.secrets)), default=0) < _SHORTEST_SECRET:
            raise self.mistake("secrets", "holds no secret, or one shorter than 16 bytes", "Give b'...'")
        for name in ("header", "timestamp_header"):
            value = getattr(self, name)
            if not is_token(value.encode("latin-1", "replace")) and (value or name == "header"):
                raise self.mistake(name, "is no name of a header", 'Write header="x-signature"')
        self._check_signed()
        withhold("header", self.header)
        if not 0 < self.max_age < math.inf:
            raise self.mistake("max_age", "is no time", "Give seconds")
        if self.max_body_bytes < 1:
            raise self.mistake("max_body_bytes", "leaves no room for a body", "Give a number of bytes")

    def _check_signed(self) -> None:
        pieces = _piece(self.signed)
        places = pieces[1::2]
        if places.count("body") != 1 or not _HOLDS.keys() >= set(places):
            cure = 'Write {body} once, and at most {timestamp}, {method} and {target} besides, as "{timestamp}.{body}"'
            raise self.mistake("signed", "does not say what is signed", cure)
        if (blurred := _blurred(places, pieces[2:-1:2])) is not None:
            cure = (
                f"Put between {{{blurred}}} and its neighbour what cannot stand in it, "
                r'as in "{timestamp}.{body}" or "{timestamp}\n{target}\n{body}"'
            )
            raise self.mistake("signed", "does not tell where one part of it ends and the next begins", cure)
        sources = [each for each in (self.timestamp_header, self.timestamp_parameter) if each]
        if len(sources) != ("timestamp" in places):
            cure = (
                "Say in timestamp_header or timestamp_parameter where {timestamp} comes from, or leave out all of them"
            )
            raise self.mistake("signed", "does not fit where its timestamp comes from", cure)
        if self.timestamp_parameter and not self.parameter:
            raise self.mistake("timestamp_parameter", "needs a header of pairs", 'Write parameter="v1" too')
        if self.once and not sources:
            cure = "Sign a timestamp, for nothing can be remembered for ever"
            raise self.mistake("once", "needs to know until when a signature counts", cure)

    def bind(self, env: Env) -> "_Gate":
        """The gate."""
        check_read(self, "header", self.header, env)
        if self.timestamp_header:
            check_read(self, "timestamp_header", self.timestamp_header, env)
        return _Gate(self, env)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy, and behind it where bodies are checked."""
        if self.once:
            check_once(self, env)
        gate = env.bind(self)
        return ring(self, gate, CheckedBody(app, gate.body, self.max_body_bytes), env)


def _blurred(places: list[str], between: list[str]) -> str | None:
    """A part whose end nobody can tell, so that one signature would be good for several ways to cut what it signs.

    What stands before the body is told apart from the left, and what stands behind it from the right: by a character
    between two parts that the outer one cannot hold.
    """
    outer = [each for each in places if each != "body"]
    return next((part for part, text in zip(outer, between, strict=True) if _HOLDS[part].fullmatch(text)), None)


class _Claim(NamedTuple):
    """What a request says: signatures one of which is to be good, and when they were made."""

    signatures: list[bytes]
    timestamp: str | None


class _Gate:
    def __init__(self, policy: HMACSignature, env: Env) -> None:
        self.body = f"apim_middleware.signed_body.{next(_serial)}"
        self._policy, self._now = policy, env.clock.now
        self._header = policy.header.lower().encode()
        self._timestamp_header = policy.timestamp_header.lower().encode()
        self._pieces = _piece(policy.signed)
        self._secrets = several(policy.secrets)
        self._principal = Principal(subject=policy.subject, issuer=ISSUER)
        self._once = Once(env, 2 * policy.max_age) if policy.once else None

    def on_request(self, exchange: Exchange) -> None:
        lines = exchange.headers(self._header)
        if not lines:
            if not self._policy.optional:
                raise _refusal("signature-missing", "The request is not signed.")
            return
        claim = self._claim(exchange, lines)
        if claim.timestamp is not None and abs(self._now() - int(claim.timestamp)) > self._policy.max_age:
            raise _refusal("signature-expired", "The signature is too old, or of the future.")
        exchange.scope[self.body] = partial(self._check, exchange, claim)

    def _claim(self, exchange: Exchange, lines: list[bytes]) -> _Claim:
        policy = self._policy
        try:
            (text,) = lines  # several could be read differently by the app
            pairs = _pairs(text.decode("ascii"))
            written = pairs.get(policy.parameter, []) if policy.parameter else [text.decode("ascii").strip()]
            times = pairs.get(policy.timestamp_parameter, []) if policy.timestamp_parameter else self._times(exchange)
            (timestamp,) = times if "timestamp" in self._pieces[1::2] else [None]
            found = [_DECODE[policy.encoding](_without(each, policy.prefix)) for each in written[:_MOST]]
        except ValueError:
            raise _invalid() from None
        if not found or (timestamp is not None and _timestamp(timestamp) is None):
            raise _invalid()
        return _Claim(found, timestamp)

    def _times(self, exchange: Exchange) -> list[str]:
        return [line.decode("ascii").strip() for line in exchange.headers(self._timestamp_header)]

    async def _check(self, exchange: Exchange, claim: _Claim, body: bytes) -> None:
        text = self._text(exchange, claim.timestamp, body)
        wanted = [hmac.digest(secret, text, self._policy.hash) for secret in self._secrets]
        good = [one for one in claim.signatures for each in wanted if hmac.compare_digest(one, each)]
        if not good:
            raise _invalid()
        # What was signed is used, whichever of its signatures came along: with two secrets it has two.
        if self._once is not None and not await self._once.first(hashlib.sha256(text).hexdigest()):
            raise _refusal("signature-replayed", "The signature was used before.")
        exchange.principal = self._principal

    def _text(self, exchange: Exchange, timestamp: str | None, body: bytes) -> bytes:
        values = {"body": body, "timestamp": (timestamp or "").encode(), "method": exchange.method.encode()}
        pieces = [each.encode() for each in self._pieces]
        if "target" in self._pieces[1::2]:
            values["target"] = _target(exchange)
        pieces[1::2] = [values[name] for name in self._pieces[1::2]]
        return b"".join(pieces)


def _pairs(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in text.split(","):
        name, _, value = pair.strip().partition("=")
        found.setdefault(name, []).append(value)
    return found


def _without(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise ValueError("no such prefix")
    return text[len(prefix) :]


def _target(exchange: Exchange) -> bytes:
    raw: bytes = exchange.scope.get("raw_path") or exchange.path.encode()
    query: bytes = exchange.scope.get("query_string", b"")
    return raw.partition(b"?")[0] + (b"?" + query if query else b"")


def _invalid() -> Refusal:
    return _refusal("signature-invalid", "The signature is not good.")


def _refusal(code: str, detail: str) -> Refusal:
    return Refusal(401, code, detail, headers={"www-authenticate": "HMAC"})
