"""Tokens that only their owner may use: bound to a key (RFC 9449) or to a client certificate (RFC 8705)."""

import hmac
from collections.abc import Mapping
from typing import NamedTuple

from apim_middleware._http.client_certificate import certificate, thumbprint
from apim_middleware._jose.places import comes_with_dpop
from apim_middleware._jose.proofs import ProofCheck
from apim_middleware._jose.rules import Claims
from apim_middleware._jose.tokens import BadToken
from apim_middleware.exchange import Exchange

_KEY, _CERTIFICATE = "jkt", "x5t#S256"


class Confirmation(NamedTuple):
    """What a token is bound to: the thumbprint of a key, of a certificate, or of both."""

    jkt: str | None
    x5t: str | None


def confirmation(claims: Claims) -> Confirmation | None:
    """What a token is bound to (RFC 7800 §3.1), if to anything. Raises BadToken for what cannot be checked here."""
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if not isinstance(cnf, Mapping) or not cnf or not cnf.keys() <= {_KEY, _CERTIFICATE}:
        raise BadToken("binding", "cnf")
    if not all(isinstance(each, str) and each.isascii() for each in cnf.values()):
        raise BadToken("binding", "cnf")
    return Confirmation(cnf.get(_KEY), cnf.get(_CERTIFICATE))


def check_certificate(exchange: Exchange, bound: Confirmation | None) -> None:
    """A token bound to a certificate comes over a connection with that one. Raises BadToken."""
    if bound is None or bound.x5t is None:
        return
    der = certificate(exchange.scope)
    if der is None or not hmac.compare_digest(thumbprint(der), bound.x5t):
        raise BadToken("binding", "certificate")


def check_plainly(exchange: Exchange, claims: Claims) -> None:
    """A bound token comes as it must where no proofs are understood: one bound to a key never does. Raises BadToken."""
    bound = confirmation(claims)
    if bound is not None and bound.jkt is not None:
        raise BadToken("binding", "key")
    check_certificate(exchange, bound)


class Possession:
    """Where proofs are understood: whether a caller may use the token it sent."""

    def __init__(self, proofs: ProofCheck, *, required: bool) -> None:
        """``required`` says that tokens bound to no key are refused."""
        self._proofs = proofs
        self._required = required

    def wanted(self, exchange: Exchange) -> bool:
        """Whether a token that is bound to no key is not enough for this request."""
        return self._required or comes_with_dpop(exchange)

    async def check(self, exchange: Exchange, token: bytes, claims: Claims) -> None:
        """Scheme and binding agree, and the proof is there. Raises BadToken, BadProof, NonceNeeded, StoreError."""
        bound = confirmation(claims)
        check_certificate(exchange, bound)
        jkt = None if bound is None else bound.jkt
        promised = comes_with_dpop(exchange)
        if promised != (jkt is not None) or (jkt is None and self._required):
            raise BadToken("binding", "scheme")
        if jkt is not None:
            await self._proofs.check(exchange, token, jkt)
