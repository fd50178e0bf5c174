"""The refusals of those who check tokens, each with its challenges (RFC 6750 §3, RFC 9449 §7.1)."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from apim_middleware._jose.proofs import BadProof, NonceNeeded
from apim_middleware._jose.tokens import BadToken
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.types import RawHeaders

log = logging.getLogger("apim_middleware.jwt")

SOON = 1.0
"""Seconds after which what could not be asked may be asked again."""


class Refusals:
    """What a caller is told: what to bring, and never what was wrong with what was brought."""

    def __init__(
        self, realm: str, scopes: tuple[str, ...], proofs: tuple[str, ...] = (), *, bearer: bool = True
    ) -> None:
        """``proofs`` are the algorithms of DPoP proofs; without ``bearer`` nothing else counts."""
        self._bearer = f'Bearer realm="{realm}"' if bearer else ""
        self._dpop = f'DPoP realm="{realm}", algs="{" ".join(proofs)}"' if proofs else ""
        self._scope = f', scope="{" ".join(scopes)}"' if scopes else ""

    def refuse(self, exchange: Exchange, bad: BadToken) -> NoReturn:
        """Say that a token lets nobody in, and why to the log and the attribute alone. Raises Refusal."""
        log.debug("a token was refused: %s %s", bad.reason, ascii(bad.detail[:80]))
        exchange.attributes["apim.jwt.failure"] = bad.reason
        raise self.invalid() from None

    def missing(self) -> Refusal:
        """The refusal of a request without a token."""
        return Refusal(401, "token-missing", "A bearer token is required.", headers=self._both(self._scope))

    def invalid(self) -> Refusal:
        """The refusal of a token that lets nobody in."""
        detail = "The bearer token is not valid."
        return Refusal(401, "token-invalid", detail, headers=self._both(_error("invalid_token", detail)))

    def ambiguous(self) -> Refusal:
        """The refusal of a request with several tokens."""
        detail = "Send exactly one bearer token."
        return Refusal(400, "token-ambiguous", detail, headers=self._both(_error("invalid_request", detail)))

    def insufficient(self) -> Refusal:
        """The caller lacks a scope."""
        detail = "The bearer token does not grant what this needs."
        more = _error("insufficient_scope", detail) + self._scope
        return Refusal(403, "insufficient-scope", detail, headers=self._both(more))

    def forbidden(self) -> Refusal:
        """The caller lacks something no scope would give."""
        return Refusal(403, "forbidden", "This caller may not do this.")

    def proof_invalid(self) -> Refusal:
        """The proof that goes with the token proves nothing."""
        detail = "The DPoP proof is not valid."
        headers = _lines(self._dpop + _error("invalid_dpop_proof", detail))
        return Refusal(401, "dpop-proof-invalid", detail, headers=headers)

    def nonce_needed(self, nonce: str) -> Refusal:
        """The proof must hold this nonce (RFC 9449 §9)."""
        detail = "The DPoP proof must hold the nonce that goes with this answer."
        headers = [*_lines(self._dpop + _error("use_dpop_nonce", detail)), (b"dpop-nonce", nonce.encode())]
        return Refusal(401, "dpop-nonce-required", detail, headers=headers)

    def unavailable(self, code: str, retry_after: float) -> Refusal:
        """Nobody can say at the moment."""
        headers = {"retry-after": str(max(1, math.ceil(retry_after)))}
        return Refusal(503, code, "Tokens cannot be verified at the moment.", headers=headers)

    def _both(self, more: str) -> RawHeaders:
        return _lines(*(each + more for each in (self._bearer, self._dpop) if each))


def _error(code: str, description: str) -> str:
    return f', error="{code}", error_description="{description}"'


def _lines(*challenges: str) -> RawHeaders:
    return [(b"www-authenticate", each.encode()) for each in challenges]


@contextmanager
def proofs_refused(exchange: Exchange, refusals: Refusals) -> Iterator[None]:
    """Where what is wrong with a proof becomes a refusal."""
    try:
        yield
    except BadProof as bad:
        log.debug("a proof was refused: %s", ascii(str(bad))[:80])
        exchange.attributes["apim.jwt.failure"] = "proof"
        raise refusals.proof_invalid() from None
    except NonceNeeded as needed:
        raise refusals.nonce_needed(needed.nonce) from None
    except StoreError:
        raise refusals.unavailable("proofs-unavailable", SOON) from None
