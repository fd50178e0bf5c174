"""A pool at work: who is available, whose turn it is, and what each request has told of its member.

``RunningPool`` is used by whoever passes something on: ``first`` and ``another`` begin a ``Try``, and of each try it is
told what came of it (``answered``, ``failed``), if anything did; when nothing of it is under way any more, it is left.
``_checking`` asks members how they are, and ``_roster`` knows where they are.
"""

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

import anyio

from apim_middleware._loops import running_loop
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, TransportError
from apim_middleware.proxy._background import Rounds
from apim_middleware.proxy._checking import Checking
from apim_middleware.proxy._node import MemberStanding, Node, Place, Try
from apim_middleware.proxy._outcomes import kind_of, retry_after
from apim_middleware.proxy._roster import Roster
from apim_middleware.proxy._statuses import statuses_of
from apim_middleware.proxy._transports import Transports
from apim_middleware.proxy._writing import Writer
from apim_middleware.proxy.affinity import Stamp
from apim_middleware.proxy.pool import Pool
from apim_middleware.types import RawHeaders

log = logging.getLogger("apim_middleware")

_LEVELS = {"closed": logging.INFO, "well": logging.INFO, "half-open": logging.INFO}
_NOBODY = "No upstream is available for this request."


class RunningPool:
    """The members of one pool in this process, whose ``rules`` are what was configured."""

    def __init__(self, pool: Pool, env: Env, *, writer: Callable[[Place], Writer], transports: Transports) -> None:
        """``writer`` and ``transports`` have what a place needs."""
        self.rules, self.clock, self._env = pool, env.clock, env
        self.stamp = None if pool.affinity is None else Stamp(pool.affinity)
        self.count = env.count
        self.draw = pool.drawing()
        self._writer, self._transports = writer, transports
        self._balance = pool.balancing()
        self._roster = Roster(pool.members)
        self._nodes: list[Node] = []
        self._by_place: dict[tuple[str, str, str], Node] = {}
        self._by_stamp: dict[bytes, Node] = {}
        self._layered = False
        self.looks_up = False
        """Whether some members have to be looked up."""
        self._breaking = frozenset[int]() if pool.breaker is None else statuses_of(pool.breaker, "statuses")
        self._ejecting = frozenset[int]() if pool.ejection is None else statuses_of(pool.ejection, "statuses")
        self._version = (-1, -1)
        self._turns: weakref.WeakKeyDictionary[Any, _Turn] = weakref.WeakKeyDictionary()
        self._sync()
        self._checking = None if pool.health is None else Checking(pool.health, self, transports.apart())
        self._looking = Rounds(self.look_up)

    # Who

    def nodes(self) -> list[Node]:
        """The members as they are now."""
        if self._roster.version != self._version:
            self._sync()
        return self._nodes

    def first(self, key: str | None, stamps: Sequence[bytes] = ()) -> Try:
        """Begin a request at the member whose turn it is. Raises Refusal when none is available."""
        node = self._pick(key, stamps, {})
        if node is None:
            raise self._nobody()
        return node.take()

    def another(self, key: str | None, tried: Mapping[Node, float], *, only_fresh: bool = False) -> Try | None:
        """Begin a request at a member that was not ``tried``, else, unless ``only_fresh``, at one that was.

        ``tried`` says when each may be asked again: of these it is one that may be now, or the one that may be first.
        """
        node = self._pick(key, (), tried)
        return None if node is None or (only_fresh and node in tried) else node.take()

    def _pick(self, key: str | None, stamps: Sequence[bytes], tried: Mapping[Node, float]) -> Node | None:
        now = self.clock.monotonic()
        ready = [each for each in self.nodes() if each.available(now)]
        for stamp in stamps:
            kept = self._by_stamp.get(stamp)
            if kept is not None and kept in ready:
                return kept
        ready = [each for each in ready if not each.draining]
        if tried and ready:
            ready = [each for each in ready if each not in tried] or _soonest(ready, tried, now)
        if not ready:
            return None
        if self._layered:
            first = min(each.priority for each in ready)
            ready = [each for each in ready if each.priority == first]
        if self.rules.slow_start:
            for each in ready:
                each.warm(now)
        return self._balance.pick(ready, key) if len(ready) > 1 else ready[0]

    def _anybody(self, now: float, but: Node | None = None) -> bool:
        """Whether a request could go to one of the members as they are now, ``but`` left out."""
        return any(each is not but and not each.draining and each.available(now) for each in self.nodes())

    def _nobody(self) -> Refusal:
        now = self.clock.monotonic()
        waits = [wait for each in self._nodes if (wait := each.wait(now))]
        seconds = min(waits, default=1.0 if self.rules.health is None else self.rules.health.every)
        self.count("apim.upstream.none", {})
        headers = {"retry-after": str(max(1, ceil(seconds)))}
        return Refusal(503, "no-upstream-available", _NOBODY, headers=headers)

    # How they fare

    def answered(self, live: Try, status: int, headers: RawHeaders) -> None:
        """A member has answered with this head."""
        node, rule, now = live.node, self.rules.breaker, self.clock.monotonic()
        if rule is not None:
            bad = status in self._breaking
            live.tell(now, failed=bad, wait=retry_after(headers, self.clock.now()) if bad else None)
        if node.outing is not None:
            live.failed_before = node.outing.row
            self._consider(node, now, failed=status in self._ejecting)

    def failed(self, live: Try, error: TransportError) -> None:
        """A member has not answered."""
        node, kind, now = live.node, kind_of(error), self.clock.monotonic()
        if self.rules.breaker is not None and kind in self.rules.breaker.errors:
            live.tell(now, failed=True)
        live.leave()
        if self.rules.ejection is not None and kind in self.rules.ejection.errors:
            self._consider(node, now, failed=True)

    def broke_off(self, live: Try) -> None:
        """A member has answered, but not to the end."""
        node, now = live.node, self.clock.monotonic()
        if node.breaker is not None and self.rules.breaker is not None and "broken" in self.rules.breaker.errors:
            node.breaker.tell_late(now)
        if self.rules.ejection is not None and "broken" in self.rules.ejection.errors:
            self._consider(node, now, failed=True, before=live.failed_before)

    def _consider(self, node: Node, now: float, *, failed: bool, before: int = 0) -> None:
        outing, rule = node.outing, self.rules.ejection
        if outing is None or rule is None or outing.until > now or not outing.full(failed=failed, before=before):
            return  # what comes while it is out is from before
        out = sum(1 for each in self._nodes if each.outing is not None and each.outing.until > now)
        if out + 1 <= rule.at_most * len(self._nodes) and self._anybody(now, but=node):
            outing.begin(now)
            node.come_in(outing.until)
            self.tell(node, "ejection", "ejected")

    def tell(self, node: Node, what: str, state: str) -> None:
        """Say that the state of a member has changed."""
        log.log(_LEVELS.get(state, logging.WARNING), "upstream-%s: %s is %s", what, node.name, state)
        self.count(f"apim.upstream.{what}", {"apim.upstream.member": node.name, "apim.upstream.state": state})
        if state == "closed":
            node.come_in(self.clock.monotonic())

    def standing(self) -> list[MemberStanding]:
        """How each member is doing."""
        now = self.clock.monotonic()
        return [MemberStanding(each.name, each.place.url, each.standing(now), each.load) for each in self.nodes()]

    # Where they are

    async def find(self) -> None:
        """Wait while services are looked up for the first time: until somebody can be asked, or one round is over."""
        now = self.clock.monotonic()
        if not self._roster.lacks(now) or self._anybody(now):
            return
        self._looking.hurry()
        turn = self._turn()
        before = turn.rounds
        while turn.rounds == before and not self._anybody(self.clock.monotonic()):
            await turn.news.wait()

    async def look_up(self) -> float:
        """Look up the members that are due, and give the seconds until the next are.

        Who comes while that goes on waits for it, and finds that nothing is due.
        """
        turn = self._turn()
        try:
            async with turn.lock:
                return await self._roster.look_up(self.clock.monotonic, turn.tell)
        finally:
            turn.end()

    def _turn(self) -> "_Turn":
        return self._turns.setdefault(running_loop(), _Turn())

    def _sync(self) -> None:
        begun = self._version != (-1, -1)
        self._version = self._roster.version
        nodes, now = {}, self.clock.monotonic()
        for place in self._roster.places():
            key = (place.entry, place.url, place.name)  # under another name it is another member
            node = self._by_place.get(key) or self._new_node(place, now, slowly=begun)
            if node.showing is None or node.place.credential != place.credential:
                node.showing = None if place.credential is None else place.credential.showing(self._env)
            node.place, node.priority, node.draining = place, place.priority, self._roster.drained(place)
            node.share = node.weight = place.weight
            nodes[key] = node
        self._by_place, self._nodes = nodes, list(nodes.values())
        self._by_stamp = {each.stamp: each for each in self._nodes}
        self.looks_up = self._roster.looks_up
        self._layered = len({each.priority for each in self._nodes}) > 1

    def _new_node(self, place: Place, now: float, *, slowly: bool) -> Node:
        node = Node(self.rules, place, self._writer(place), self._transports.of(place), self.tell)
        if self.stamp is not None:
            node.stamp = self.stamp.value(node.name)
        if slowly:
            node.come_in(now)
        return node

    # From the start of the server to its end

    def begin(self) -> None:
        """See that members are looked up and asked how they are in this event loop, where that is wanted."""
        if self._checking is not None:
            self._checking.begin()
        if self.looks_up:
            self._looking.begin()

    async def aclose(self) -> None:
        """End what goes on in the background of this event loop."""
        await self._looking.aclose()
        self._turn().end()
        if self._checking is not None:
            await self._checking.aclose()


class _Turn:
    """Looking up in one event loop: once at a time, and what those hear who wait for it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.news = anyio.Event()
        self.rounds = 0

    def tell(self) -> None:
        """Somebody was found."""
        self.news.set()
        self.news = anyio.Event()

    def end(self) -> None:
        """All is looked up."""
        self.rounds += 1
        self.tell()


def _soonest(ready: list[Node], tried: Mapping[Node, float], now: float) -> list[Node]:
    """Those that may be asked by now, or first of all."""
    soon = max(now, min(tried[each] for each in ready))
    return [each for each in ready if tried[each] <= soon]
