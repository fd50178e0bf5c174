"""The gate of ``ClientCertificate``: finds the certificate that was shown, and judges it."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cryptography import x509

from apim_middleware._certificates.checks import Authorities, BadCertificate, check_purpose, check_time, holder_of, load
from apim_middleware._certificates.identities import CertificateIdentity, Holder, SubjectName
from apim_middleware._certificates.revocation import RevocationLists
from apim_middleware._http.certificate_fields import from_chain, from_header, from_tls
from apim_middleware._http.client_certificate import KEY
from apim_middleware._http.forwarded import Trust
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange

log = logging.getLogger("apim_middleware.certificate")

_CHAIN = b"client-cert-chain"
_MOST = 8  # certificates that come along
_LONGEST = 32 << 10  # bytes of a certificate and those that come with it
_REMEMBERED = 1024
_REMEMBERED_FOR = 300.0  # seconds, for those in between may expire too


class Showing:
    """Where a certificate is shown: in the TLS connection, or in a header by somebody trusted."""

    def __init__(self, header: bytes, trust: Trust, *, vouched: bool) -> None:
        """Look into a header by its lower-case name; without one, into the connection.

        ``vouched``: what the server says of the certificate of a connection is all that is known of its chain.
        """
        self._header, self._trust, self._vouched = header, trust, vouched

    def chain(self, exchange: Exchange) -> list[bytes] | None:
        """The certificate that was shown, and those that came along."""
        if not self._header:
            tls = (exchange.scope.get("extensions") or {}).get("tls") or {}
            if self._vouched and tls.get("client_cert_error"):
                raise BadCertificate("the server could not verify it")
            shown = tls.get("client_cert_chain")
            return (from_tls(shown) or None) if shown else None
        values = self._values(exchange)
        others = exchange.take_header(_CHAIN) if self._header == b"client-cert" else []
        if not values or not values[0].strip() or not self._trust.peer(exchange.scope).trusted:
            return None
        if len(values) > 1:
            raise BadCertificate("several headers tell of one")
        return [*from_header(self._header, values[0]), *(from_chain(b", ".join(others)) if others else [])]

    def _values(self, exchange: Exchange) -> list[bytes]:
        """What the header says, which goes no further; hygiene has set aside those called X-Forwarded already."""
        if self._header.startswith(b"x-forwarded"):
            return [value for name, value in exchange.forwarded if name == self._header]
        return exchange.take_header(self._header)


class Shown(NamedTuple):
    """A certificate that was good when it was looked at."""

    chain: Sequence[x509.Certificate]
    holder: Holder
    until: float


class Gate:
    """Lets in who has shown a good certificate, with a memory of those that were good."""

    def __init__(
        self,
        showing: Showing,
        authorities: Authorities | None,
        revocations: RevocationLists | None,
        identities: Sequence[CertificateIdentity],
        subject: SubjectName,
        now: Callable[[], float],
        *,
        optional: bool,
    ) -> None:
        """What the fields of ``ClientCertificate`` say."""
        self._showing, self._authorities, self._revocations = showing, authorities, revocations
        self._identities, self._subject, self._now, self._optional = identities, subject, now, optional
        self._known: OrderedDict[bytes, Shown] = OrderedDict()

    def on_request(self, exchange: Exchange) -> None:
        """Judge the certificate of a request."""
        try:
            chain = self._showing.chain(exchange)
            shown = None if chain is None else self._checked(chain)
        except (BadCertificate, ValueError) as error:
            reason = error if isinstance(error, BadCertificate) else "it cannot be read"
            raise Refusal(403, "certificate-invalid", f"The client certificate is not good: {reason}.") from None
        if shown is None or chain is None:
            exchange.scope[KEY] = None
            if not self._optional:
                raise Refusal(403, "certificate-missing", "A client certificate is required.")
            return
        self._check_revocation(shown.chain)
        self._admit(exchange, shown.holder)
        exchange.scope[KEY] = chain[0]

    def _checked(self, chain: Sequence[bytes]) -> Shown:
        """What was found out about a certificate counts for a while, but for its own time. Raises BadCertificate."""
        if len(chain) > _MOST or sum(map(len, chain)) > _LONGEST:
            raise BadCertificate("too much came with it")
        mark = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in chain)).digest()
        shown, now = self._known.get(mark), self._now()
        if shown is None or now >= shown.until:
            shown = self._known[mark] = self._found_good(chain, now)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        check_time(shown.chain[0], now)
        return shown

    def _found_good(self, chain: Sequence[bytes], now: float) -> Shown:
        certificates = [*map(load, chain)]
        certificate, *others = certificates
        check_time(certificate, now)
        check_purpose(certificate)
        if self._authorities is not None:
            certificates = self._authorities.chain(certificate, others, now)
        return Shown(certificates, holder_of(certificate), now + _REMEMBERED_FOR)

    def _check_revocation(self, chain: Sequence[x509.Certificate]) -> None:
        """Neither the certificate may have been taken back, nor any in between."""
        lists = self._revocations
        if lists is None:
            return
        for certificate in chain:
            if not lists.is_current(certificate, self._now()):
                log.error("the revocation list of %s is out of date", certificate.issuer.rfc4514_string())
                raise Refusal(503, "revocation-unknown", "Client certificates cannot be checked at the moment.")
            if lists.holds(certificate):
                raise Refusal(403, "certificate-revoked", "The client certificate was revoked.")

    def _admit(self, exchange: Exchange, holder: Holder) -> None:
        identities = self._identities
        principal = holder.principal(self._subject)
        if principal is None or (identities and not any(each.fits(holder) for each in identities)):
            raise Refusal(403, "certificate-not-allowed", "This client may not come in.")
        exchange.principal = principal
