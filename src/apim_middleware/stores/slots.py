"""Where things stand in an ``S3Fifo``: slots in a ring of two queues, and the tags that things have in common."""

from collections.abc import Hashable
from sys import getsizeof
from typing import Generic, Protocol, TypeVar


class Kept(Protocol):
    """A thing in the cache: how many bytes it takes with its key, and when its time is over; looked at once."""

    @property
    def size(self) -> int:
        """Bytes of memory, all told, with ``PLACE`` for its place."""
        ...

    @property
    def until(self) -> float:
        """The moment its time is over, on the clock of its owner."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Kept)


class Link:
    """A place in the ring: in front of what came later, behind what came before."""

    __slots__ = ("after", "before")

    after: "Link"
    before: "Link"

    def leave(self) -> None:
        """Stand nowhere."""
        self.before.after, self.after.before = self.after, self.before
        del self.before, self.after  # or what left would hold itself, until a garbage collection

    def enter(self, after: "Link") -> None:
        """Stand in front of another."""
        self.before, self.after = after.before, after
        self.before.after = after.before = self


class Queue(Link):
    """Where a queue begins in the ring; it ends where the other begins."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        """Be a ring of its own."""
        self.before = self.after = self
        self.held = 0


class Tag:
    """What some things have in common, until it is purged."""

    __slots__ = ("current", "name", "size", "things")

    def __init__(self, name: Hashable) -> None:
        """Be had by nothing yet."""
        self.name, self.current, self.things = name, True, 0
        self.size = _TAG + getsizeof(name)


class Slot(Link, Generic[K, V]):
    """A thing in its place."""

    __slots__ = ("ends", "key", "queue", "size", "tags", "thing", "uses")

    def __init__(self, key: K, queue: Queue) -> None:
        """Be empty, and stand nowhere."""
        self.key, self.queue, self.uses = key, queue, 0
        self.thing: V
        self.ends: float
        self.size = 0
        self.tags: tuple[Tag, ...] = ()

    def purged(self) -> bool:
        """Whether a tag of it was purged."""
        for tag in self.tags:  # noqa: SIM110 - any() takes three times as long, and this is asked at every use
            if not tag.current:
                return True
        return False


_TAG = getsizeof(Tag.__new__(Tag)) + 72
"""What a tag takes beside its name, with its place in a dict."""

PLACE = getsizeof(Slot(None, Queue())) + 208
"""What the cache spends on a thing: its slot, a place in a dict, its numbers, and the memory that it once was there."""
