"""Which addresses are of the public internet, and which only mean something to whoever stands here (RFC 6890)."""

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 §2.1
_6TO4 = ipaddress.ip_network("2002::/16")  # RFC 3056 §2


def is_public(text: str) -> bool:
    """Whether an address leads somewhere everybody means the same: not private, loopback, link-local, multicast.

    An IPv6 address that carries an IPv4 one is judged by that one too, for a gateway on the way would unwrap it.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast for each in (address, *_carried(address))) and not (
        isinstance(address, ipaddress.IPv6Address) and address.is_site_local  # RFC 3879
    )


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
