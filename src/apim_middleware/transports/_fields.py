"""What the fields of a transport may hold; mistakes are ConfigErrors of the transport."""

import ssl
from collections.abc import Callable

from apim_middleware._config import awaits, check
from apim_middleware.errors import ConfigError

NO_FILE = "Give True, False or an ssl.SSLContext: ssl.create_default_context(cafile=...) for a file of authorities"
"""The cure for what is no ``verify``, where a transport has no field for such a file."""


def check_verify(owner: str, verify: object, cure: str) -> None:
    """Exactly True, False or a context: nothing else may turn the check of certificates off, or seem to be heard."""
    check(owner, "verify", verify, bool | ssl.SSLContext, cure=cure)


def check_idle(owner: str, idle: float) -> None:
    """Seconds a connection is kept."""
    check(owner, "idle", idle, float)
    if not idle >= 0:
        raise ConfigError(owner, "idle", f"{idle} is no time", "Give seconds, 0 to keep nothing")


def check_uds(owner: str, uds: str | None) -> None:
    """The path of a Unix socket."""
    check(owner, "uds", uds, str | None)
    if uds == "":
        raise ConfigError(owner, "uds", "'' is no path", "Give the path of a Unix socket, or leave it out")


def check_admits(owner: str, admits: Callable[[str], bool] | None) -> None:
    """A judge of addresses that answers at once: a coroutine would be true of every address."""
    check(owner, "admits", admits, Callable[[str], bool] | None)
    if awaits(admits):
        raise ConfigError(owner, "admits", "is async", "Give a plain function of an address")
