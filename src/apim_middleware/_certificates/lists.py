"""Revocation lists as they are read, and whose they are."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from apim_middleware.errors import ConfigError

Lists: TypeAlias = dict[x509.Name, x509.CertificateRevocationList]
"""Revocation lists by their issuers."""

_PEM = re.compile(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_PARTIAL = (x509.DeltaCRLIndicator, x509.IssuingDistributionPoint)


def read(lists: Iterable[str]) -> Lists:
    """The lists in these texts, by their issuers. Raises ConfigError."""
    found: Lists = {}
    for text in lists:
        blocks = _PEM.findall(text)
        if not blocks:
            raise _mistake("is no PEM text of a revocation list")
        for block in blocks:
            try:
                crl = x509.load_pem_x509_crl(block.encode())
            except ValueError:
                raise _mistake("cannot be read") from None
            if crl.issuer in found:
                raise _mistake("is the second of one issuer")
            if any(isinstance(each.value, _PARTIAL) for each in crl.extensions):
                raise _mistake("is only a part of what was revoked")
            found[crl.issuer] = crl
    return found


def check_signers(lists: Lists, authorities: Sequence[x509.Certificate]) -> None:
    """Every list must be signed by one of these. Raises ConfigError."""
    for issuer, crl in lists.items():
        if not any(_signed_by(crl, each) for each in authorities if each.subject == issuer):
            raise _mistake(f"is not signed by its issuer, {issuer.rfc4514_string()}, as an authority trusted here")


def _mistake(problem: str) -> ConfigError:
    cure = "Give one whole list for each issuer, in PEM"
    return ConfigError("RevocationLists", "lists", f"one of them {problem}", cure)


def _signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False
