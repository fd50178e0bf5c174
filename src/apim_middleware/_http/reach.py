"""Which addresses are of the public internet, and which only mean something to whoever stands here (RFC 6890)."""

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 §2.1
_6TO4 = ipaddress.ip_network("2002::/16")  # RFC 3056 §2
_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291 §2.4; elsewhere nothing is assigned to everybody
_NOBODYS = (
    ipaddress.ip_network("192.0.0.0/24"),  # of protocols (RFC 6890 §2.1), about whose few exceptions Pythons differ
    ipaddress.ip_network("2001::/23"),  # the same (RFC 2928)
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4 once (RFC 7526)
    ipaddress.ip_network("3fff::/20"),  # documentation (RFC 9637)
    ipaddress.ip_network("168.63.129.16/32"),  # the host a virtual machine on Azure runs on
)


def is_public(text: str) -> bool:
    """Whether an address leads somewhere everybody means the same: not private, loopback, link-local, multicast.

    An IPv6 address that carries an IPv4 one is judged by that one, for a gateway on the way would unwrap it.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    carried = _carried(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST and not carried:
        return False  # such as the ways to write an IPv4 address that nobody unwraps any more (::127.0.0.1)
    return all(map(_is_everybodys, carried)) if carried else _is_everybodys(address)  # Pythons differ about carriers


def _is_everybodys(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in each for each in _NOBODYS)


def _carried(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    return [ipaddress.IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)] if address in _6TO4 else []


def is_loopback(host: str) -> bool:
    """Whether a host, as a URL names it, is this machine beyond doubt: ``localhost`` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
