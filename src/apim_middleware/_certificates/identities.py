"""Who a certificate says the client is, and which of them may come in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeAlias

from apim_middleware._config import Configured
from apim_middleware.identity import Principal

ISSUER = "urn:apim-middleware:client-certificate:"
"""What the issuer of principals begins with; the issuer of the certificate follows (RFC 4514)."""

SubjectName: TypeAlias = Literal["subject", "common-name", "dns-name", "uri", "email"]

_hex = re.compile(r"[0-9a-f]+").fullmatch


class Holder(NamedTuple):
    """What a certificate says, as text."""

    subject: str
    issuer: str
    common_names: tuple[str, ...]
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    emails: tuple[str, ...]
    thumbprint: str
    serial_number: str

    def principal(self, subject: SubjectName) -> Principal | None:
        """The caller, under the name that is asked for; None when the certificate has not exactly one such name."""
        names: Mapping[SubjectName, tuple[str, ...]] = {
            "subject": (self.subject,) if self.subject else (),
            "common-name": self.common_names,
            "dns-name": self.dns_names,
            "uri": self.uris,
            "email": self.emails,
        }
        if len(names[subject]) != 1:
            return None
        claims: dict[str, Any] = self._asdict()
        return Principal(subject=names[subject][0], issuer=f"{ISSUER}{self.issuer}", claims=claims)


@dataclass(frozen=True, kw_only=True)
class CertificateIdentity(Configured):
    """A client that may come in: a certificate that has everything given here, as an ``identity`` of Azure has."""

    thumbprint: str = ""
    """The SHA-256 of the certificate, in hexadecimal digits, with or without colons."""

    serial_number: str = ""
    """Its serial number, in hexadecimal digits."""

    subject: str = ""
    """Its whole subject as RFC 4514 writes it: ``CN=orders,O=Example``."""

    common_name: str = ""
    """A common name of its subject."""

    dns_name: str = ""
    """One of its DNS names."""

    uri: str = ""
    """One of its URIs, such as a SPIFFE id."""

    email: str = ""
    """One of its mail addresses."""

    issuer: str = ""
    """The whole subject of its issuer as RFC 4514 writes it."""

    def __post_init__(self) -> None:
        """Something must be asked for, in digits that are digits."""
        if not any(getattr(self, each.name) for each in fields(self)):
            raise self.mistake("thumbprint", "and no other field says whom this is", "Give at least one of the fields")
        for name in ("thumbprint", "serial_number"):
            value = getattr(self, name)
            digits = value.replace(":", "").lower()
            if value and (_hex(digits) is None or (name == "thumbprint" and len(digits) != 64)):
                cure = "Give hexadecimal digits; of a thumbprint, the 64 of its SHA-256"
                raise self.mistake(name, "is no such number", cure)
            object.__setattr__(self, name, digits if name == "thumbprint" else digits.lstrip("0") or (value and "0"))

    def fits(self, holder: Holder) -> bool:
        """Whether a certificate has all that is asked for."""
        return (
            self.thumbprint in ("", holder.thumbprint)
            and self.serial_number in ("", holder.serial_number)
            and self.subject in ("", holder.subject)
            and self.issuer in ("", holder.issuer)
            and self.common_name in ("", *holder.common_names)
            and self.dns_name.lower() in ("", *(each.lower() for each in holder.dns_names))
            and self.uri in ("", *holder.uris)
            and self.email in ("", *holder.emails)
        )
