"""What callers of limits are told, in the header fields that each policy asked for."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from apim_middleware._http.fields import is_list
from apim_middleware._http.rate_limit_fields import (
    FIELDS,
    POLICY,
    STANDING,
    TRIO,
    TRIO_LIMIT,
    TRIO_REMAINING,
    TRIO_RESET,
    effective_window,
    tightness,
    until_whole,
)
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware._limits.meters import LimitCheck, Meter, Terms
from apim_middleware._limits.rules import Limiting
from apim_middleware.exchange import ResponseHead
from apim_middleware.protocols import Limit, Tally
from apim_middleware.types import RawHeaders

Line: TypeAlias = tuple[bytes, bytes]
"""A header line."""

SILENT = LimitHeaders(ietf=False)


def headers_of(policy: Limiting) -> LimitHeaders:
    """The fields a policy wants."""
    if isinstance(policy.headers, LimitHeaders):
        return policy.headers
    return LimitHeaders() if policy.headers else SILENT


def told_in(policy: Limiting) -> tuple[str, ...]:
    """The fields in which a policy tells callers where they stand."""
    wanted = headers_of(policy)
    found = ["ratelimit", "ratelimit-policy"] if wanted.ietf else []
    found += ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] if wanted.x_ratelimit else []
    return (*found, *(name.lower() for name in (wanted.remaining, wanted.total) if name is not None))


def announce(head: ResponseHead, policy: Line, standing: Line) -> None:
    """Add ``RateLimit-Policy`` and ``RateLimit``; limits further in said theirs before, and come after ours."""
    headers = head.headers
    for line in headers:
        if line[0] in FIELDS:
            break
    else:
        headers += (policy, standing)
        return
    for name, ours in (policy, standing):
        # What cannot be read would make ours unreadable too; it must be ignored anyway (draft, section 7).
        others = [value for value in head.get_all(name) if is_list(value)]
        head.set(name, b", ".join([ours, *others]))


class Answers:
    """Tells callers of several policies at one place where they stand, all at once."""

    def __init__(self, meters: Sequence[Meter], now: Callable[[], float]) -> None:
        self._headers = {id(meter): headers_of(meter.policy) for meter in meters}
        self._now = now
        wanted = list(self._headers.values())
        self._shows = [each.ietf for each in wanted]
        self._more = any(each.x_ratelimit or each.remaining or each.total for each in wanted)
        self.speaks = self._more or any(self._shows)
        self._same = None if any(meter.graded for meter in meters) else self._told([meter.terms for meter in meters])

    def of(self, asked: LimitCheck) -> LimitHeaders:
        """The fields that the policy wants which was asked."""
        return self._headers[id(asked.meter)]

    def write(self, head: ResponseHead, all_asked: Sequence[LimitCheck]) -> None:
        """Put the fields into the head of a response that the requests let in."""
        if lines := self._standard(all_asked):
            announce(head, *lines)
        if self._more:
            self._write_more(head, all_asked)

    def refused(self, all_asked: Sequence[LimitCheck], deciding: LimitCheck) -> RawHeaders:
        """The fields of a refusal, with the time to wait of the one that decides."""
        head = ResponseHead(0, self._standard(all_asked))
        if self._more:
            self._write_more(head, all_asked)
        if deciding.wait < math.inf:  # a request that costs more than the limit allows can never pass
            name = self.of(deciding).retry_after.lower().encode()
            head.append(name, b"%d" % max(math.ceil(deciding.wait), 1))
        return head.headers

    def _told(self, terms: Sequence[Terms]) -> tuple[Line, bytes]:
        """The line of the policies, and the form of where somebody stands in them."""
        shown = [each for each, shows in zip(terms, self._shows, strict=True) if shows]
        return (POLICY, b", ".join([each.policy for each in shown])), b", ".join([each.form for each in shown])

    def _standard(self, all_asked: Sequence[LimitCheck]) -> tuple[Line, Line] | tuple[()]:
        policy, form = self._same or self._told([asked.terms for asked in all_asked])
        if not form:
            return ()
        told: list[int] = []
        for asked, shows in zip(all_asked, self._shows, strict=True):
            if shows:
                for tally, window in zip(asked.tallies, asked.terms.windows, strict=True):
                    told += tally[1], effective_window(tally, window)
        return policy, (STANDING, form % tuple(told))

    def _write_more(self, head: ResponseHead, all_asked: Sequence[LimitCheck]) -> None:
        for asked in all_asked:
            wanted, (limit, tally) = self.of(asked), asked.tightest
            if wanted.remaining is not None:
                head.set(wanted.remaining.lower().encode(), b"%d" % tally.remaining)
            if wanted.total is not None:
                head.set(wanted.total.lower().encode(), b"%d" % limit.quota)
        if trio := [asked for asked in all_asked if self.of(asked).x_ratelimit is not None]:
            asked = min(trio, key=lambda each: tightness(each.tightest[1]))
            self._write_trio(head, *asked.tightest, epoch=self.of(asked).x_ratelimit == "epoch")

    def _write_trio(self, head: ResponseHead, limit: Limit, tally: Tally, *, epoch: bool) -> None:
        said = head.get(TRIO_REMAINING)
        if said is not None and said.isdigit() and int(said[:19]) <= tally.remaining:
            return  # further in less is left
        lines = [(TRIO_LIMIT, b"%d" % limit.quota), (TRIO_REMAINING, b"%d" % tally.remaining)]
        seconds = until_whole(tally)
        if seconds is not None:
            lines.append((TRIO_RESET, b"%d" % (math.ceil(self._now() + seconds) if epoch else seconds)))
        head.headers = [line for line in head.headers if line[0] not in TRIO] + lines
