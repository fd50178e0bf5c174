"""What proxies say of the client (RFC 7239, and the X-Forwarded fields before it), believed as far as trust reaches.

Each proxy adds the address it was called from at the right-hand end, so the lists are read from the right. The entry
written by a trusted hop is vouched for; when it names a trusted hop again, that one vouches for the entry to its left.
The walk ends at the first address that is not trusted: the client. It also ends at whatever names no address
(``unknown``, ``_hidden``, junk, nothing): the client is then the last address vouched for, never a guess further left.
A hop over a local socket (``unix:``, as nginx writes it) has no address; the walk goes on past it only when such hops
are trusted.

Reading begins at the right for another reason too: what a client wrote stands at the left, and must not be able to
spoil what proxies wrote behind it, with an open quote for instance.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

from apim_middleware._http.addresses import AddressSet, Verdicts, address_text, parse_address, parse_endpoint
from apim_middleware.types import Scope

MAX_HOPS = 32
"""Most entries looked at: far more than any real chain has, and a bound on the work a long list can cause."""

FORWARDED = b"forwarded"
FOR, PROTO, HOST, PORT = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"
REAL_IP = b"x-real-ip"

PEER = "apim_middleware.peer"
"""Where the scope keeps the peer's own ``client`` once a trusted proxy's words have replaced it."""

_LONGEST = 1024  # no element is longer, and each costs work by its length
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": (80,), "https": (443,), None: (80, 443)}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_DIGITS = re.compile(r"[0-9]{1,5}")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_PAIR = re.compile(
    r"""[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=\\]+))[ \t]*)?(?:;|\Z)""", re.DOTALL
)


class Hop(NamedTuple):
    """A sender as the next one names it: canonical address or None, port (0 when not told), trusted or not."""

    address: str | None
    port: int
    trusted: bool


Judge: TypeAlias = Callable[[str], Hop]
"""Reads the name of a hop."""


class Trust:
    """Who is trusted to tell the truth about the hop before."""

    def __init__(self, networks: AddressSet, *, unix: bool) -> None:
        """Trust these networks, and local sockets when ``unix`` is set."""
        self._networks = networks
        self._nameless = Hop(None, 0, unix)
        self.judge: Judge = Verdicts(self._hop).__getitem__

    def _hop(self, text: str) -> Hop:
        """The hop a server or proxy means by this text."""
        endpoint = parse_endpoint(text)
        if endpoint is not None:
            address, port = endpoint
            return Hop(address_text(address), port, address in self._networks)
        return self._nameless if text.startswith("unix:") or text == "unix" else _UNKNOWN

    def peer(self, scope: Scope) -> Hop:
        """Who speaks to us: the peer, whoever it says it speaks for.

        Over a local socket the client has no address, and the server no port. A server also knows no client when a TCP
        peer is gone before it was asked for; that is nobody to trust.
        """
        client = scope.get(PEER, scope.get("client"))
        if client and client[0]:
            return self.judge(client[0])
        server = scope.get("server")
        return _UNKNOWN if server and server[1] else self._nameless


_UNKNOWN = Hop(None, 0, trusted=False)


class Vouched(NamedTuple):
    """What the trusted hops say: the client's address and port, the scheme it used, the host it asked for."""

    client: tuple[str, int] | None = None
    scheme: str | None = None
    host: str | None = None


def from_forwarded(lines: Sequence[bytes], judge: Judge) -> Vouched:
    """What the vouched-for elements of ``Forwarded`` say; scheme and host as the hop nearest the client tells them."""
    client, scheme, host = None, None, None
    for element in islice(_elements(lines), MAX_HOPS):
        scheme = _SCHEMES.get(element.get("proto", "").lower(), scheme)
        host = element.get("host", host)
        hop = judge(element.get("for", ""))
        if hop.address is not None:
            client = (hop.address, hop.port)
        if not hop.trusted:
            break
    return Vouched(client, scheme, host)


def from_x_forwarded(fields: Mapping[bytes, Sequence[bytes]], judge: Judge) -> Vouched:
    """What the X-Forwarded fields say; ``X-Real-IP`` counts where it is given instead of ``X-Forwarded-For``.

    Scheme, host and port are the last entry of their lists: it is the one entry that a trusted hop wrote for certain,
    for whether the others append or replace cannot be told.
    """
    client = _walk(_entries(fields.get(FOR) or fields.get(REAL_IP) or ()), judge)
    if client is not None and len(fields) == 1:
        return Vouched(client)
    scheme = _SCHEMES.get((_last(fields.get(PROTO)) or "").lower())
    host, port = _last(fields.get(HOST)), _last(fields.get(PORT))
    if host is not None and port is not None:
        host = _with_port(host, port, scheme)
    return Vouched(client, scheme, host)


def agreed(one: Vouched, other: Vouched) -> Vouched | None:
    """What two families of fields both say; None when they contradict each other.

    A port that only one of them tells is no contradiction, nor is it believed: that one may be the client's.
    """
    if one == other:
        return one
    if one.client is None or other.client is None or one[1:] != other[1:]:
        return None
    (here, port), (there, other_port) = one.client, other.client
    return None if here != there or (port and other_port) else one._replace(client=(here, 0))


def host_header(text: str) -> bytes | None:
    """A forwarded host as a ``Host`` header carries it; None when it is no name or address with an optional port."""
    literal, bracket, rest = text.partition("]") if text.startswith("[") else ("", "", "")
    name, colon, port = rest.partition(":") if bracket else text.partition(":")
    valid = not name and _is_ipv6(literal[1:]) if bracket else _NAME.fullmatch(name)
    if not valid or (colon and not _is_port(port)):
        return None
    return text.encode("ascii")


def x_forwarded_for(lines: Sequence[bytes], judge: Judge) -> Iterator[Hop]:
    """The hops named by ``X-Forwarded-For``, the nearest first."""
    return (judge(name.strip(" \t")) for name in _entries(lines))


def _walk(names: Iterable[str], judge: Judge) -> tuple[str, int] | None:
    client = None
    for name in names:
        address, port, trusted = judge(name.strip(" \t"))
        if address is not None:
            client = (address, port)
        if not trusted:
            break
    return client


def _entries(lines: Sequence[bytes]) -> list[str]:
    """The entries of a list with the blanks around them, the last first; what stands beyond the bound is left out."""
    if not lines:
        return []
    entries = b",".join(lines).decode("latin-1").rsplit(",", MAX_HOPS)
    entries.reverse()
    return entries[:MAX_HOPS]


def _last(lines: Sequence[bytes] | None) -> str | None:
    return lines[-1].rpartition(b",")[2].strip(b" \t").decode("latin-1") if lines else None


def _elements(lines: Sequence[bytes]) -> Iterator[dict[str, str]]:
    """The elements of the ``Forwarded`` lines as pairs, the last first; a malformed one is empty and ends them."""
    for line in reversed(lines):
        text = line.decode("latin-1")
        end = len(text)
        while end >= 0:
            window = text[max(0, end - _LONGEST) : end]
            start = _start(window)
            pairs = None if start is None else _pairs(window[start:])
            if start is None or pairs is None or (start == 0 and len(window) < end):
                yield {}
                return
            yield pairs
            end -= len(window) - start + 1


def _start(text: str) -> int | None:
    """Where the last element begins: behind a comma outside quotes; None when the quotes do not match."""
    comma, cut = text.rfind(","), len(text)
    while True:
        quote = text.rfind('"', 0, cut)
        if quote < comma or quote < 0:
            return comma + 1
        opening = _opening(text, quote)
        if opening < 0:
            return None
        cut = opening
        if comma > cut:
            comma = text.rfind(",", 0, cut)


def _opening(text: str, closing: int) -> int:
    """Where the quoted string that ends at ``closing`` begins; -1 when it does not."""
    opening = text.rfind('"', 0, closing)
    while opening > 0 and _escaped(text, opening):
        opening = text.rfind('"', 0, opening)
    return opening


def _escaped(text: str, quote: int) -> bool:
    before = quote
    while before and text[before - 1] == "\\":
        before -= 1
    return (quote - before) % 2 == 1


def _pairs(text: str) -> dict[str, str] | None:
    """The pairs of one element by lower-case name; None when it is malformed or says a thing twice (RFC 7239 §4).

    Blanks around the semicolons and unquoted colons and brackets are let pass, for many proxies write them.
    """
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            return None
        position = pair.end()
        name, quoted, plain = pair.groups()
        if name is not None:
            if name.lower() in pairs:
                return None
            pairs[name.lower()] = plain if quoted is None else _ESCAPE.sub(r"\1", quoted)
    return pairs


def _with_port(host: str, port: str, scheme: str | None) -> str:
    """The host with a port it does not name itself, unless that is the default."""
    bare = host.endswith("]") or ":" not in host
    if not bare or not _is_port(port) or int(port) in _DEFAULT_PORTS[scheme]:
        return host
    return f"{host}:{int(port)}"


def _is_port(text: str) -> bool:
    return _DIGITS.fullmatch(text) is not None and int(text) <= 65535


def _is_ipv6(text: str) -> bool:
    return ":" in text and "%" not in text and parse_address(text) is not None
