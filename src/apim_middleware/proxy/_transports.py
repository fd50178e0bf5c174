"""The transports of a proxy: one for all its members, and more for those whose certificates name another host."""

import ssl

from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Transport
from apim_middleware.proxy._node import Place
from apim_middleware.proxy.members import Entry, Member
from apim_middleware.transports._origins import parsed


class Transports:
    """Gives each place what its requests are sent with."""

    def __init__(self, main: Transport, verify: ssl.SSLContext | bool, *, own: bool) -> None:
        """``own`` is whether ``main`` is the proxy's own, so that others may be made like it."""
        self._main, self._verify, self._own = main, verify, own
        self._named: dict[str, Transport] = {}
        self._made: list[Transport] = []

    def check(self, entry: Entry) -> None:
        """Certificates name hosts, not addresses: see that this one can be asked for its own. Raises ConfigError."""
        named = isinstance(entry, Member) and entry.lookup is not None and entry.upstream.origin.startswith("https:")
        if named and not self._own:
            problem = "needs the proxy's own transport to ask an address for the certificate of a name"
            raise ConfigError("Member", "lookup", problem, "Leave transport out")

    def apart(self) -> "Transports":
        """Transports with connections of their own, for what must not wait until those of the requests are free."""
        part = getattr(self._main, "apart", None)
        if part is None:
            return Transports(self._main, self._verify, own=self._own)
        made = Transports(part(), self._verify, own=self._own)
        made._made.append(made._main)
        return made

    def of(self, place: Place) -> Transport:
        """The transport for a place."""
        if not (self._own and place.host and place.url.startswith("https:")):
            return self._main
        name = parsed(f"https://{place.host}").host
        return self._named.get(name) or self._new(name)

    def _new(self, name: str) -> Transport:
        from apim_middleware.transports.http1 import Http1Transport

        self._named[name] = made = Http1Transport(verify=self._verify, server_name=name)
        self._made.append(made)
        return made

    async def aclose(self) -> None:
        """Close those that were made here."""
        for each in self._made:
            await each.aclose()
