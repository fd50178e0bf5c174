"""Where an issuer publishes its keys: what its metadata says (OpenID Connect Discovery 1.0 §4, RFC 8414 §3)."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from apim_middleware._jose.documents import BadDocument
from apim_middleware._jose.tokens import BadToken, parsed
from apim_middleware._jose.urls import Allowance, fault_of

_OPENID = "/.well-known/openid-configuration"
_OAUTH = "/.well-known/oauth-authorization-server"


def can_be_discovered(issuer: str) -> bool:
    """Whether an issuer's name is such that its metadata can be found: a URL without query and fragment."""
    return issuer.startswith(("https://", "http://")) and not {"?", "#"} & set(issuer)


def metadata_urls(issuer: str) -> Sequence[str]:
    """Where the metadata of an issuer may be, the likeliest first.

    OpenID Connect puts its path behind the issuer's, OAuth before it; the two are the same without a path.
    """
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return f"{origin}{path}{_OPENID}", f"{origin}{_OAUTH}{path}"


def keys_url(document: bytes, issuer: str, allowed: Allowance) -> str:
    """Where the keys are, by metadata that speaks for exactly this issuer (RFC 8414 §3.3). Raises BadDocument."""
    try:
        metadata = parsed(document)
    except BadToken:
        raise BadDocument("the metadata is not a JSON object") from None
    if metadata.get("issuer") != issuer:
        raise BadDocument("the metadata is that of another issuer")
    found = metadata.get("jwks_uri")
    if not isinstance(found, str) or len(found) > 2048:
        raise BadDocument("the metadata names no place of keys")
    if (fault := fault_of(found, allowed)) is not None:
        raise BadDocument(f"the place of the keys {fault.problem}")
    return found
