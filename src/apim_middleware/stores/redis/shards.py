"""The places that keys have on a server or in a cluster."""

import re
from collections.abc import Iterable
from zlib import crc32

from apim_middleware._config import check
from apim_middleware.errors import ConfigError, StoreError

_PREFIX = re.compile(r"[!-z|~]{1,64}", re.ASCII)  # braces would end the part that a cluster goes by


class Shards:
    """The places of keys: each is a hash tag, and a cluster keeps everything with one tag on one server."""

    def __init__(self, owner: str, prefix: str, count: int) -> None:
        """One place named by the prefix, or so many that are numbered besides."""
        check(owner, "prefix", prefix, str)
        check(owner, "shards", count, int)
        if not _PREFIX.fullmatch(prefix):
            cure = "Give up to 64 printable ASCII characters without space and braces"
            raise ConfigError(owner, "prefix", f"{prefix!r} cannot begin a key", cure)
        if not 1 <= count <= 16_384:
            raise ConfigError(owner, "shards", f"{count} is no number of shards", "Give 1 up to 16384")
        names = [prefix] if count == 1 else [f"{prefix}/{number}" for number in range(count)]
        self.spaces = [f"{{{name}}}".encode() for name in names]
        self.only = self.spaces[0] if count == 1 else None
        """The one place there is, if so: then nobody need look at keys."""

    def space(self, keys: Iterable[str]) -> bytes:
        """What the names of these keys begin with. Raises StoreError when that differs."""
        spaces = self.spaces
        found = {spaces[crc32(key.encode("utf-8", "surrogatepass")) % len(spaces)] for key in keys}
        if len(found) > 1:
            raise StoreError("keys in different shards cannot be counted in one step: use shards=1")
        return found.pop()
