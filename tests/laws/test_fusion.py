"""The law: ``Stack(a, b, c)(app)`` behaves as ``a(b(c(app)))``; nobody can tell fused neighbours from nested."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from apim_middleware import _ring
from apim_middleware.policy import Stack
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .random_stacks import Case, Trace, app_of, observe

STACKS = {"asyncio": 20_000, "trio": 2_500}


def opaque(app: ASGIApp) -> ASGIApp:
    """A layer that only passes on: what stands on its two sides cannot be fused."""

    async def passing(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return passing


def fused(case: Case, app: ASGIApp) -> ASGIApp:
    return Stack(*case.probes)(app)


def nested(case: Case, app: ASGIApp) -> ASGIApp:
    for probe in reversed(case.probes):
        app = opaque(probe(app))
    return app


def called(case: Case, app: ASGIApp) -> ASGIApp:
    for probe in reversed(case.probes):
        app = probe(app)
    return app


def split(case: Case, app: ASGIApp) -> ASGIApp:
    low, high = sorted(case.splits)
    return Stack(*case.probes[:low], opaque, Stack(*case.probes[low:high]), opaque, *case.probes[high:])(app)


async def outcome(build: Callable[[Case, ASGIApp], ASGIApp], case: Case) -> tuple[Any, ...]:
    trace: Trace = []
    for probe in case.probes:
        object.__setattr__(probe, "trace", trace)
    return await observe(build(case, app_of(case.behaviour, trace)), case, trace)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The probes fail on purpose, and a failing policy is logged."""
    _ring.log.setLevel(logging.CRITICAL)
    yield
    _ring.log.setLevel(logging.NOTSET)


def check(case: Case, seen: tuple[Any, ...]) -> None:
    """What must hold of every run, whatever the stack."""
    messages, _, trace = seen
    entered = {step[0] for step in trace if step[1] == "on_end"}
    ends = Counter(step[0] for step in trace if step[1] == "on_end")
    assert all(count == 1 for count in ends.values()), "on_end ran twice"
    reached = {step[0] for step in trace if step[1] == "on_request"}
    stopped = [step[0] for step in trace if step[1] == "on_request"][-1:]
    for probe in case.probes:
        turned = probe.on_request in ("refuse", "answer", "fail") and probe.number in stopped
        if probe.on_end != "absent" and probe.number in reached and not turned and case.kind != "lifespan":
            assert probe.number in entered, f"on_end of {probe.number} never ran"
    starts = [each for each in messages if each["type"].endswith(("response.start", "websocket.accept"))]
    assert len(starts) <= 1, "answered twice"


@pytest.mark.parametrize("backend", STACKS)
def test_fused_stacks_behave_as_nested_ones(backend: str) -> None:
    """Messages, endings, hook calls and what each hook saw are equal on every random stack."""

    async def compare() -> None:
        rng = random.Random(f"{backend} 1")
        for _ in range(STACKS[backend]):
            case = Case.draw(rng)
            expected = await outcome(nested, case)
            check(case, expected)
            for build in (fused, called, split):
                assert await outcome(build, case) == expected, (build.__name__, case)

    anyio.run(compare, backend=backend)


def broken_way(hooks: Any, **options: Any) -> Any:
    """A ring whose way out forgets the policy nearest the app."""
    return real_out_of(hooks[:-1], **options)


real_out_of = _ring._WayOut.out_of


def test_a_broken_ring_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a ring that loses one policy on the way out does not pass for nested layers."""
    monkeypatch.setattr(_ring._WayOut, "out_of", staticmethod(broken_way))
    with pytest.raises(AssertionError):
        test_fused_stacks_behave_as_nested_ones("asyncio")
