"""The client's certificate as a scope tells of it, and its thumbprint (RFC 8705 §3.1).

Whoever has checked a certificate that came another way (a header of a trusted proxy) puts its DER bytes into the scope
under ``KEY``; else the TLS extension of ASGI tells of the certificate of the connection, which the server has checked.
"""

import base64
import hashlib
import ssl
from typing import Any

from apim_middleware.types import Scope

KEY = "apim_middleware.client_certificate"
"""Where the scope has the DER bytes of a certificate that a policy has checked; None for none, whatever TLS says."""


def certificate(scope: Scope) -> bytes | None:
    """The client's certificate in DER, or None when there is none that can be read."""
    if KEY in scope:
        found: bytes | None = scope[KEY]
        return found
    tls = (scope.get("extensions") or {}).get("tls")
    return None if tls is None else _first(tls.get("client_cert_chain"))


def is_shown(scope: Scope) -> bool:
    """Whether the app could know the client by a certificate, be it one that we cannot read."""
    if "extensions" not in scope and KEY not in scope:  # as for most requests
        return False
    if scope.get(KEY) is not None:
        return True
    tls = (scope.get("extensions") or {}).get("tls")
    return bool(tls and (tls.get("client_cert_chain") or tls.get("client_cert_name")))


def _first(chain: Any) -> bytes | None:  # noqa: ANN401 - whatever a server puts there
    pem = next(iter(chain or ()), None)
    if not isinstance(pem, str):
        return None
    try:
        return ssl.PEM_cert_to_DER_cert(pem.strip())
    except ValueError:
        return None


def thumbprint(der: bytes) -> str:
    """The SHA-256 of a certificate in DER, as ``x5t#S256`` has it: base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
