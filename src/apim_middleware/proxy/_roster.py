"""Where the members of a pool are: those that are written down, and those that are looked up now and then."""

import logging
import re
from collections.abc import Callable, Sequence
from math import inf

import anyio

from apim_middleware.proxy._lookup import LookupFailed, addresses, targets
from apim_middleware.proxy._node import Place
from apim_middleware.proxy.members import MOST, Entry, Member, Members, Service
from apim_middleware.transports._origins import parsed as parsed_origin

log = logging.getLogger("apim_middleware")

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_LEAST_WEIGHT = 0.01  # of a record that says 0: "very small chance of being selected" (RFC 2782)
_SOONEST = 1.0
_AT_ONCE = 32


class Roster:
    """The places of all members, as they are known by now."""

    def __init__(self, members: Members) -> None:
        """Only what is written down is known yet."""
        self._members = members
        self._found: dict[str, list[Place]] = {}
        self._due: dict[str, float] = {}
        self._version = 0

    @property
    def version(self) -> tuple[int, int]:
        """Another value after each change."""
        return self._members.version, self._version

    def places(self) -> list[Place]:
        """Where requests can go."""
        return [place for entry in self._members for place in self._places_of(entry)][:MOST]

    def drained(self, place: Place) -> bool:
        """Whether the member that this place belongs to is drained."""
        return self._members.drained(place.entry)

    @property
    def looks_up(self) -> bool:
        """Whether there is anything to look up."""
        return any(_every(entry) is not None for entry in self._members)

    def lacks(self, now: float) -> bool:
        """Whether a service was never found and should be looked for before a request gives up."""
        return any(
            isinstance(entry, Service) and entry.url not in self._found and self._due.get(entry.url, -inf) <= now
            for entry in self._members
        )

    async def look_up(self, clock: Callable[[], float]) -> float:
        """Look up what is due, several at once, and give the seconds until the next thing is.

        The time until then begins when all is done: a server that is silent can take longer than the wait after it.
        """
        now, limit = clock(), anyio.CapacityLimiter(_AT_ONCE)
        waits: dict[str, float] = {}
        async with anyio.create_task_group() as tasks:
            for entry in self._members:
                if _every(entry) is not None and self._due.get(entry.url, -inf) <= now:
                    tasks.start_soon(self._look_up, entry, limit, waits)
        now = clock()
        self._due.update({url: now + wait for url, wait in waits.items()})
        self._forget_gone()
        left = [self._due.get(entry.url, now) - now for entry in self._members if _every(entry) is not None]
        return max(_SOONEST, min(left, default=_SOONEST))

    def _forget_gone(self) -> None:
        for gone in self._due.keys() - {entry.url for entry in self._members}:
            del self._due[gone]
            self._found.pop(gone, None)

    async def _look_up(self, entry: Entry, limit: anyio.CapacityLimiter, waits: dict[str, float]) -> None:
        async with limit:
            waits[entry.url] = await self._looked_up(entry, _every(entry) or _SOONEST)

    async def _looked_up(self, entry: Entry, every: float) -> float:
        """Find out where an entry is, and give the seconds for which that holds."""
        try:
            if isinstance(entry, Service):
                records, holds = await targets(entry.record, entry.server)
                places = [place for each in records if (place := _of_target(entry, *each)) is not None]
                every = min(every, max(holds, _SOONEST))
            else:
                origin = parsed_origin(entry.upstream.origin)
                places = [_of_address(entry, each, origin.port) for each in await addresses(origin.host, origin.port)]
        except LookupFailed as error:
            log.warning("upstream-lookup-failed: %s", error)
            return min(every, 5.0)
        if places and places != self._found.get(entry.url):
            self._found[entry.url] = places
            self._version += 1
        return every

    def _places_of(self, entry: Entry) -> Sequence[Place]:
        found = self._found.get(entry.url)
        if found is not None and _every(entry) is not None:
            return found
        return [] if isinstance(entry, Service) else [_of_member(entry)]


def _every(entry: Entry) -> float | None:
    return entry.every if isinstance(entry, Service) else entry.lookup


def _of_member(member: Member) -> Place:
    return Place(member.label, member.url, "", member.weight, member.priority, member.url)


def _of_address(member: Member, address: str, port: int) -> Place:
    upstream = member.upstream
    host = f"[{address}]" if ":" in address else address
    url = f"{upstream.origin.split(':', 1)[0]}://{host}:{port}{upstream.prefix.decode()}"
    authority = upstream.authority.decode()
    return Place(f"{member.label} {address}", url, authority, member.weight, member.priority, member.url)


def _of_target(service: Service, host: str, port: int, weight: int, priority: int) -> Place | None:
    """The place a record names, if it is one that can be asked."""
    if not port or _HOST.fullmatch(host) is None:
        log.warning("upstream-lookup-failed: a record of %s names nobody who could be asked", service.record)
        return None
    url = f"{service.scheme}://{host}:{port}{service.path}"
    return Place(url, url, "", weight or _LEAST_WEIGHT, priority, service.url)
