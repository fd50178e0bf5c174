"""The transports of a proxy: one for all its members, and more for those whose certificates name another host."""

import ssl
from collections.abc import Iterable

from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Transport
from apim_middleware.proxy._node import Place
from apim_middleware.proxy.members import Entry, Member


class Transports:
    """Gives each place what its requests are sent with."""

    def __init__(self, main: Transport, verify: ssl.SSLContext | bool, *, own: bool) -> None:
        """``own`` is whether ``main`` is the proxy's own, so that others may be made like it."""
        self._main, self._verify, self._own = main, verify, own
        self._named: dict[str, Transport] = {}

    def check(self, members: Iterable[Entry]) -> None:
        """Certificates name hosts, not addresses: see that these can be asked for them. Raises ConfigError."""
        for each in members:
            named = isinstance(each, Member) and each.lookup is not None and each.upstream.origin.startswith("https:")
            if named and not self._own:
                problem = "needs the proxy's own transport to ask an address for the certificate of a name"
                raise ConfigError("Member", "lookup", problem, "Leave transport out")

    def of(self, place: Place) -> Transport:
        """The transport for a place."""
        if not (self._own and place.host and place.url.startswith("https:")):
            return self._main
        name = place.host.partition(":")[0]
        return self._named.get(name) or self._new(name)

    def _new(self, name: str) -> Transport:
        from apim_middleware.transports.http1 import Http1Transport

        self._named[name] = made = Http1Transport(verify=self._verify, server_name=name)
        return made

    async def aclose(self) -> None:
        """Close those that were made here."""
        for each in self._named.values():
            await each.aclose()
