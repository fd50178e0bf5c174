"""Where the members of a pool are: those that are written down, and those that are looked up now and then."""

import logging
import re
from collections.abc import Callable
from math import inf
from typing import TypeVar

import anyio

from apim_middleware.proxy._lookup import LookupFailed, Target, addresses, targets
from apim_middleware.proxy._node import Place
from apim_middleware.proxy.members import MOST, Entry, Member, Members, Service
from apim_middleware.transports._origins import parsed as parsed_origin

log = logging.getLogger("apim_middleware")

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_LEAST_WEIGHT = 0.01  # of a record that says 0: "very small chance of being selected" (RFC 2782)
_SOONEST = 1.0
_AFTER_A_FAILURE = 5.0
_AT_ONCE = 32

Found = TypeVar("Found", str, Target)


class Roster:
    """The places of all members, as they are known by now."""

    def __init__(self, members: Members) -> None:
        """Only what is written down is known yet."""
        self._members = members
        self._addresses: dict[str, list[str]] = {}
        self._targets: dict[str, list[Target]] = {}
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
            isinstance(entry, Service) and entry.url not in self._targets and self._due.get(entry.url, -inf) <= now
            for entry in self._members
        )

    async def look_up(self, clock: Callable[[], float], changed: Callable[[], None]) -> float:
        """Look up what is due, several at once, and give the seconds until the next thing is.

        ``changed`` is called whenever somebody is somewhere else.
        The time until then begins when it is done: a server that is silent can take longer than the wait after it.
        """
        now, limit = clock(), anyio.CapacityLimiter(_AT_ONCE)

        async def look_up(entry: Entry) -> None:
            async with limit:
                before, seconds = self._version, await self._lasts(entry)
            self._due[entry.url] = clock() + seconds
            if self._version != before:
                changed()

        async with anyio.create_task_group() as tasks:
            for entry in self._members:
                if _every(entry) is not None and self._due.get(entry.url, -inf) <= now:
                    tasks.start_soon(look_up, entry)
        now = clock()
        self._forget_gone()
        left = [self._due.get(entry.url, now) - now for entry in self._members if _every(entry) is not None]
        return max(_SOONEST, min(left, default=_SOONEST))

    def _forget_gone(self) -> None:
        for gone in self._due.keys() - {entry.url for entry in self._members}:
            del self._due[gone]
            self._addresses.pop(gone, None)
            self._targets.pop(gone, None)

    async def _lasts(self, entry: Entry) -> float:
        """Find out where an entry is, and give the seconds until it should be looked up again."""
        every = _every(entry) or _SOONEST
        try:
            return await self._found(entry, every)
        except Exception as error:  # of one look-up, which is no reason for the others to fail
            known = isinstance(error, LookupFailed)
            log.warning("upstream-lookup-failed: %s", error if known else entry.url, exc_info=not known)
            return min(every, _AFTER_A_FAILURE)

    async def _found(self, entry: Entry, every: float) -> float:
        """Find out where an entry is, and give the seconds for which that holds. Raises LookupFailed."""
        if isinstance(entry, Service):
            records, holds = await targets(entry.record, entry.server)
            self._keep(self._targets, entry.url, [each for each in records if _can_be_asked(entry, each)])
            return min(every, max(holds, _SOONEST))
        origin = parsed_origin(entry.upstream.origin)
        self._keep(self._addresses, entry.url, await addresses(origin.host, origin.port))
        return every

    def _keep(self, known: dict[str, list[Found]], url: str, found: list[Found]) -> None:
        if found and found != known.get(url):
            known[url] = found
            self._version += 1

    def _places_of(self, entry: Entry) -> list[Place]:
        if isinstance(entry, Service):
            return [_of_target(entry, *each) for each in self._targets.get(entry.url, ())]
        if entry.lookup is None or entry.url not in self._addresses:
            return [_of_member(entry)]
        return [_of_address(entry, each) for each in self._addresses[entry.url]]


def _every(entry: Entry) -> float | None:
    return entry.every if isinstance(entry, Service) else entry.lookup


def _of_member(member: Member) -> Place:
    return Place(member.label, member.url, "", member.weight, member.priority, member.url, member.credential)


def _of_address(member: Member, address: str) -> Place:
    upstream, port = member.upstream, parsed_origin(member.upstream.origin).port
    host = f"[{address}]" if ":" in address else address
    url = f"{upstream.origin.split(':', 1)[0]}://{host}:{port}{upstream.prefix.decode()}"
    name, authority = f"{member.label} {address}", upstream.authority.decode()
    return Place(name, url, authority, member.weight, member.priority, member.url, member.credential)


def _can_be_asked(service: Service, target: Target) -> bool:
    if target.port and _HOST.fullmatch(target.host) is not None:
        return True
    log.warning("upstream-lookup-failed: a record of %s names nobody who could be asked", service.record)
    return False


def _of_target(service: Service, host: str, port: int, weight: int, priority: int) -> Place:
    url = f"{service.scheme}://{host}:{port}{service.path}"
    return Place(url, url, "", weight or _LEAST_WEIGHT, priority, service.url)
