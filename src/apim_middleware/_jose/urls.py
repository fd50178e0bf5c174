"""URLs of documents that decide who is let in: which may be asked at all."""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from apim_middleware._config import Configured
from apim_middleware._http.reach import is_loopback, is_public
from apim_middleware.errors import ConfigError

_PRINTABLE = re.compile(r"[!-~]+")
_HTTPS = "Use https, or say allow_http=True where nobody else is on the way"


class Allowance(NamedTuple):
    """What is allowed of a URL that usually is not."""

    http: bool = False
    """Plain http on another machine."""

    private: bool = False
    """Addresses that are not of the public internet."""

    here: bool = True
    """This machine, named as such (``localhost``, ``127.0.0.1``), with http too."""


class Fault(NamedTuple):
    """What is wrong with a URL, and what to do about it; ``secret`` says that the URL must not be shown."""

    problem: str
    cure: str
    secret: bool = False


def fault_of(url: str, allowed: Allowance) -> Fault | None:
    """What speaks against asking this URL, if anything does."""
    parts = _parts(url)
    if "@" in url:  # not shown: what stands before it may be a password
        return Fault("names a user", "Leave out what ends in @", secret=True)
    if parts is None or not parts.hostname or not _PRINTABLE.fullmatch(url) or "#" in url:
        return Fault("is no URL to ask", 'Write "https://issuer.example/keys"')
    here = allowed.here and is_loopback(parts.hostname)
    if parts.scheme != "https" and not (parts.scheme == "http" and (allowed.http or here)):
        return Fault("is not https, so anybody on the way could change the answer", _HTTPS)
    if not (here or allowed.private) and _is_private(parts.hostname):
        return Fault("leads to a private address", "Say allow_private=True if that is meant")
    return None


def mistake_of(policy: Configured, field: str, fault: Fault) -> ConfigError:
    """What is wrong with a field that holds a URL with this fault; with a password in it, it is not shown."""
    if fault.secret:
        return ConfigError(type(policy).__name__, field, f"the URL {fault.problem}", fault.cure)
    return policy.mistake(field, fault.problem, fault.cure)


def is_here(url: str) -> bool:
    """Whether a URL names this machine beyond doubt."""
    parts = _parts(url)
    return parts is not None and parts.hostname is not None and is_loopback(parts.hostname)


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def _is_private(host: str) -> bool:
    """Whether a host is written as an address that is not public; where a name leads is judged when it is dialled."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return not is_public(host)
