"""Certificates that were taken back: revocation lists (RFC 5280 §5)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

    from apim_middleware._certificates.lists import Lists


class RevocationLists:
    """Revocation lists that are looked into on every request, and can be replaced while requests are served.

    A list counts for certificates of its own issuer, until the next one is due: from then on nobody whose certificate
    is by that issuer comes in, for nobody knows any more.
    """

    def __init__(self, *lists: str) -> None:
        """Read lists in PEM; a text may hold several. Raises ConfigError."""
        self._signers: list[x509.Certificate] = []
        self._lists = self._read(lists)

    def __repr__(self) -> str:
        """How many there are, for each may be long."""
        return f"RevocationLists(<{len(self._lists)} lists>)"

    def replace(self, *lists: str) -> None:
        """Go by these lists from now on, all of them, or raise ConfigError and go by the old ones."""
        self._lists = self._read(lists)

    def trust(self, authorities: "Sequence[x509.Certificate]") -> None:
        """Have every list signed by one of these, now and when they are replaced. Raises ConfigError."""
        from apim_middleware._certificates.lists import check_signers

        check_signers(self._lists, authorities)
        self._signers = [*authorities]

    def _read(self, texts: Sequence[str]) -> "Lists":
        from apim_middleware._certificates.lists import check_signers, read  # a large library, for who needs it

        found = read(texts)
        if self._signers:
            check_signers(found, self._signers)
        return found

    def is_current(self, certificate: "x509.Certificate", now: float) -> bool:
        """Whether it is known of this certificate: its issuer has no list, or one that is not out of date."""
        crl = self._lists.get(certificate.issuer)
        due = None if crl is None else crl.next_update_utc
        return due is None or now <= due.timestamp()

    def holds(self, certificate: "x509.Certificate") -> bool:
        """Whether this certificate was revoked."""
        crl = self._lists.get(certificate.issuer)
        return crl is not None and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
