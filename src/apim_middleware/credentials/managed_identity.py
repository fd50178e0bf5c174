"""Tokens of the identity that Azure gives to a machine or an app, without a secret of ours."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from apim_middleware._config import Configured
from apim_middleware.credentials.asking import Service
from apim_middleware.credentials.credential import Showing, Shown
from apim_middleware.credentials.oauth import lasting, tokens
from apim_middleware.credentials.renewing import Fetch, Fetched, Unavailable
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.types import RawHeaders

_METADATA_SERVICE = "http://169.254.169.254/metadata/identity/oauth2/token"


@dataclass(frozen=True, kw_only=True)
class ManagedIdentity(Configured):
    """A token of the managed identity this process runs under, for one resource.

    It is had where Azure offers it: in App Service, Functions and Container Apps at the endpoint the environment names
    (``IDENTITY_ENDPOINT`` and ``IDENTITY_HEADER``), on virtual machines and their like from the instance metadata
    service. It is kept and renewed as that of ``ClientCredentials``. Azure's ``authentication-managed-identity``.
    """

    resource: str
    """Whom the token is for, as ``"https://storage.azure.com"``, ``"https://vault.azure.net"`` or an app id URI."""

    client_id: str | None = None
    """Which of several identities the user assigned, by its client id; None for the one of the system."""

    ahead: float = 300.0
    """Seconds before its end from which on a token is renewed, in the background."""

    timeout: float = 10.0
    """Seconds for one question, altogether."""

    def __post_init__(self) -> None:
        """There must be somebody to ask for, and time."""
        for name in ("resource", "client_id"):
            if getattr(self, name) == "":
                raise self.mistake(name, "is empty", 'Write resource="https://vault.azure.net"')
        for name in ("ahead", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise self.mistake(name, "is no time", "Give seconds above 0")

    def showing(self, env: Env) -> Showing:
        """What keeps the token. ConfigError where Azure names an endpoint that is of neither kind."""
        held = tokens(f"a token of the managed identity for {self.resource}", self._asking(env), env)

        async def show(exchange: Exchange) -> Shown:
            return await held.current()

        return show

    def _asking(self, env: Env) -> Fetch[str]:
        endpoint, header = os.environ.get("IDENTITY_ENDPOINT"), os.environ.get("IDENTITY_HEADER")
        if endpoint and not header:
            problem = "cannot be asked for: IDENTITY_ENDPOINT is set without IDENTITY_HEADER, as on Azure Arc"
            raise self.mistake("resource", problem, "Use ClientCredentials there")
        if endpoint and header:
            headers, version = [(b"x-identity-header", header.encode())], "2019-08-01"
        else:
            endpoint, headers, version = _METADATA_SERVICE, [(b"metadata", b"true")], "2018-02-01"
        asked = {"api-version": version, "resource": self.resource}
        if self.client_id is not None:
            asked["client_id"] = self.client_id
        transport = env.callouts(DefaultTransport, public=False)
        service = Service(f"{endpoint}?{urlencode(asked)}", transport, self.timeout)
        return _Asking(service, headers, self.ahead, env.clock.now)


class _Asking:
    """Asks for a token; the answer says when it ends, in seconds from now or since 1970."""

    def __init__(self, service: Service, headers: RawHeaders, ahead: float, now: Callable[[], float]) -> None:
        self._service, self._headers, self._ahead, self._now = service, headers, ahead, now

    async def __call__(self) -> Fetched[str]:
        said = await self._service.ask(self._headers)
        if said.status != 200:
            raise Unavailable(f"{self._service.origin} answered {said.status}")
        left: Any = said.number("expires_in")
        if left is None and (ends := said.number("expires_on")) is not None:
            left = max(ends - self._now(), 0.0)
        return lasting(said.text("access_token"), left, self._ahead)
