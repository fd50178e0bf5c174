"""One query for all requests that mean the same: what the key of a cache has, and what the app gets."""

from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import unquote_to_bytes


class QueryRule(NamedTuple):
    """Which parameters stay: those of ``only`` (None: all) but not those of ``without``; and whether order matters.

    A name that ends in ``*`` stands for all that begin so.
    """

    only: tuple[str, ...] | None
    without: tuple[str, ...]
    sort: bool

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return self.only is not None or bool(self.without) or self.sort

    def of(self, query: bytes) -> bytes:
        """The query as it is kept and sent on; parameters that stay are byte for byte what they were."""
        if not query:
            return query
        parts = [part for part in query.split(b"&") if part and self.keeps(_name(part))]
        if self.sort:
            parts.sort(key=_name)  # stable: the values of one name stay in their order
        return b"&".join(parts)

    def keeps(self, name: str) -> bool:
        """Whether a parameter of this name stays."""
        return not _among(name, self.without) and (self.only is None or _among(name, self.only))


def _name(part: bytes) -> str:
    return unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")).decode("utf-8", "replace")


def _among(name: str, names: Collection[str]) -> bool:
    return any(name.startswith(each[:-1]) if each[-1:] == "*" else name == each for each in names)
