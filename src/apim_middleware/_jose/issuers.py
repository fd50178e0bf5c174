"""Issuers and where their keys are: written down, at a URL, or discovered."""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeAlias

from apim_middleware._config import Configured
from apim_middleware.errors import ConfigError

StaticKey: TypeAlias = str | bytes | Mapping[str, Any]
"""PEM text of a public key, the bytes of a shared secret, a JWK, or a JWK set."""

Cloud: TypeAlias = Literal["public", "us-government", "china"]

_TENANT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LOGIN = {
    "public": "login.microsoftonline.com",
    "us-government": "login.microsoftonline.us",
    "china": "login.partner.microsoftonline.cn",
}
_STS = {"public": "sts.windows.net", "us-government": "sts.windows.net", "china": "sts.chinacloudapi.cn"}


@dataclass(frozen=True)
class Issuer(Configured):
    """One who issues tokens, with keys of its own: they verify no token that names another issuer.

    With a name alone its keys are discovered (OpenID Connect Discovery, RFC 8414), for which the name is a URL.
    """

    name: str
    """What its tokens say in ``iss``, character for character."""

    _: KW_ONLY

    keys: StaticKey | tuple[StaticKey, ...] | None = field(default=None, repr=False, hash=False)
    """Its keys, as in ``JWTAuth.keys``; at most one of these, ``jwks_url`` and ``metadata_url``."""

    jwks_url: str | None = None
    """Where it publishes its keys as a JWK set."""

    metadata_url: str | None = None
    """Where its metadata is, when not at the well-known places under its name; it must name exactly this issuer."""

    audience: str | tuple[str, ...] | None = None
    """Whom its tokens must be made for. Default: the audience of the policy."""

    def __post_init__(self) -> None:
        """Refuse what names nobody, or its keys twice."""
        if not self.name:
            raise self.mistake("name", "is empty", "Give the exact text")
        if cure := cure_of_metadata(self.name):
            raise self.mistake("name", "is where metadata is, and no issuer", cure)
        if self.audience in ("", ()) or (isinstance(self.audience, tuple) and "" in self.audience):
            raise self.mistake("audience", "is empty", "Give the exact text")
        given = [name for name in ("keys", "jwks_url", "metadata_url") if getattr(self, name) is not None]
        if len(given) > 1:
            raise self.mistake(given[0], f"and {given[1]} are both given", "Give one of them")

    @classmethod
    def entra(cls, *tenants: str, cloud: Cloud = "public") -> "tuple[Issuer, ...]":
        """The issuers of Microsoft Entra ID for these tenants, by their ids: of version 1.0 tokens and of version 2.0.

        Which of the two a tenant sends depends on the registration of the API, so both count. Give them as
        ``JWTAuth(issuer=Issuer.entra("<tenant id>"), audience=("<application id>", "api://<application id>"))``.
        """
        if not tenants:
            raise ConfigError("Issuer.entra", "tenants", "names no tenant", "Give the tenant's id")
        for tenant in tenants:
            if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
                cure = "Give the tenant's id, a GUID: tokens name nothing else, and common would let in every tenant"
                raise ConfigError("Issuer.entra", "tenants", f"{tenant!r} is no tenant id", cure)
        if cloud not in _LOGIN:
            raise ConfigError("Issuer.entra", "cloud", f"{cloud!r} is no cloud", f"Choose from {', '.join(_LOGIN)}")
        return tuple(each for tenant in tenants for each in _entra(tenant.lower(), _LOGIN[cloud], _STS[cloud]))


def cure_of_metadata(name: str) -> str | None:
    """What to write in the place of a URL of metadata where an issuer is wanted; None for what is no such URL."""
    before, found, after = name.partition("/.well-known/")
    if not found or "@" in before:  # which is not shown: it may be a password
        return None
    _, slash, below = after.partition("/")  # RFC 8414 §3.1: the path of the issuer stands behind
    issuer = f"{before}{slash}{below}"
    return (
        f'Write "{issuer}", or what its metadata says of issuer, as Issuer(..., metadata_url=...) if that is elsewhere'
    )


def _entra(tenant: str, login: str, sts: str) -> tuple[Issuer, Issuer]:
    base = f"https://{login}/{tenant}"
    return (
        Issuer(f"{base}/v2.0", jwks_url=f"{base}/discovery/v2.0/keys"),
        Issuer(f"https://{sts}/{tenant}/", jwks_url=f"{base}/discovery/keys"),
    )
