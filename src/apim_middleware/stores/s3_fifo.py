"""A cache in memory within a budget of bytes, in which those things stay that are asked for again.

What makes room is chosen by S3-FIFO (Yang et al., SOSP 2023): what is new stands in a small queue, a tenth of the
bytes, and leaves from there unless it is asked for; what was asked for moves to the main queue, where each use since
it came round last is a second chance; and what left early and comes back goes to the main queue at once. So things
that are asked for once, as by a crawler, push out each other and little else. On Zipf traffic, with and without such
scans, it finds more than the least recently used order and a little more than SIEVE; the benchmark ``eviction`` prints
all three. A use counts up a number in what was found anyway, which is less work than moving a key in an ordered dict;
W-TinyLFU would write every use and every miss down in the counters of a sketch, which here is more than the lookup.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from sys import getsizeof
from typing import Generic

from apim_middleware.stores.slots import PLACE, K, Kept, Link, Queue, Slot, Tag, V

__all__ = ["PLACE", "Kept", "S3Fifo"]

_NEW = 10
"""What is new may take one such part of the bytes."""

_USES = 3
"""So many uses are counted: as often a thing comes round again in the main queue before it has to go."""

_CHANCES = 32
"""So many things may come round again when one is to go: then the next has to, so that nobody waits for a walk."""

_SWEPT = 2
"""At how many places it is looked whether their time is over, whenever something comes."""


class S3Fifo(Generic[K, V]):
    """Things under keys within a budget of bytes; what is not asked for again makes room. Never waits.

    Every call takes the same time however much is held, but for ``clear``, ``drop_if``, and what it takes Python when a
    dict grows. Nothing runs in the background: things past their time, or of a tag that was purged, are found no more,
    and leave as others come.
    """

    def __init__(self, max_bytes: int) -> None:
        """Hold at most ``max_bytes``."""
        self.max_bytes = max_bytes
        self.evicted = 0
        """How many things had to make room before their time was over."""
        self._slots: dict[K, Slot[K, V]] = {}
        self.slot_of = self._slots.get
        """Where the thing under a key stands, if there is one, for ``use``: ``find`` in two steps, one of them C."""
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.held = 0
        self._slots.clear()
        self._tags: dict[Hashable, Tag] = {}
        self._new, self._main = Queue(), Queue()
        self._main.enter(self._new)  # one ring: what is new, then the rest
        self._hand: Link = self._new
        self._left: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, key: K, now: float) -> V | None:
        """The thing under this key, which counts as a use of it."""
        slot = self._slots.get(key)
        return None if slot is None else self.use(slot, now)

    def use(self, slot: Slot[K, V], now: float) -> V | None:
        """The thing that stands there, if its time is not over."""
        if slot.ends <= now or (slot.tags and slot.purged()):
            self._expire(slot)
            return None
        if slot.uses < _USES:
            slot.uses += 1
        return slot.thing

    def keep(self, key: K, thing: V, now: float, tags: Collection[Hashable] = ()) -> bool:
        """Put a thing under this key in place of what was there; False when it is larger than the whole cache.

        ``purge`` of any of its ``tags`` takes it away. What it takes to know them counts as well.
        """
        slot = self._slots.get(key)
        if slot is None:
            slot = self._entered(key)
        self._fill(slot, thing, tags)
        if slot.size + sum([tag.size for tag in slot.tags]) > self.max_bytes:
            self._forget(slot)
            return False
        self._make_room(slot, now)
        self._sweep(now)
        return True

    def drop(self, key: K) -> None:
        """Forget the key."""
        slot = self._slots.get(key)
        if slot is not None:
            self._forget(slot)

    def purge(self, tag: Hashable) -> None:
        """Forget everything that has this tag now."""
        found = self._tags.pop(tag, None)
        if found is not None:
            found.current = False
            self.held -= found.size

    def drop_if(self, doomed: Callable[[K], bool]) -> None:
        """Forget the keys of which this is true. It looks at every key, so it is not for a busy moment."""
        for slot in [slot for key, slot in self._slots.items() if doomed(key)]:
            self._forget(slot)

    # One slot

    def _entered(self, key: K) -> Slot[K, V]:
        """A slot for a new key, at the end of a queue."""
        left = hash(key)
        queue = self._new
        if left in self._left:
            del self._left[left]
            queue = self._main
        slot = self._slots[key] = Slot(key, queue)
        slot.enter(self._end(queue))
        return slot

    def _end(self, queue: Queue) -> Queue:
        return self._main if queue is self._new else self._new

    def _fill(self, slot: Slot[K, V], thing: V, tags: Collection[Hashable]) -> None:
        before = slot.tags
        slot.tags = tuple([self._tagged(tag) for tag in tags]) if tags else ()
        if before:
            self._untag(before)
        size = thing.size + getsizeof(slot.tags) if tags else thing.size
        self._weigh(slot.queue, size - slot.size)
        slot.thing, slot.size, slot.ends = thing, size, thing.until

    def _weigh(self, queue: Queue, size: int) -> None:
        queue.held += size
        self.held += size

    def _tagged(self, name: Hashable) -> Tag:
        tag = self._tags.get(name)
        if tag is None:
            tag = self._tags[name] = Tag(name)
            self.held += tag.size
        tag.things += 1
        return tag

    def _untag(self, tags: tuple[Tag, ...]) -> None:
        for tag in tags:
            tag.things -= 1
            if not tag.things and tag.current:
                del self._tags[tag.name]
                self.held -= tag.size

    def _forget(self, slot: Slot[K, V]) -> None:
        del self._slots[slot.key]
        self._unlink(slot)
        self._weigh(slot.queue, -slot.size)
        if slot.tags:
            self._untag(slot.tags)

    def _unlink(self, slot: Slot[K, V]) -> None:
        if self._hand is slot:
            self._hand = slot.after
        slot.leave()

    def _expire(self, slot: Slot[K, V]) -> None:
        """Forget what is over; if it was asked for, what takes its place need not prove itself again."""
        self._forget(slot)
        if slot.uses or slot.queue is self._main:
            self._remember(slot.key)

    def _remember(self, key: K) -> None:
        """Know the key again for a while: half as many as there are things, at most."""
        self._left[hash(key)] = None
        for _ in range(2):
            if 2 * len(self._left) > len(self._slots):
                self._left.popitem(last=False)

    # Room

    def _make_room(self, kept: Slot[K, V], now: float) -> None:
        """Push out what no longer fits, but not what was just kept."""
        share = self.max_bytes // _NEW
        while self.held > self.max_bytes:
            if self._new.held > share and (slot := self._first(self._new, kept)):
                self._leave_new(slot, now)
            else:
                self._leave_main(kept, now)
        # While there is plenty of room nobody need prove anything, and later it is not to be sorted out all at once.
        while self._new.held > share and self.held + share < self.max_bytes and (slot := self._first(self._new, kept)):
            self._move(slot)

    def _first(self, queue: Queue, kept: Slot[K, V]) -> Slot[K, V] | None:
        """What came first into a queue, and was not just kept."""
        first = queue.after if queue.after is not kept else kept.after
        return first if isinstance(first, Slot) else None

    def _leave_new(self, slot: Slot[K, V], now: float) -> None:
        if self._over(slot, now):
            self._expire(slot)
        elif slot.uses:
            slot.uses = 0
            self._move(slot)
        else:
            self._evict(slot)
            self._remember(slot.key)

    def _leave_main(self, kept: Slot[K, V], now: float) -> None:
        for chance in range(_CHANCES):
            slot = self._first(self._main, kept) or self._first(self._new, kept)
            if slot is None:  # all that is here was just kept, and that fits
                break
            if self._over(slot, now):
                self._expire(slot)
                break
            if not slot.uses or chance == _CHANCES - 1:
                self._evict(slot)
                break
            slot.uses -= 1
            self._move(slot)

    def _move(self, slot: Slot[K, V]) -> None:
        """Let it stand at the end of the main queue."""
        self._unlink(slot)
        slot.enter(self._new)
        slot.queue.held -= slot.size
        slot.queue = self._main
        self._main.held += slot.size

    def _evict(self, slot: Slot[K, V]) -> None:
        self._forget(slot)
        self.evicted += 1

    def _over(self, slot: Slot[K, V], now: float) -> bool:
        return slot.ends <= now or slot.purged()

    def _sweep(self, now: float) -> None:
        """Look at the next few things, wherever they stand, and take away what is over."""
        for _ in range(_SWEPT):
            slot = self._hand
            self._hand = slot.after
            if isinstance(slot, Slot) and self._over(slot, now):
                self._expire(slot)
