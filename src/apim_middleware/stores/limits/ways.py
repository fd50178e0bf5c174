"""How one counter is kept in a storage of ``limits``: by what the strategies of that package build on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import partial
from hashlib import blake2b
from math import ceil, floor, inf
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.calendars import period_of

T = TypeVar("T")

Plan: TypeAlias = Generator[Callable[[], Any], Any, T]
"""What to ask the storage, one call after the other; it is given the answers, and gives back what came of it."""

_GRAIN, _MILLISECOND = 1e-6, 1e-3
"""Windows turn this much early, and times that a storage tells are as exact as this."""


class Backend(NamedTuple):
    """A storage, and what is particular about it."""

    storage: Any
    forgets_after: float
    """Seconds; what is to be kept for longer is not."""

    decrease: Callable[[str, int], Any] | None
    """How units are taken off where a negative increment does not do it."""


class Counter(ABC):
    """One counter, as it stood when it was looked at last."""

    asks: ClassVar[tuple[str, ...]] = ()
    """What the storage must be able to do."""

    gives_back = False
    """Whether units can be taken off again."""

    used = 0

    def __init__(self, backend: Backend, key: str, limit: Limit, now: float) -> None:
        """Nothing is known of it yet; ``now`` is what the wall clock says."""
        self.storage, self.decrease = backend.storage, backend.decrease
        self.limit, self.now = limit, now
        told = limit._replace(quota=int(limit.quota), window=float(limit.window), start=float(limit.start))
        digest = blake2b(repr((key, *told)).encode("ascii", "backslashreplace"), digest_size=16).hexdigest()
        self.name = f"apim-{digest}"

    @classmethod
    def problem(cls, limit: Limit, backend: Backend) -> str | None:
        """Why a limit cannot be counted this way, if it cannot."""
        if not float(limit.window).is_integer():
            return "the window is no whole number of seconds"
        if not all(hasattr(backend.storage, each) for each in cls.asks):
            return f"{type(backend.storage).__name__} has no {cls.asks[0]}"
        return None

    def has_room(self, cost: int) -> bool:
        """Whether so many units are free."""
        return not cost or self.used + cost <= self.limit.quota

    def tally(self, cost: int, *, allowed: bool) -> Tally:
        """What a hit is told."""
        free = self.limit.quota - self.used
        wait = 0.0 if free >= cost else self.wait(cost) if cost <= self.limit.quota else inf
        return Tally(allowed, max(free, 0), self.reset() if self.used else 0.0, wait, self.now)

    @abstractmethod
    def look(self) -> Plan[None]:
        """See how much is used."""

    @abstractmethod
    def reset(self) -> float:
        """Seconds until nothing is used."""

    @abstractmethod
    def wait(self, cost: int) -> float:
        """Seconds until so many units are free."""

    @abstractmethod
    def count(self, cost: int) -> Plan[bool]:
        """Count units as used now if there is room for them."""

    def put(self, units: int) -> Plan[None]:
        """Count so many units where none are."""
        yield from self.count(min(units, self.limit.quota))

    @abstractmethod
    def forget(self) -> Plan[None]:
        """Count nothing any more."""

    def change(self, units: int) -> Plan[None]:
        """Count more or fewer units."""
        yield from ()

    def covers(self, counted: float) -> bool:
        """Whether what was counted then still counts."""
        return False


class _Fixed(Counter):
    """A number for each window of the clock or the calendar, which the storage forgets some time after."""

    gives_back = True

    def __init__(self, backend: Backend, key: str, limit: Limit, now: float) -> None:
        super().__init__(backend, key, limit, now)
        window, self.begin, self.end = _window(limit, now + _GRAIN)
        self.name = f"{self.name}-{window}"
        self.life = ceil(self.end - self.begin)

    @classmethod
    def problem(cls, limit: Limit, backend: Backend) -> str | None:
        if limit.window == inf:
            return "storages of limits forget everything some time"
        # The longest month has a tenth more days than the shortest, and no window of a calendar is told more exactly.
        length = 1.1 * limit.window if limit.algorithm == "calendar" else limit.window
        return _forgotten(length, backend)

    def look(self) -> Plan[None]:
        self.used = yield partial(self.storage.get, self.name)

    def reset(self) -> float:
        return self.end - self.now

    def wait(self, cost: int) -> float:
        return self.end - self.now

    def count(self, cost: int) -> Plan[bool]:
        self.used = yield partial(self.storage.incr, self.name, self.life, cost)
        if self.used <= self.limit.quota:
            return True
        yield from self.change(-cost)
        return False

    def put(self, units: int) -> Plan[None]:
        yield from self.change(units)

    def forget(self) -> Plan[None]:
        yield partial(self.storage.clear, self.name)

    def change(self, units: int) -> Plan[None]:
        if units < 0 and self.decrease is not None:
            yield partial(self.decrease, self.name, -units)
            return
        used = yield partial(self.storage.incr, self.name, self.life, units)
        if used < 0:  # what was given back had been forgotten
            yield partial(self.storage.incr, self.name, self.life, -used)

    def covers(self, counted: float) -> bool:
        return counted + _GRAIN >= self.begin  # what another machine's clock calls the future is now


class _Log(Counter):
    asks = ("acquire_entry", "get_moving_window")
    start = 0.0

    def look(self) -> Plan[None]:
        start, self.used = yield partial(self.storage.get_moving_window, *self._arguments)
        self.start = start or self.now

    @property
    def _arguments(self) -> tuple[str, int, int]:
        return self.name, self.limit.quota, int(self.limit.window)

    def reset(self) -> float:
        return self.limit.window + _MILLISECOND

    def wait(self, cost: int) -> float:
        if cost == 1:
            return max(self.start + self.limit.window - self.now, 0.0) + _MILLISECOND
        return self.limit.window + _MILLISECOND

    def count(self, cost: int) -> Plan[bool]:
        passed: bool = yield partial(self.storage.acquire_entry, *self._arguments, cost)
        self.used += cost * passed
        return passed

    def forget(self) -> Plan[None]:
        yield partial(self.storage.clear, self.name)


class _Sliding(Counter):
    asks = ("acquire_sliding_window_entry", "get_sliding_window", "clear_sliding_window")
    before, before_left, here, left = 0, 0.0, 0, 0.0

    @classmethod
    def problem(cls, limit: Limit, backend: Backend) -> str | None:
        return super().problem(limit, backend) or _forgotten(2 * limit.window, backend)

    def look(self) -> Plan[None]:
        self.before, self.before_left, self.here, left = yield partial(
            self.storage.get_sliding_window, self.name, int(self.limit.window)
        )
        self.left = left - self.limit.window if left > self.limit.window else self.limit.window
        self.used = self.here + floor(self.before * self.before_left / self.limit.window)

    def reset(self) -> float:
        if self.here:
            return self.left + self._faded(self.here, self.limit.window, 0)
        return self._faded(self.before, self.before_left, 0)

    def wait(self, cost: int) -> float:
        room = self.limit.quota - self.here - cost
        if room >= 0:
            return self._faded(self.before, self.before_left, room)
        return self.left + self._faded(self.here, self.limit.window, self.limit.quota - cost)

    def _faded(self, units: int, left: float, spare: int) -> float:
        """Seconds until no more than ``spare`` of the units of a window count, which fades for so long yet."""
        return max(left - (spare + 1) * self.limit.window / units, 0.0) + _MILLISECOND if units else 0.0

    def count(self, cost: int) -> Plan[bool]:
        window = int(self.limit.window)
        ask = self.storage.acquire_sliding_window_entry
        passed: bool = yield partial(ask, self.name, self.limit.quota, window, cost)
        self.here, self.used = self.here + cost * passed, self.used + cost * passed
        self.left = self.left or self.limit.window
        return passed

    def forget(self) -> Plan[None]:
        yield partial(self.storage.clear_sliding_window, self.name, int(self.limit.window))


WAYS: dict[str, type[Counter]] = {"fixed": _Fixed, "calendar": _Fixed, "sliding": _Sliding, "log": _Log}


def _window(limit: Limit, now: float) -> tuple[int, float, float]:
    """The number of the window that runs, when it began, and when it ends."""
    if limit.algorithm == "calendar":
        begin, end = period_of(limit.calendar, now)
        return int(begin), begin, end
    number = floor((now - limit.start) / limit.window)
    begin = limit.start + number * limit.window
    return number, begin, begin + limit.window


def _forgotten(seconds: float, backend: Backend) -> str | None:
    if seconds <= backend.forgets_after:
        return None
    return f"{type(backend.storage).__name__} keeps nothing for longer than {backend.forgets_after / 86_400:g} days"
