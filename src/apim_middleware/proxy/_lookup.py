"""Looking members up: the addresses of a host, and the SRV records of a service."""

from typing import NamedTuple

import anyio

from apim_middleware.errors import ConfigError
from apim_middleware.transports._resolving import Resolver

_LONGEST = 5.0
"""Seconds a lookup may take."""

_names = Resolver()


class LookupFailed(Exception):
    """Nothing was found out; what was known before goes on."""


class Target(NamedTuple):
    """One SRV record (RFC 2782): where a service is, and how much of it."""

    host: str
    port: int
    weight: int
    priority: int


async def addresses(host: str, port: int) -> list[str]:
    """Every address of a host, sorted. Raises LookupFailed."""
    try:
        with anyio.fail_after(_LONGEST):
            found = await _names.find(host, port)
    except (OSError, UnicodeError) as error:  # a TimeoutError is one
        raise LookupFailed(f"no address of {host} was found: {error or type(error).__name__}") from error
    # with a zone, the last of four, it is no part of a URL (RFC 4007 §11)
    return sorted({str(address[0]) for _, address in found if not any(address[3:])})


async def targets(name: str, server: tuple[str, int] | None) -> tuple[list[Target], float]:
    """The SRV records of a name, and the seconds for which they hold. Raises LookupFailed.

    ``server`` is the address and port of who is asked; None for those of the system.
    """
    import dns.asyncbackend
    import dns.asyncresolver
    import dns.exception

    try:
        resolver = dns.asyncresolver.Resolver(configure=server is None)
        if server is not None:
            resolver.nameservers, resolver.port = [server[0]], server[1]
        here = dns.asyncbackend.get_backend(dns.asyncbackend.sniff())  # the library remembers the first it met
        answer = await resolver.resolve(name, "SRV", lifetime=_LONGEST, backend=here)
    except (dns.exception.DNSException, OSError) as error:
        raise LookupFailed(f"no SRV record of {name} was found: {type(error).__name__}") from error
    found = [Target(str(each.target).rstrip("."), each.port, each.weight, each.priority) for each in answer]
    if not answer.rrset or [each.host for each in found] == [""]:  # "the service is decidedly not available"
        raise LookupFailed(f"{name} is said not to be available")
    return sorted(found), float(answer.rrset.ttl)


def check_installed() -> None:
    """SRV records need a library. Raises ConfigError."""
    try:
        import dns.asyncresolver  # noqa: F401
    except ImportError:
        cure = "Install apim-middleware[dns], or name the members by their hosts"
        raise ConfigError("Service", "record", "needs the package dnspython", cure) from None
