"""Whether a client's certificate is good: its chain to an authority, its time, its purpose (RFC 5280 §6)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apim_middleware._certificates.identities import Holder
from apim_middleware._http.certificate_fields import from_pem

_DEPTH = 5
_FOR_CLIENTS = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


class BadCertificate(ValueError):
    """This certificate is not good, and why."""


def load(der: bytes) -> x509.Certificate:
    """A certificate that can be read. Raises BadCertificate."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.extensions, certificate.public_key()  # what is read when it is asked for
    except (
        ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType
    ):  # fmt: skip
        raise BadCertificate("it cannot be read") from None
    return certificate


class Authorities:
    """The certificate authorities whose word on clients counts."""

    def __init__(self, pem: str) -> None:
        """Read their certificates. ValueError when there is none."""
        from cryptography.x509 import verification

        self.certificates = [load(der) for der in from_pem(pem)]
        store = verification.Store(self.certificates)
        # Certificates of clients need not name a host; their purpose is looked at below.
        policies: dict[str, Any] = {
            "ca_policy": verification.ExtensionPolicy.webpki_defaults_ca(),
            "ee_policy": verification.ExtensionPolicy.permit_all(),
        }
        self._builder = verification.PolicyBuilder().store(store).max_chain_depth(_DEPTH).extension_policies(**policies)
        self._failure = verification.VerificationError

    def chain(
        self, certificate: x509.Certificate, others: Sequence[x509.Certificate], now: float
    ) -> list[x509.Certificate]:
        """The chain from a certificate to one of these, over the others that came along. Raises BadCertificate."""
        verifier = self._builder.time(datetime.fromtimestamp(now, UTC)).build_client_verifier()
        try:
            return verifier.verify(certificate, list(others)).chain
        except self._failure:
            raise BadCertificate("no authority that is trusted here vouches for it") from None


def check_time(certificate: x509.Certificate, now: float) -> None:
    """Whether it counts now. Raises BadCertificate."""
    if now < certificate.not_valid_before_utc.timestamp():
        raise BadCertificate("it does not count yet")
    if now > certificate.not_valid_after_utc.timestamp():
        raise BadCertificate("it has expired")


def check_purpose(certificate: x509.Certificate) -> None:
    """Whether it is for clients, as far as it says what it is for (RFC 5280 §4.2.1.12). Raises BadCertificate."""
    extensions = certificate.extensions
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if _FOR_CLIENTS.isdisjoint(purposes):
            raise BadCertificate("it is not for clients")
    except x509.ExtensionNotFound:
        pass
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise BadCertificate("it is an authority's own")
    except x509.ExtensionNotFound:
        pass


def holder_of(certificate: x509.Certificate) -> Holder:
    """Who a certificate says the client is."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return Holder(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        common_names=tuple(str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)),
        dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        emails=tuple(names.get_values_for_type(x509.RFC822Name)),
        thumbprint=certificate.fingerprint(SHA256()).hex(),
        serial_number=f"{certificate.serial_number:x}",
    )
