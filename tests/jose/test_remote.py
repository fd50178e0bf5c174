"""Keys at a URL: fetched once for all who wait, kept, renewed, and never asked for in a hurry."""

import gc
import logging
import weakref
from typing import Any

import anyio
import pytest

from apim_middleware._jose import remote
from apim_middleware._jose.documents import LARGEST_DOCUMENT, lifetime
from apim_middleware._jose.keys import KeySet
from apim_middleware._jose.publishers import At, Means
from apim_middleware._jose.remote import KeysUnavailable, RemoteKeys, Times
from apim_middleware.policies.jwt import _ASYMMETRIC
from apim_middleware.testing import FakeClock

from .issuer import Held, Published, Reply, answering, as_json, down, ec_key, jwk, rsa_key, silent

pytestmark = pytest.mark.anyio

ONE, TWO = jwk(rsa_key("one"), "one"), jwk(rsa_key("two"), "two")


class House:
    """An issuer, a clock, and the keys as a gate sees them."""

    def __init__(
        self, *keys: Any, url: str = "https://issuer.example/keys", stale_if_error: float = 86_400, timeout: float = 5
    ) -> None:
        self.clock = FakeClock()
        self.issuer = Published(*(keys or (ONE,)))
        self.gone: list[frozenset[str]] = []
        publisher = At(url, Means(self.issuer, self.clock, timeout, 3600, _ASYMMETRIC))
        times = Times(cooldown=30, stale_if_error=stale_if_error)
        self.failures = 0
        self.source = RemoteKeys(publisher, clock=self.clock, times=times, withdrawn=self.gone.append, failed=self.fail)

    @property
    def fetches(self) -> int:
        return len(self.issuer.asked)

    def fail(self) -> None:
        self.failures += 1

    async def rest(self) -> None:
        """Whatever is fetched in the background has come."""
        await self.source._job.over()

    async def renewed(self) -> str:
        """What is known when somebody has asked and the background has rested."""
        await self.outcome()
        await self.rest()
        return await self.outcome()

    async def outcome(self) -> str:
        try:
            keys = await self.source.current()
        except KeysUnavailable:
            return "unavailable"
        return "+".join(name for name in ("one", "two") if keys.knows(name))


async def test_the_question_is_plain() -> None:
    house = House(url="https://issuer.example:8443/tenant%20a/keys?v=2")
    await house.source.current()
    asked = house.issuer.asked[0]
    assert (asked.method, asked.origin, asked.target) == ("GET", "https://issuer.example:8443", b"/tenant%20a/keys?v=2")
    assert dict(asked.headers)[b"host"] == b"issuer.example:8443"
    assert dict(asked.headers)[b"accept-encoding"] == b"identity"
    assert (asked.connect, asked.read, asked.body) == (5, 5, None)
    assert house.issuer.replies[0].closed


async def test_a_url_without_a_path_asks_for_the_root() -> None:
    house = House(url="https://issuer.example")
    await house.source.current()
    assert house.issuer.asked[0].target == b"/"


async def test_fresh_keys_are_used_as_they_are() -> None:
    house = House()
    keys = await house.source.current()
    house.clock.advance(3539)
    assert await house.source.current() is keys
    await house.rest()
    assert house.fetches == 1


async def test_a_thousand_that_wait_make_one_fetch() -> None:
    house = House()
    outcomes: list[str] = []

    async def ask() -> None:
        outcomes.append(await house.outcome())

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(ask)
    assert outcomes == ["one"] * 200
    assert house.fetches == 1


async def test_keys_are_renewed_ahead_of_time_and_nobody_waits_for_it() -> None:
    house = House()
    await house.source.current()
    house.issuer.keys = [TWO]
    house.clock.advance(3540)
    assert await house.outcome() == "one"
    await house.rest()
    assert await house.outcome() == "two"
    assert house.fetches == 2


async def test_the_same_keys_again_are_the_same_object() -> None:
    house = House()
    keys = await house.source.current()
    house.clock.advance(3600)
    await house.renewed()
    assert await house.source.current() is keys
    assert house.fetches == 2
    assert house.gone == []


async def test_the_marks_of_withdrawn_keys_are_told() -> None:
    house = House(ONE, TWO)
    keys = await house.source.current()
    house.issuer.keys = [TWO]
    house.clock.advance(3600)
    assert await house.renewed() == "two"
    [gone] = house.gone
    assert gone == keys.marks - house.source.keys.marks
    assert len(gone) == 1


async def test_while_keys_are_renewed_everybody_goes_on_with_the_keys_known() -> None:
    house = House()
    await house.source.current()
    house.clock.advance(3600)
    house.issuer.keys = [TWO]
    held = Held(house.issuer)
    house.issuer.behave(held)
    for _ in range(3):
        assert await house.outcome() == "one"
        await held.asked.wait()
    held.let.set()
    await house.rest()
    assert await house.outcome() == "two"
    assert house.fetches == 2


async def test_known_keys_serve_while_the_issuer_is_down_and_it_is_asked_once_per_cool_down() -> None:
    house = House()
    await house.source.current()
    house.issuer.behave(down)
    house.clock.advance(3600)
    for _ in range(50):
        assert await house.renewed() == "one"
    assert house.fetches == 2
    house.clock.advance(30)
    assert await house.renewed() == "one"
    assert house.fetches == 3


async def test_known_keys_do_not_serve_for_ever() -> None:
    house = House(stale_if_error=1000)
    await house.source.current()
    house.issuer.behave(down)
    house.clock.advance(3600 + 999)
    assert await house.renewed() == "one"
    house.clock.advance(1)
    assert await house.outcome() == "unavailable"
    house.issuer.behave(None)
    house.clock.advance(30)
    assert await house.outcome() == "one"


async def test_keys_that_are_too_old_are_given_up_by_a_review() -> None:
    house = House(stale_if_error=1000)
    keys = await house.source.current()
    house.clock.advance(4600)
    assert house.clock.monotonic() >= house.source.look_at
    house.source.review()
    assert house.gone == [keys.marks]
    assert house.source.look_at == float("inf")


async def test_without_keys_a_dead_issuer_is_asked_now_and_then() -> None:
    house = House()
    house.issuer.behave(down)
    for _ in range(50):
        assert await house.outcome() == "unavailable"
    assert house.fetches == 1
    with pytest.raises(KeysUnavailable) as caught:
        await house.source.current()
    assert caught.value.retry_after == remote.RETRY
    house.clock.advance(remote.RETRY)
    house.issuer.behave(None)
    assert await house.outcome() == "one"


async def test_a_wall_clock_that_jumps_changes_nothing() -> None:
    house = House()
    await house.source.current()
    for jump in (-10_000_000, 20_000_000):
        house.clock.jump(jump)
        assert await house.outcome() == "one"
    assert house.fetches == 1


async def redirecting(request: object) -> Reply:
    return Reply(as_json({"keys": [TWO]}), 302, [(b"location", b"http://169.254.169.254/")])


BAD = {
    "redirect": redirecting,
    "error": answering(as_json({"keys": [TWO]}), 500),
    "not found": answering(b"", 404),
    "partial": answering(as_json({"keys": [TWO]}), 206),
    "html": answering(b"<html>", headers=[(b"content-type", b"text/html")]),
    "list": answering(b"[]"),
    "no keys": answering(b"{}"),
    "empty": answering(b""),
    "gzip bomb": answering(b"\x1f\x8b" * 100, headers=[(b"content-encoding", b"gzip")]),
    "too many": answering(as_json({"keys": [TWO] * 10_000})),
    "deep": answering(b"[" * 400_000),
    "twice": answering(b'{"keys":[],"keys":[]}'),
    "down": down,
}


@pytest.mark.parametrize("mode", BAD)
async def test_a_bad_answer_leaves_the_old_keys(mode: str) -> None:
    house = House()
    keys = await house.source.current()
    house.issuer.behave(BAD[mode])
    house.clock.advance(3600)
    await house.renewed()
    assert await house.source.current() is keys
    assert house.fetches == 2
    assert all(reply.closed for reply in house.issuer.replies)


@pytest.mark.parametrize("mode", BAD)
async def test_a_bad_first_answer_gives_no_keys(mode: str) -> None:
    house = House()
    house.issuer.behave(BAD[mode])
    assert await house.outcome() == "unavailable"
    assert house.fetches == house.failures == 1


async def test_an_endless_answer_is_read_up_to_a_limit() -> None:
    house = House()
    house.issuer.behave(answering([bytes(65536)] * 1600))
    assert await house.outcome() == "unavailable"
    reply = house.issuer.replies[0]
    assert reply.closed
    assert reply.read <= LARGEST_DOCUMENT + 65536


async def test_an_answer_of_exactly_the_limit_is_read() -> None:
    house = House()
    document = as_json({"keys": [ONE]})
    house.issuer.behave(answering(document.ljust(LARGEST_DOCUMENT)))
    assert await house.outcome() == "one"


async def test_an_error_of_the_transport_that_is_none_of_ours_is_a_failed_fetch() -> None:
    async def broken(request: object) -> Reply:
        raise RuntimeError("a bug")

    house = House()
    house.issuer.behave(broken)
    assert await house.outcome() == "unavailable"


async def test_a_silent_issuer_is_given_up() -> None:
    house = House(timeout=0.01)
    house.issuer.behave(silent)
    assert await house.outcome() == "unavailable"


async def test_a_dripping_issuer_is_given_up_as_a_whole() -> None:
    class Dripping(Reply):
        async def __anext__(self) -> bytes:
            await anyio.sleep(0.004)
            return b" "

    async def drip(request: object) -> Reply:
        return Dripping(b"")

    house = House(timeout=0.02)
    house.issuer.behave(drip)
    assert await house.outcome() == "unavailable"
    assert house.issuer.replies[0].closed


async def test_one_who_is_cancelled_does_not_cancel_the_fetch() -> None:
    house = House()
    held = Held(house.issuer)
    house.issuer.behave(held)
    first = anyio.CancelScope()
    outcomes: list[str] = []

    async def lead() -> None:
        with first:
            await house.outcome()

    async def follow() -> None:
        outcomes.append(await house.outcome())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead)
        await held.asked.wait()
        for _ in range(10):
            tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        held.let.set()
    assert outcomes == ["one"] * 10
    assert house.fetches == 1


async def test_one_who_waits_can_be_cancelled_alone() -> None:
    house = House()
    held = Held(house.issuer)
    house.issuer.behave(held)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.source.current)
        await held.asked.wait()
        with anyio.move_on_after(0):
            await house.source.current()
        held.let.set()
    assert await house.outcome() == "one"
    assert house.fetches == 1


async def test_only_so_many_wait() -> None:
    house = House()
    held = Held(house.issuer)
    house.issuer.behave(held)
    outcomes: list[str] = []

    async def ask() -> None:
        outcomes.append(await house.outcome())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await held.asked.wait()
        for _ in range(remote.MOST_WAITING + 5):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert outcomes == ["unavailable"] * 6
        held.let.set()
    assert outcomes.count("one") == remote.MOST_WAITING


async def test_other_keys_are_fetched_once_the_cool_down_is_over() -> None:
    house = House()
    keys = await house.source.current()
    house.issuer.keys = [ONE, TWO]
    house.clock.advance(29)
    assert await house.source.other_than(keys) is None
    house.clock.advance(1)
    others = await house.source.other_than(keys)
    assert others is not None
    assert others.knows("two")
    assert await house.source.current() is others
    assert house.fetches == 2


async def test_keys_fetched_by_somebody_else_meanwhile_are_others() -> None:
    house = House()
    keys = await house.source.current()
    assert await house.source.other_than(KeySet(())) is keys
    assert house.fetches == 1


@pytest.mark.parametrize("answer", [None, down])
async def test_ten_thousand_unknown_ids_make_one_fetch_per_cool_down(answer: Any) -> None:
    house = House()
    keys = await house.source.current()
    house.issuer.behave(answer)
    house.clock.advance(30)
    for _ in range(10_000):
        assert await house.source.other_than(keys) is None
    assert house.fetches == 2


async def test_unknown_ids_at_once_make_one_fetch() -> None:
    house = House()
    keys = await house.source.current()
    house.clock.advance(30)
    house.issuer.keys = [TWO]
    found: list[KeySet | None] = []

    async def ask() -> None:
        found.append(await house.source.other_than(keys))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(ask)
    assert all(each is not None and each.knows("two") for each in found)
    assert house.fetches == 2


async def test_a_search_for_other_keys_goes_on_without_the_one_who_began_it() -> None:
    house = House()
    keys = await house.source.current()
    house.clock.advance(30)
    house.issuer.keys = [TWO]
    held = Held(house.issuer)
    house.issuer.behave(held)
    with anyio.move_on_after(0):
        await house.source.other_than(keys)
    held.let.set()
    await house.rest()
    assert await house.outcome() == "two"
    assert house.fetches == 2


async def test_an_issuer_without_usable_keys_is_taken_at_its_word(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    await house.source.current()
    house.issuer.keys = [{"kty": "oct", "k": "AAAA"}, {**jwk(ec_key()), "use": "enc"}]
    house.clock.advance(3600)
    await house.renewed()
    assert len(await house.source.current()) == 0
    assert "publishes no key" in caplog.text


async def test_the_log_holds_no_line_of_the_issuers_making(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    house = House(url="https://issuer.example/keys?secret=hunter2")
    house.issuer.behave(down)
    await house.outcome()
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
    assert "\r" not in caplog.records[0].getMessage()
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, 3600),
        (b"max-age=300", 300),
        (b"public, max-age=300, must-revalidate", 300),
        (b"Max-Age=300", 300),
        (b'max-age="300"', 300),
        (b"max-age=0", 60),
        (b"max-age=999999", 3600),
        (b"max-age=99999999999999999999", 3600),
        (b"max-age=-1", 3600),
        (b"max-age=", 3600),
        (b"s-maxage=5", 3600),
        (b"no-store", 3600),
    ],
)
async def test_the_issuers_max_age_counts_within_bounds(field: bytes | None, seconds: float) -> None:
    assert lifetime([] if field is None else [(b"cache-control", field)], 3600, 0) == seconds


async def test_keys_are_renewed_before_the_issuers_max_age_is_over() -> None:
    house = House()
    house.issuer.headers = [(b"cache-control", b"max-age=120")]
    await house.source.current()
    house.clock.advance(95)
    await house.renewed()
    assert house.fetches == 1
    house.clock.advance(1)
    await house.renewed()
    assert house.fetches == 2


NOON = b"Sun, 06 Nov 1994 12:00:00 GMT"
ONE_O_CLOCK = b"Sun, 06 Nov 1994 13:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"expires", ONE_O_CLOCK), (b"date", NOON)], 3600),
        ([(b"expires", NOON), (b"date", ONE_O_CLOCK)], 60),
        ([(b"expires", ONE_O_CLOCK)], 60),
        ([(b"expires", b"0")], 60),
        ([(b"expires", ONE_O_CLOCK), (b"date", NOON), (b"age", b"600")], 3000),
        ([(b"expires", NOON), (b"cache-control", b"max-age=600")], 600),
        ([(b"cache-control", b"max-age=600"), (b"age", b"500")], 100),
        ([(b"cache-control", b"max-age=600"), (b"age", b"-5")], 600),
        ([(b"cache-control", b"max-age=600"), (b"age", b"9999")], 60),
    ],
)
async def test_the_issuers_other_fields_count_too(headers: Any, seconds: float) -> None:
    assert lifetime(headers, 86_400, 1_800_000_000) == seconds


async def test_an_idle_source_renews_its_keys_by_itself() -> None:
    house = House()
    await house.source.current()
    house.clock.advance(3600)
    house.issuer.keys = [TWO]
    held = Held(house.issuer)
    house.issuer.behave(held)
    house.source._alarm.set(0)
    await held.asked.wait()
    held.let.set()
    await house.rest()
    assert house.source.keys.knows("two")


async def test_a_source_nobody_holds_is_not_kept_by_its_alarm() -> None:
    house = House()
    await house.source.current()
    there = weakref.ref(house.source)
    house.source._alarm.set(0)
    del house
    gc.collect()
    assert there() is None
    await anyio.sleep(0.01)


def test_keys_serve_on_the_next_event_loop_when_one_ended_during_a_fetch() -> None:
    house = House()

    async def leave() -> None:
        house.issuer.behave(silent)
        with anyio.move_on_after(0.01):
            await house.source.current()

    async def come() -> None:
        house.issuer.behave(None)
        assert await house.outcome() == "one"

    for backend in ("asyncio", "trio"):
        anyio.run(leave, backend=backend)
    for backend in ("asyncio", "trio"):
        anyio.run(come, backend=backend)


async def test_a_new_key_is_waited_for_as_soon_as_a_renewal_was_set_off() -> None:
    house = House()
    keys = await house.source.current()
    house.issuer.keys = [ONE, TWO]
    house.clock.advance(3600)
    assert await house.outcome() == "one"  # which has set it off, and it has not begun
    others = await house.source.other_than(keys)
    assert others is not None
    assert others.knows("two")
    assert house.fetches == 2
