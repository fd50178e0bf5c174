"""Where a request comes from, and whether that place may come in: ``TrustedProxies`` and ``IPFilter``."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from apim_middleware._http.addresses import AddressSet, Verdicts, parse_address
from apim_middleware._http.forwarded import (
    FOR,
    FORWARDED,
    HOST,
    PEER,
    PORT,
    PROTO,
    REAL_IP,
    Hop,
    Trust,
    Vouched,
    agreed,
    from_forwarded,
    from_x_forwarded,
    host_header,
    x_forwarded_for,
)
from apim_middleware._networks import networks_in, trust_in
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import RawHeaders

log = logging.getLogger("apim_middleware")

_FIELDS = {"scheme": PROTO, "host": HOST, "port": PORT}
_CLIENT_FIELDS = {
    "auto": (FORWARDED, FOR),
    "forwarded": (FORWARDED,),
    "x-forwarded": (FOR,),
    "x-real-ip": (REAL_IP,),
}


@dataclass(frozen=True, kw_only=True)
class TrustedProxies(Policy):
    """Take the client's address from the proxies in front, when they are ours.

    A request whose peer is in ``trusted`` gets the client that ``Forwarded`` (RFC 7239) or ``X-Forwarded-For`` tell of:
    read from the right, through hops that are themselves trusted, up to the first that is not. What names no address
    (``unknown``, ``_hidden``, junk) ends the walk at the last address vouched for. A peer that is not trusted is the
    client, whatever it says. Behind this policy ``scope["client"]`` is canonical text, IPv4-mapped addresses as IPv4.

    Refusals: 400 ``conflicting-forwarding`` where ``header="auto"`` cannot tell whom to believe, 400 ``bad-host`` for a
    forwarded host that is none. Of several in a row the outermost that trusts the peer decides.
    """

    provides = frozenset({"client"})
    guards = True  # who and what is asked for must be settled before anybody answers from memory

    trusted: str | tuple[str, ...]
    """Whose word counts: addresses, networks (``10.0.0.0/8``), ranges (``10.0.0.5-10.0.0.99``), ``"unix"`` sockets."""

    header: Literal["auto", "forwarded", "x-forwarded", "x-real-ip"] = "auto"
    """The field in which the trusted proxies, each of them, tell of the client.

    A proxy passes on what it does not write itself, so a field it does not write is the client's. ``"auto"`` takes
    ``Forwarded`` or ``X-Forwarded-For``, whichever comes; when both come they must say the same, but for a port that
    only one of them tells, which is left out. ``X-Real-IP`` counts only when named here.
    """

    also: tuple[Literal["scheme", "host", "port"], ...] = ()
    """What else to take from the trusted proxies: ``scope["scheme"]``, the ``Host`` header, the port in it.

    Name what they are known to write: ``X-Forwarded-Proto``, ``X-Forwarded-Host``, ``X-Forwarded-Port``, or ``proto``
    and ``host`` in ``Forwarded``. A proxy that leaves one of these alone would let any client set it.
    """

    @stated
    def documentation(self) -> Documentation:
        """What is answered where forwarding fields make no sense."""
        codes = ("conflicting-forwarding",) if self.header == "auto" else ()
        codes = (*codes, *(("bad-host",) if "host" in self.also else ()))
        return Documentation(answers=(Answer(400, codes),) if codes else ())

    def __post_init__(self) -> None:
        """Networks must be networks, and trust must end somewhere."""
        if not self.trusted:
            raise self.mistake("trusted", "names nobody", "Give the addresses or networks of your proxies")
        self._trust()
        if "port" in self.also and "host" not in self.also:
            raise self.mistake("also", "takes a port and no host to put it in", 'Write also=("host", "port")')
        if "port" in self.also and self.header == "forwarded":
            raise self.mistake("also", "takes a port, which Forwarded has in its host", 'Write also=("host",)')

    def _trust(self) -> Trust:
        return trust_in(self, self.trusted, "lets every caller choose the address it is seen under")

    def bind(self, env: Env) -> "_Referee":
        """Compile the networks."""
        return _Referee(self, self._trust())


class _Referee:
    def __init__(self, rule: TrustedProxies, trust: Trust) -> None:
        self._peer, self._hop = trust.peer, trust.judge
        self._takes_scheme, self._takes_host = "scheme" in rule.also, "host" in rule.also
        self._reads = frozenset((*_CLIENT_FIELDS[rule.header], *(_FIELDS[each] for each in rule.also)))
        if rule.header == "forwarded":
            self._reads = frozenset((FORWARDED,))
        self._warned = False

    def on_request(self, exchange: Exchange) -> None:
        scope = exchange.scope
        if PEER in scope:
            return
        peer = self._peer(scope)
        if peer.address is not None and peer.address != scope["client"][0]:
            scope["client"] = (peer.address, scope["client"][1])
        lines = exchange.forwarded
        if lines:
            if not self._warned and peer.address is not None:
                self._look_for_rewriting(peer, scope["client"][1], lines)
            if peer.trusted:
                scope[PEER] = scope.get("client")
                self._believe(exchange, self._vouched(lines))

    def _vouched(self, lines: RawHeaders) -> Vouched:
        fields: dict[bytes, list[bytes]] = {}
        for name, value in lines:
            if name in self._reads:
                fields.setdefault(name, []).append(value)
        forwarded = fields.pop(FORWARDED, None)
        if forwarded is None:
            return from_x_forwarded(fields, self._hop)
        client, scheme, host = from_forwarded(forwarded, self._hop)
        vouched = Vouched(client, scheme if self._takes_scheme else None, host if self._takes_host else None)
        both = agreed(vouched, from_x_forwarded(fields, self._hop)) if fields else vouched
        if both is None:
            # one of the two was written by the client and passed on, and which cannot be told: believe neither
            raise Refusal(400, "conflicting-forwarding", "Forwarded and X-Forwarded fields tell different stories.")
        return both

    def _believe(self, exchange: Exchange, vouched: Vouched) -> None:
        scope = exchange.scope
        client, scheme, host = vouched
        if client is not None:
            scope["client"] = client
        if scheme is not None:
            scope["scheme"] = _WEBSOCKET[scheme] if exchange.is_websocket else scheme
        if host is not None:
            header = host_header(host)
            if header is None:
                raise Refusal(400, "bad-host", "The forwarded host is not a host and port.")
            if header != exchange.header(b"host"):  # a list left alone keeps its index
                exchange.set_header(b"host", header)

    def _look_for_rewriting(self, peer: Hop, port: int | None, lines: RawHeaders) -> None:
        """Say once when the peer looks like an entry of X-Forwarded-For that the server has put in its place.

        Servers that do so leave the port 0 for an entry without one, which no peer has that called by itself.
        """
        if peer.trusted and port:
            return
        told = x_forwarded_for([value for name, value in lines if name == FOR], self._hop)
        if any(hop.address == peer.address and hop.port == port for hop in told):
            self._warned = True
            log.warning(
                "the ASGI server has put an address from X-Forwarded-For in the place of the peer's, so TrustedProxies "
                "cannot tell who is speaking; switch that off (uvicorn: --no-proxy-headers)"
            )


_WEBSOCKET = {"http": "ws", "https": "wss"}


@dataclass(frozen=True, kw_only=True)
class IPFilter(Policy):
    """Let in or keep out by the client's address, as Azure's ``ip-filter`` does, with networks besides.

    ``deny`` wins over ``allow``; with an ``allow`` list everybody else stays out. The address is the peer's, unless a
    ``TrustedProxies`` further out knows better.

    Refusals: 403 ``address-denied``, 403 ``address-not-allowed``, and 403 ``address-unknown`` when the server knows no
    address (a local socket) or none that can be read.
    """

    guards = True

    allow: str | tuple[str, ...] = ()
    """Who may come in: addresses, networks (``2001:db8::/32``), ranges (``10.0.0.5-10.0.0.99``, both ends included)."""

    deny: str | tuple[str, ...] = ()
    """Who may not, in the same notation."""

    @stated
    def needs(self) -> frozenset[str]:
        """The client, from whoever establishes it."""
        return frozenset({"client"})

    @stated
    def documentation(self) -> Documentation:
        """What is answered to addresses that may not come in."""
        denied = ("address-denied",) if self.deny else ()
        others = ("address-not-allowed",) if self.allow else ()
        return Documentation(answers=(Answer(403, (*denied, *others, "address-unknown")),))

    def __post_init__(self) -> None:
        """Something must be filtered, by networks that are networks."""
        if not self.allow and not self.deny:
            raise self.mistake("allow", "and an empty deny filter nothing", "Give allow, deny or both")
        networks_in(self, "allow", self.allow)
        networks_in(self, "deny", self.deny)

    def bind(self, env: Env) -> "_Filter":
        """Compile the networks."""
        allow = networks_in(self, "allow", self.allow) if self.allow else None
        return _Filter(allow, networks_in(self, "deny", self.deny))


class _Filter:
    def __init__(self, allow: AddressSet | None, deny: AddressSet) -> None:
        self._verdicts: Mapping[str, str | None] = Verdicts(partial(_objection, allow, deny))

    def on_request(self, exchange: Exchange) -> None:
        client = exchange.scope.get("client")
        code = self._verdicts[client[0]] if client and client[0] else "address-unknown"
        if code is not None:
            raise Refusal(403, code, _REASONS[code])


_REASONS = {
    "address-denied": "The client's address is blocked.",
    "address-not-allowed": "The client's address is not among those allowed.",
    "address-unknown": "The client's address could not be established.",
}


def _objection(allow: AddressSet | None, deny: AddressSet, text: str) -> str | None:
    address = parse_address(text)
    if address is None:
        return "address-unknown"
    if address in deny:
        return "address-denied"
    return None if allow is None or address in allow else "address-not-allowed"
