"""Where a request goes: an origin in its parts."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from apim_middleware.errors import ConnectFailed

_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """``scheme://host[:port]`` in its parts; the host without brackets, the port always known."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """What a ``Host`` field says of it, written in one way."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}").encode()


@lru_cache(maxsize=1024)
def parsed(text: str) -> Origin:
    """The parts of an origin. Raises ConnectFailed when it is none of http or https; a user name is left out."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        host.encode("ascii")
    except (ValueError, KeyError) as error:
        raise ConnectFailed("this is no origin of http or https") from error
    if not host:
        raise ConnectFailed("this origin names no host")
    return Origin(parts.scheme, host, port)
