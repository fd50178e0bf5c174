"""Keys at a URL: fetched once for all who wait, kept, renewed, and never asked for in a hurry."""

import logging
from typing import Any

import anyio
import pytest

from apim_middleware._jose import remote
from apim_middleware._jose.keys import KeySet
from apim_middleware._jose.remote import LARGEST_DOCUMENT, KeysUnavailable, RemoteKeys, lifetime
from apim_middleware.policies.jwt import _ASYMMETRIC
from apim_middleware.testing import FakeClock

from .issuer import Held, Published, Reply, answering, as_json, down, ec_key, jwk, rsa_key, silent

pytestmark = pytest.mark.anyio

ONE, TWO = jwk(rsa_key("one"), "one"), jwk(rsa_key("two"), "two")


class House:
    """An issuer, a clock, and the keys as a gate sees them."""

    def __init__(self, *keys: Any, url: str = "https://issuer.example/keys", **more: Any) -> None:
        self.clock = FakeClock()
        self.issuer = Published(*(keys or (ONE,)))
        usual: dict[str, Any] = {"life": 3600, "keep": 86_400, "cooldown": 30, "timeout": 5}
        self.source = RemoteKeys(url, _ASYMMETRIC, transport=self.issuer, clock=self.clock, **{**usual, **more})

    @property
    def fetches(self) -> int:
        return len(self.issuer.asked)

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
    house.clock.advance(3599)
    assert await house.source.current() is keys
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


async def test_stale_keys_are_renewed() -> None:
    house = House()
    await house.source.current()
    house.issuer.keys = [TWO]
    house.clock.advance(3600)
    assert await house.outcome() == "two"
    assert house.fetches == 2


async def test_the_same_keys_again_are_the_same_object() -> None:
    house = House()
    keys = await house.source.current()
    house.clock.advance(3600)
    assert await house.source.current() is keys
    assert house.fetches == 2


async def test_while_one_renews_the_others_go_on_with_the_keys_known() -> None:
    house = House()
    await house.source.current()
    house.clock.advance(3600)
    house.issuer.keys = [TWO]
    held = Held(house.issuer)
    house.issuer.behave(held)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.source.current)
        await held.asked.wait()
        assert await house.outcome() == "one"
        held.let.set()
    assert await house.outcome() == "two"
    assert house.fetches == 2


async def test_known_keys_serve_while_the_issuer_is_down_and_it_is_asked_once_per_cool_down() -> None:
    house = House()
    await house.source.current()
    house.issuer.behave(down)
    house.clock.advance(3600)
    for _ in range(50):
        assert await house.outcome() == "one"
    assert house.fetches == 2
    house.clock.advance(30)
    assert await house.outcome() == "one"
    assert house.fetches == 3


async def test_known_keys_do_not_serve_for_ever() -> None:
    house = House(keep=1000)
    await house.source.current()
    house.issuer.behave(down)
    house.clock.advance(3600 + 999)
    assert await house.outcome() == "one"
    house.clock.advance(1)
    assert await house.outcome() == "unavailable"
    house.issuer.behave(None)
    house.clock.advance(30)
    assert await house.outcome() == "one"


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
    assert await house.source.current() is keys
    assert house.fetches == 2
    assert all(reply.closed for reply in house.issuer.replies)


@pytest.mark.parametrize("mode", BAD)
async def test_a_bad_first_answer_gives_no_keys(mode: str) -> None:
    house = House()
    house.issuer.behave(BAD[mode])
    assert await house.outcome() == "unavailable"
    assert house.fetches == 1


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


async def test_when_the_one_who_fetches_is_cancelled_another_fetches() -> None:
    house = House()
    first = anyio.Event()
    outcomes: list[str] = []

    async def held_up_once(request: object) -> Reply:
        if not first.is_set():
            first.set()
            await anyio.sleep_forever()
        return Reply(as_json({"keys": [ONE]}))

    async def ask() -> None:
        outcomes.append(await house.outcome())

    house.issuer.behave(held_up_once)
    leader = anyio.CancelScope()

    async def lead() -> None:
        with leader:
            await ask()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead)
        await first.wait()
        for _ in range(10):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        leader.cancel()
    assert outcomes == ["one"] * 10
    assert house.fetches == 2


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
        assert outcomes == ["unavailable"] * 5
        held.let.set()
    assert outcomes.count("one") == remote.MOST_WAITING + 1


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


async def test_a_cancelled_search_for_other_keys_counts_as_one() -> None:
    house = House()
    keys = await house.source.current()
    house.clock.advance(30)
    house.issuer.behave(silent)
    with anyio.move_on_after(0.01):
        await house.source.other_than(keys)
    assert await house.source.other_than(keys) is None
    assert house.fetches == 2


async def test_an_issuer_without_usable_keys_is_taken_at_its_word(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    await house.source.current()
    house.issuer.keys = [{"kty": "oct", "k": "AAAA"}, {**jwk(ec_key()), "use": "enc"}]
    house.clock.advance(3600)
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
    assert lifetime([] if field is None else [(b"cache-control", field)], 3600) == seconds


async def test_keys_are_stale_after_the_issuers_max_age() -> None:
    house = House()
    house.issuer.headers = [(b"cache-control", b"max-age=120")]
    await house.source.current()
    house.clock.advance(119)
    await house.source.current()
    assert house.fetches == 1
    house.clock.advance(1)
    await house.source.current()
    assert house.fetches == 2
