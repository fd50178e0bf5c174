"""HTTP message signatures (RFC 9421): who signed this request, and whether it is still what was signed."""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import Any

from apim_middleware._config import several
from apim_middleware._http.challenges import is_quotable
from apim_middleware._http.digests import WANTED, digest_matches, parse_digests
from apim_middleware._http.fields import item
from apim_middleware._http.headers import is_token
from apim_middleware._http.signatures import COMPONENTS, BadSignature, Signature, base, signatures
from apim_middleware._signing.bodies import CheckedBody
from apim_middleware._signing.keys import KeySource, SignatureKey
from apim_middleware._signing.once import Once, check_once
from apim_middleware._unseen_reads import check_read
from apim_middleware.documentation import Answer, Documentation, api_key
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.stores.outage import Outage
from apim_middleware.types import ASGIApp

log = logging.getLogger("apim_middleware.signature")

_serial = itertools.count(1)
_MOST = 4  # signatures of one request that are looked at
_LONGEST = 256  # characters of a key id and of a nonce


@dataclass(frozen=True, kw_only=True)
class HTTPSignature(Policy):
    """Let in requests that somebody known has signed, and that are still as they were signed (RFC 9421).

    One of up to four signatures must be good: by a known key, over everything in ``covered``, made within ``max_age``.
    A request with a body must have a ``Content-Digest`` (RFC 9530) that is covered too; the body is read whole and
    compared before the app sees it. Whose key it is becomes ``exchange.principal``.

    What is judged is the request as it came in behind ``TrustedProxies``: put policies that rewrite it behind this one.
    Covered are fields (also ``bs``, and of dictionaries ``sf`` and ``key``), ``@method``, ``@target-uri``,
    ``@authority``, ``@scheme``, ``@request-target``, ``@path``, ``@query`` and ``@query-param``.

    Refusals: 401 ``signature-missing``, ``signature-invalid``, ``signature-expired`` and ``signature-replayed``, which
    tell in ``Accept-Signature`` what is wanted; 400 ``digest-mismatch``; 413 ``body-too-large``; 503
    ``key-store-unavailable`` and ``replay-store-unavailable``.
    """

    provides = frozenset({"principal"})
    guards = True

    keys: KeySource = field(repr=False)
    """The key of who may come in, several in a tuple, or a function (async or not) that finds it by its ``keyid``."""

    covered: tuple[str, ...] = ("@method", "@authority", "@path", "@query")
    """What every signature must cover: names of fields in lower case, and ``@`` components. ``@target-uri`` covers
    scheme, authority, path and query too."""

    content_digest: bool = True
    """Whether a request with a body must cover ``content-digest``, and the body be what it says."""

    max_body_bytes: int = 1 << 20
    """Bytes a body may have that is compared with its digest; it is held in memory meanwhile. Default: 1 MiB."""

    max_age: float = 300.0
    """Seconds for which a signature counts from the ``created`` it must have, also where its ``expires`` is later."""

    leeway: float = 5.0
    """Seconds by which clocks may differ."""

    once: bool = False
    """Whether a signature must have a ``nonce``, which its key may use once: in this process, or with the counters of
    Redis or SQLite in all."""

    tag: str = ""
    """The ``tag`` of the signatures meant for this application; others are passed over. Default: whatever tag."""

    realm: str = "api"
    """The ``realm`` of the challenge."""

    optional: bool = False
    """Whether a request without a signature goes on, without a principal; one with bad ones never does."""

    @stated
    def documentation(self) -> Documentation:
        """A signature, and the digest of the body."""
        scheme = api_key("HTTPSignature", "header", "Signature", "A signature of the request (RFC 9421).")
        codes = ("signature-invalid", "signature-expired", *(("signature-replayed",) if self.once else ()))
        codes = codes if self.optional else ("signature-missing", *codes)
        down = ("key-store-unavailable",) if callable(self.keys) else ()
        answers = [Answer(401, codes, ("accept-signature", "www-authenticate"))]
        if self.content_digest:
            answers += [Answer(400, ("digest-mismatch",), ("want-content-digest",)), Answer(413, ("body-too-large",))]
        if down := (*down, *(("replay-store-unavailable",) if self.once else ())):
            answers.append(Answer(503, down))
        found = Documentation(security=((scheme,),), answers=tuple(answers))
        return found.optional() if self.optional else found

    def __post_init__(self) -> None:
        """Something must be covered by known names, for a time, and the keys must differ."""
        self._check_covered()
        if not callable(self.keys):
            ids = [key.id for key in several(self.keys)]
            if not ids or len(set(ids)) < len(ids):
                raise self.mistake(
                    "keys", "holds no key, or two of one id", "Give each signer a key with an id of its own"
                )
        for name in ("max_age", "leeway"):
            if not 0 <= getattr(self, name) < math.inf or (name == "max_age" and not self.max_age):
                raise self.mistake(name, "is no time", "Give seconds")
        if self.max_body_bytes < 1:
            raise self.mistake("max_body_bytes", "leaves no room for a body", "Give a number of bytes")
        if not is_quotable(self.realm) or not is_quotable(self.tag or "any"):
            name = "tag" if is_quotable(self.realm) else "realm"
            raise self.mistake(name, "cannot stand in a field", "Use printable ASCII without quotes and backslashes")

    def _check_covered(self) -> None:
        if not self.covered:
            raise self.mistake("covered", "covers nothing", 'Name at least "@method" and "@target-uri"')
        for name in self.covered:
            known = name in COMPONENTS or (is_token(name.encode("latin-1", "replace")) and name == name.lower())
            if not known or name == "signature-params":
                cure = f"Give lower-case names of fields, or of {', '.join(sorted(COMPONENTS))}"
                raise self.mistake("covered", f"holds {name!r}, which cannot be covered", cure)

    def bind(self, env: Env) -> "_Gate":
        """The gate, with its keys by their ids."""
        for name in self.covered:
            if name not in COMPONENTS:
                check_read(self, "covered", name, env)
        return _Gate(self, env)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy, and behind it where bodies are compared with their digests."""
        if self.once:
            check_once(self, env)
        gate = env.bind(self)
        return ring(self, gate, CheckedBody(app, gate.body, self.max_body_bytes), env)


class _Problem(Exception):
    """Why one signature is not good: the code of the refusal, and a sentence."""


class _Gate:
    def __init__(self, policy: HTTPSignature, env: Env) -> None:
        self.body = f"apim_middleware.signed_body.{next(_serial)}"
        self._policy, self._now = policy, env.clock.now
        self._covered = frozenset(policy.covered)
        self._key = policy.keys if callable(policy.keys) else {key.id: key for key in several(policy.keys)}.get
        seconds = policy.max_age + 2 * policy.leeway
        self._once = Once(env, seconds) if policy.once else None
        self._asked_for = _wanted(policy)
        self._outage = Outage(
            log, "the store of signature keys cannot answer", "the store of signature keys answers again"
        )

    async def on_request(self, exchange: Exchange) -> None:
        inputs = exchange.headers(b"signature-input")
        if not inputs:
            if not self._policy.optional:
                raise self._refusal("signature-missing", "The request is not signed.")
            return
        try:
            found = signatures(inputs, exchange.headers(b"signature"))
        except BadSignature as error:
            raise self._refusal("signature-invalid", f"The signature cannot be read: {error}.") from None
        meant = [each for each in found if self._policy.tag in ("", each.parameters.get("tag"))]
        if not meant:
            raise self._refusal("signature-missing", "The request is not signed for this application.")
        key, signature = await self._first_good(exchange, meant)
        if self._policy.content_digest:
            self._expect_body(exchange, signature)
        exchange.principal = key.principal

    async def _first_good(self, exchange: Exchange, found: Sequence[Signature]) -> tuple[SignatureKey, Signature]:
        problem = _Problem("signature-invalid", "The signature is not good.")
        for signature in found[:_MOST]:
            try:
                key = await self._judged(exchange, signature)
                await self._use(signature)
            except BadSignature as error:
                problem = _Problem("signature-invalid", f"The signature is not good: {error}.")
            except _Problem as error:
                problem = error
            else:
                return key, signature
        raise self._refusal(*problem.args)

    async def _judged(self, exchange: Exchange, signature: Signature) -> SignatureKey:
        """Whose signature it is, if it is good: what costs least is looked at first. Raises BadSignature, _Problem."""
        self._check_time(signature)
        missing = sorted(self._covered - signature.covered)
        if missing:
            raise BadSignature(f"it does not cover {', '.join(missing)}")
        text = base(exchange.scope, signature.components)
        key = await self._key_of(signature)
        # An unknown key is told from a wrong signature by nobody but the log.
        if key is None or signature.parameters.get("alg", key.algorithm) != key.algorithm:
            log.info("a signature names a key that is not known here, or another algorithm than the key's")
            raise BadSignature("it is not by a known key")
        if not key.matches(signature.value, text):
            raise BadSignature("it is not by a known key")
        return key

    async def _use(self, signature: Signature) -> None:
        """Note that its nonce was used, if each may be used once. Raises BadSignature, _Problem."""
        if self._once is None:
            return
        nonce, name = signature.parameters.get("nonce"), signature.parameters["keyid"]
        if not isinstance(nonce, str) or not 1 <= len(nonce) <= _LONGEST:
            raise BadSignature("it has no nonce")
        if not await self._once.first(f"{name!r} {nonce}", of=str(name)):
            raise _Problem("signature-replayed", "The nonce of the signature was used before.")

    def _check_time(self, signature: Signature) -> None:
        now, policy = self._now(), self._policy
        created, expires = _seconds(signature, "created"), _seconds(signature, "expires")
        if created is None:
            raise BadSignature("it does not say when it was created")
        if created > now + policy.leeway:
            raise BadSignature("it was created in the future")
        until = created + policy.max_age if expires is None else min(created + policy.max_age, expires)
        if now - policy.leeway > until:
            raise _Problem("signature-expired", "The signature is too old.")

    async def _key_of(self, signature: Signature) -> SignatureKey | None:
        name = signature.parameters.get("keyid")
        if not isinstance(name, str) or len(name) > _LONGEST:
            raise BadSignature("it names no key")
        try:
            key: Any = self._key(name)
            if isawaitable(key):
                key = await key
        except StoreError as error:
            self._outage.begins(error)
            raise Refusal(503, "key-store-unavailable", "Signatures cannot be checked at the moment.") from error
        self._outage.ends()
        if key is not None and not isinstance(key, SignatureKey):
            raise TypeError("a store of signature keys gave back what is no SignatureKey")
        return key

    def _expect_body(self, exchange: Exchange, signature: Signature) -> None:
        """Have the body compared with what was signed of it."""
        if "content-digest" in signature.covered:
            try:
                digests = parse_digests(b", ".join(exchange.headers(b"content-digest")).decode("ascii"))
            except ValueError as error:
                raise self._mismatch(f"Content-Digest cannot be used: {error}.") from None
            exchange.scope[self.body] = partial(self._compare, digests)
        elif (
            exchange.header(b"content-length") not in (None, b"0") or exchange.header(b"transfer-encoding") is not None
        ):
            raise self._refusal("signature-invalid", "The signature does not cover content-digest.")
        else:  # not every server and version of HTTP tells by a header that there is a body
            exchange.scope[self.body] = self._compare_with_nothing

    async def _compare(self, digests: Mapping[str, bytes], body: bytes) -> None:
        if not digest_matches(digests, body):
            raise self._mismatch("The body is not what Content-Digest says.")

    async def _compare_with_nothing(self, body: bytes) -> None:
        if body:
            raise self._refusal("signature-invalid", "The signature does not cover content-digest.")

    def _mismatch(self, detail: str) -> Refusal:
        return Refusal(400, "digest-mismatch", detail, headers={"want-content-digest": WANTED})

    def _refusal(self, code: str, detail: str) -> Refusal:
        return Refusal(401, code, detail, headers=self._asked_for)


def _seconds(signature: Signature, name: str) -> int | None:
    """A time the signer says, in seconds since 1970; None when it says none. Raises BadSignature."""
    value = signature.parameters.get(name)
    if value is not None and type(value) is not int:
        raise BadSignature(f"its {name} is no time")
    return value


def _wanted(policy: HTTPSignature) -> dict[str, str]:
    """What a refused caller is told: a challenge, and which signature is wanted (RFC 9421 §5.1)."""
    names = dict.fromkeys((*policy.covered, *(("content-digest",) if policy.content_digest else ())))
    said = ["created", "keyid", *(["nonce"] if policy.once else [])]
    tag = f";tag={item(policy.tag)}" if policy.tag else ""
    wanted = f"sig=({' '.join(map(item, names))}){''.join(f';{each}' for each in said)}{tag}"
    return {"www-authenticate": f'Signature realm="{policy.realm}"', "accept-signature": wanted}
