"""Internet addresses: reading what servers and proxies write, and sets of networks that answer fast at any size.

``inet_pton`` is the strict reader: dotted decimal without leading zeros, so what other software takes for octal, hex or
one big number is no address at all (RFC 6943 §3.1.1). Nothing here touches the network.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple, TypeAlias, TypeVar

Address: TypeAlias = bytes
"""An address in network order: 4 bytes for IPv4, also when it came IPv4-mapped (``::ffff:192.0.2.1``), 16 for IPv6."""

_MAPPED = bytes(10) + b"\xff\xff"
_MAPPED_BITS = 96
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,32}")
_PORT = re.compile(r"([0-9]{1,5})|_[A-Za-z0-9._-]{1,64}")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_REMEMBERED = 4096
_LONGEST = 64  # no address is longer, and a longer text may be as long as a header field

V = TypeVar("V")


class BadNetwork(ValueError):
    """This text names no set of addresses; the message is a reason that follows the text in a sentence."""


def parse_address(text: str) -> Address | None:
    """The address, or None when the text is none.

    The zone of an IPv6 address (``%eth0``, RFC 4007 §11) is dropped: it names an interface of whoever wrote it.
    """
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        if "%" in text:
            text, _, zone = text.partition("%")
            if _ZONE.fullmatch(zone) is None:
                return None
        address = inet_pton(AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a null byte, or characters no encoding has
        return None
    return address[12:] if address.startswith(_MAPPED) else address


def parse_endpoint(text: str) -> tuple[Address, int] | None:
    """Address and port of ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:80``.

    The port is 0 when there is none or an obfuscated one (RFC 7239 §6.3); None when the text is none of these.
    """
    address = parse_address(text)
    if address is not None:
        return address, 0
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or rest[:1] not in ("", ":"):
            return None
        port = rest[1:] if rest else "0"
    else:
        host, _, port = text.partition(":")  # a second colon fails as a port
    digits, address = _PORT.fullmatch(port), parse_address(host)
    if digits is None or address is None or int(digits[1] or 0) > 65535:
        return None
    return address, int(digits[1] or 0)


def address_text(address: Address) -> str:
    """The one way to write an address: dotted decimal, or lower case with the longest run of zeros left out."""
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


class Prefix(NamedTuple):
    """A network: the ``length`` leading bits its addresses of ``width`` bits share, as a number."""

    width: int
    length: int
    bits: int


def parse_network(text: str) -> list[Prefix]:
    """The networks of ``192.0.2.7``, ``10.0.0.0/8`` or ``10.0.0.5-10.0.0.99``, ends included. Raises BadNetwork."""
    if "-" in text:
        return list(_range(*(part.strip(" ") for part in text.split("-", 1))))
    if "/" in text:
        return [_cidr(text)]
    address = _configured(text)
    width = len(address) * 8
    return [Prefix(width, width, int.from_bytes(address))]


def _configured(text: str) -> Address:
    address = parse_address(text)
    if address is None or "%" in text:  # a zone would say less than it seems to: it is not compared
        raise BadNetwork("is no address, network or range")
    return address


def _cidr(text: str) -> Prefix:
    host, _, digits = text.partition("/")
    address = _configured(host)
    width = len(address) * 8
    length = int(digits) if _LENGTH.fullmatch(digits) else -1
    if width == 32 and ":" in host:
        length -= _MAPPED_BITS
    if not 0 <= length <= width:
        raise BadNetwork("has no prefix length that its family knows")
    value, spare = int.from_bytes(address), width - length
    if value >> spare << spare != value:
        network = address_text((value >> spare << spare).to_bytes(width // 8))
        raise BadNetwork(f"has bits set behind its prefix; the network is {network}/{length}")
    return Prefix(width, length, value >> spare)


def _range(low: str, high: str) -> Iterator[Prefix]:
    """The fewest networks that make up a range."""
    start, end = _configured(low), _configured(high)
    if len(start) != len(end):
        raise BadNetwork("begins in one address family and ends in the other")
    first, last, width = int.from_bytes(start), int.from_bytes(end), len(start) * 8
    if first > last:
        raise BadNetwork("ends before it begins")
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else width
        spare = min(aligned, (last - first + 1).bit_length() - 1)
        yield Prefix(width, width - spare, first >> spare)
        first += 1 << spare


class AddressSet:
    """A set of networks; asking costs one look-up for each prefix length in it, however many networks there are."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[str]) -> None:
        """Read networks as ``parse_network`` does. Raises BadNetwork, with the unreadable text as second argument."""
        lengths: dict[tuple[int, int], set[int]] = {}
        for text in networks:
            try:
                prefixes = parse_network(text)
            except BadNetwork as error:
                raise BadNetwork(error.args[0], text) from None
            for width, length, bits in prefixes:
                lengths.setdefault((width, length), set()).add(bits)
        self._v4 = _by_shift(lengths, 32)
        self._v6 = _by_shift(lengths, 128)

    @property
    def everything(self) -> bool:
        """Whether it holds every address of a family, in one network or in many."""
        return _is_whole(self._v4, 32) or _is_whole(self._v6, 128)

    def __contains__(self, address: Address) -> bool:
        """Whether one of the networks holds the address."""
        value = int.from_bytes(address)
        for shift, prefixes in self._v4 if len(address) == 4 else self._v6:  # noqa: SIM110 - any() costs half as much again
            if value >> shift in prefixes:
                return True
        return False


def _by_shift(lengths: dict[tuple[int, int], set[int]], width: int) -> tuple[tuple[int, frozenset[int]], ...]:
    """The prefixes of one family by how far an address is shifted to compare; the widest networks first."""
    ours = sorted((length, bits) for (family, length), bits in lengths.items() if family == width)
    return tuple((width - length, frozenset(bits)) for length, bits in ours)


def _is_whole(networks: tuple[tuple[int, frozenset[int]], ...], width: int) -> bool:
    """Whether these make up all of a family: two neighbours are the network that holds both."""
    by_shift = dict(networks)
    held = by_shift.get(0, frozenset())
    for shift in range(1, width + 1):
        held = by_shift.get(shift, frozenset()) | {bits >> 1 for bits in held if bits & 1 and bits ^ 1 in held}
    return bool(held)


class Verdicts(dict[str, V]):
    """What was found out about addresses, remembered for a bounded number of texts: callers choose what they send."""

    def __init__(self, find_out: Callable[[str], V]) -> None:
        """Nothing is known yet."""
        super().__init__()
        self._find_out = find_out

    def __missing__(self, text: str) -> V:
        """Find out."""
        verdict = self._find_out(text)
        if len(text) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[text] = verdict
        return verdict
