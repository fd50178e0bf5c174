"""Where the metadata of a protected resource is (RFC 9728 §3): between its host and its path."""

from urllib.parse import unquote, urlsplit

from apim_middleware._http.paths import canonical_path

_WELL_KNOWN = "/.well-known/oauth-protected-resource"


def metadata_url(resource: str) -> str:
    """The URL of the metadata of a resource, which is itself a URL."""
    parts = urlsplit(resource)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{_raw_path(resource)}{query}"


def metadata_path(resource: str) -> str:
    """The canonical path of the metadata of a resource, decoded. Raises BadTarget when it has none."""
    raw = _raw_path(resource)
    return canonical_path(unquote(raw), raw.encode())[0]


def _raw_path(resource: str) -> str:
    """A slash that is the resource's whole path says nothing."""
    path = urlsplit(resource).path
    return _WELL_KNOWN + ("" if path == "/" else path)
