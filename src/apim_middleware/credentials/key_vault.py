"""Secrets in Azure Key Vault, by its REST interface."""

import math
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from apim_middleware._config import Configured
from apim_middleware._jose.urls import Allowance, Fault, fault_of, mistake_of
from apim_middleware.credentials.asking import Service
from apim_middleware.credentials.credential import Credential, Shown
from apim_middleware.credentials.managed_identity import ManagedIdentity
from apim_middleware.credentials.renewing import Fetched, Renewing, Unavailable
from apim_middleware.credentials.secret import Reader
from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.transports.default import DefaultTransport

_API_VERSION = "7.4"
_name = re.compile(r"[0-9A-Za-z-]{1,127}").fullmatch
_version = re.compile(r"[0-9A-Za-z]{0,64}").fullmatch


@dataclass(frozen=True, kw_only=True)
class KeyVaultSecret(Configured):
    """A secret in an Azure Key Vault.

    It is fetched when it is first needed, once for all that wait, and looked for again in the background every
    ``refresh`` seconds, so that a new version counts without a restart. While the vault is away the last one serves
    for another ``stale_if_error`` seconds at most. This gateway's identity needs the right to get secrets there.
    """

    vault: str
    """The vault, as ``"https://orders.vault.azure.net"``."""

    name: str
    """The secret's name."""

    version: str = ""
    """One version of it; without, the newest."""

    credential: Credential = field(default_factory=lambda: ManagedIdentity(resource="https://vault.azure.net"))
    """How this gateway shows the vault who it is: a ``ManagedIdentity`` or ``ClientCredentials``.

    In clouds of their own the resource is another one, as ``"https://vault.azure.cn"``.
    """

    refresh: float = 300.0
    """Seconds after which it is looked for again."""

    stale_if_error: float = 86_400.0
    """Seconds past ``refresh`` for which it serves when the vault does not answer."""

    timeout: float = 10.0
    """Seconds for one question, altogether."""

    def __post_init__(self) -> None:
        """The names must be such as a vault has."""
        fault = fault_of(self.vault, Allowance(private=True))
        if fault is None and (urlsplit(self.vault).path not in ("", "/") or "?" in self.vault):
            fault = Fault("is no vault", 'Write "https://orders.vault.azure.net"')
        if fault is not None:
            raise mistake_of(self, "vault", fault)
        if not _name(self.name):
            raise self.mistake("name", "is no name of a secret", "Use letters, digits and hyphens, 127 at most")
        if not _version(self.version):
            raise self.mistake("version", "is no version of a secret", "Leave it out for the newest")
        for field_name in ("refresh", "timeout"):
            if not 0 < getattr(self, field_name) < math.inf:
                raise self.mistake(field_name, "is no time", "Give seconds above 0")
        if not 0 <= self.stale_if_error < math.inf:
            raise self.mistake("stale_if_error", "is no time", "Give seconds, 0 or more")

    def reader(self, env: Env) -> Reader:
        """What reads the secret."""
        return _Kept(self, env).read


class _Kept:
    """A secret of a vault, as it was last."""

    def __init__(self, secret: KeyVaultSecret, env: Env) -> None:
        self._secret = secret
        url = f"{secret.vault.rstrip('/')}/secrets/{secret.name}"
        url += f"/{secret.version}" if secret.version else ""
        transport = env.callouts(DefaultTransport, public=False)
        self._service = Service(f"{url}?api-version={_API_VERSION}", transport, secret.timeout)
        self._showing = secret.credential.showing(env)
        self._held: Renewing[str] = Renewing(f"the secret {secret.name} of {secret.vault}", env.clock, self._fetch)

    async def read(self) -> str:
        try:
            return await self._held.current()
        except Unavailable as missing:
            raise StoreError(f"the secret {self._secret.name} cannot be had: {missing.reason}") from None

    async def _fetch(self) -> Fetched[str]:
        secret = self._secret
        shown: Shown = await self._showing(_NOBODYS)
        said = await self._service.ask([shown.line])
        if said.status == 401 and shown.drop is not None:
            shown.drop()
        if said.status != 200:
            raise Unavailable(f"{self._service.origin} answered {said.status}")
        attributes: Any = said.content.get("attributes")
        if isinstance(attributes, dict) and attributes.get("enabled") is False:
            raise Unavailable("the secret is disabled")
        return Fetched(said.text("value"), secret.refresh, secret.refresh + secret.stale_if_error)


_NOBODYS = Exchange({"type": "http", "headers": [], "path": "/"})
"""A vault is asked on no caller's account."""
