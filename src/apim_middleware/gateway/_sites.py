"""Which API a host and a path belong to: the host that is named most closely, then the longest path."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from apim_middleware.exchange import Exchange
from apim_middleware.model._values import MOST_REVISIONS

T = TypeVar("T")

_REMEMBERED = 1024
_MARK = ";rev="
_DIGITS = len(str(MOST_REVISIONS))


class Paths(dict[str, "Paths[T]"]):
    """What begins at which path. What is below a path is one, too: a dict of the segments that go on from there."""

    __slots__ = ("_here",)

    def __init__(self) -> None:
        """Hold nothing yet, at no path."""
        super().__init__()
        self._here: T | None = None

    def put(self, segments: Iterable[str], what: T) -> None:
        """Let something begin at a path."""
        node = self
        for segment in segments:
            node = node.setdefault(segment, Paths())
        node._here = what

    def find(self, segments: Sequence[str]) -> tuple[T, int, int] | None:
        """What begins at the longest part of a path, how many segments that is, and the revision asked for, or 0.

        ``segments`` begins with the nothing before the first slash.
        """
        node, found, at, taken = self, self._here, 1, 1
        for segment in segments[1:]:
            child = node.get(segment)
            if child is None:
                if _MARK in segment and (marked := node._marked(segments, at)) is not None:
                    return marked
                break
            node, at = child, at + 1
            if node._here is not None:
                found, taken = node._here, at
                if not node:  # nothing begins further down
                    break
        return None if found is None else (found, taken, 0)

    def _marked(self, segments: Sequence[str], at: int) -> tuple[T, int, int] | None:
        """What begins here under a segment that also says which revision is meant, unless more begins further down."""
        text, number = revision_in(segments[at])
        node = self.get(text) if text else self if at == 1 else None
        if not number or node is None or node._here is None or node._goes_on(segments, at + 1):
            return None
        return node._here, at + 1, number

    def _goes_on(self, segments: Sequence[str], at: int) -> bool:
        """Whether something begins further down this path, marked or not: what is above it must not stand in for it."""
        node: Paths[T] | None = self
        for segment in segments[at:]:
            node = node.get(revision_in(segment)[0]) if node is not None else None
            if node is not None and node._here is not None:
                return True
        return False


def revision_in(segment: str) -> tuple[str, int]:
    """A segment without the mark of a revision, and the number in that: 0 where there is none."""
    text, mark, number = segment.partition(_MARK)
    if not mark or not number.isascii() or not number.isdecimal() or len(number) > _DIGITS or number.startswith("0"):
        return segment, 0
    return text, int(number)


class Sites(Generic[T]):
    """Paths by host."""

    def __init__(self) -> None:
        """Know no host yet."""
        self._named: dict[str, Paths[T]] = {}
        self._every: Paths[T] = Paths()
        self._remembered: dict[bytes | None, tuple[Paths[T], ...]] = {}

    def at(self, host: str) -> Paths[T]:
        """The paths of one host, of all below one (``*.example.com``), or of every host (``""``)."""
        return self._named.setdefault(host, Paths()) if host else self._every

    def find(self, exchange: Exchange, segments: Sequence[str]) -> tuple[T, int, int] | None:
        """What begins at the longest part of a path of the closest host; see ``Paths.find``."""
        if not self._named:
            return self._every.find(segments)
        for paths in self._of(exchange.header(b"host")):
            if (found := paths.find(segments)) is not None:
                return found
        return None

    def _of(self, host: bytes | None) -> tuple[Paths[T], ...]:
        """Where to look for what a ``Host`` field names, the closest first."""
        found = self._remembered.get(host)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[host] = tuple(self._looked_up(host))
        return found

    def _looked_up(self, host: bytes | None) -> Iterable[Paths[T]]:
        name = _name_of(host or b"")
        if name in self._named:
            yield self._named[name]
        while "." in name:
            name = name.partition(".")[2]
            if f"*.{name}" in self._named:
                yield self._named[f"*.{name}"]
        yield self._every


def _name_of(host: bytes) -> str:
    """The name in a ``Host`` field: no port, no dot at its end, lower case."""
    text = host.decode("latin-1").lower()
    name = text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]
    return name.removesuffix(".")
