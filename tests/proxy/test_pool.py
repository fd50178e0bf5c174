"""Pools: who is asked, who is left alone and for how long, and what the client is told when there is nobody."""

import copy
import gc
from collections import Counter
from contextlib import suppress

import anyio
import pytest
from tests.servers import free_port, saying, stub

from apim_middleware import Hygiene, by
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, ConnectFailed, NoConnectionFree, UpstreamBroken, UpstreamTimeout
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.affinity import Affinity
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.ejection import Ejection
from apim_middleware.proxy.health import HealthCheck
from apim_middleware.proxy.members import Member, Members
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Hedge, Retry
from apim_middleware.testing import FakeClock, http_scope
from apim_middleware.transports.http1 import Http1Transport
from apim_middleware.transports.httpx import HttpxTransport

from .scripted import Said, Scripted, ask, problem

pytestmark = pytest.mark.anyio

A, B, C = "http://a", "http://b", "http://c"


class Events:
    """What was counted."""

    def __init__(self):
        self.all = []

    def count(self, event, attributes):
        self.all.append((event, *attributes.values()))


class Gateway:
    """A proxy to a pool of scripted members, and a clock to wind."""

    def __init__(self, *members, told=None, retry=None, hedge=None, **options):
        self.clock, self.events = FakeClock(), Events()
        env = Env(clock=self.clock)
        env.listen(self.events)
        self.transport = Scripted(**(told or {}))
        self.app = Proxy(Pool(*members, **options), transport=self.transport, env=env, retry=retry, hedge=hedge)
        self.app._plan.pool.begin = lambda: None  # tests make the checks themselves

    async def ask(self, *args, **options):
        return await ask(self.app, *args, **options)

    async def asked(self, times, *args, **options):
        """Who is asked when the same is said so many times."""
        before = len(self.transport.asked)
        for _ in range(times):
            await self.ask(*args, **options)
        return "".join(self.transport.asked[before:])

    @property
    def states(self):
        return [each.state for each in self.app.standing()]

    @property
    def under_way(self):
        return [each.under_way for each in self.app.standing()]


# Who is asked


async def test_members_take_turns():
    assert await Gateway(A, B, C).asked(6) == "abcabc"


async def test_a_heavier_member_has_more_turns():
    assert Counter(await Gateway(Member(A, weight=3), B).asked(8)) == {"a": 6, "b": 2}


async def test_a_group_is_asked_only_when_nobody_before_it_is_available():
    breaker = CircuitBreaker(failures=1, open_for=30)
    members = (Member(A, priority=0), Member(B, priority=1), Member(C, priority=1))
    gateway = Gateway(*members, told={"a": [200, 500, 200]}, breaker=breaker)
    assert await gateway.asked(4) == "aabc"
    gateway.clock.advance(30)
    assert await gateway.asked(2) == "aa"


async def test_a_key_has_the_same_member_each_time():
    gateway = Gateway(A, B, C, balance="consistent-hash", key=by.header("x-tenant"))
    for tenant in (b"red", b"green", b"blue"):
        assert len(set(await gateway.asked(5, headers=[(b"x-tenant", tenant)]))) == 1
    assert await gateway.asked(3) == "abc"


async def test_a_key_that_fails_is_a_failed_policy():
    def key(exchange):
        raise RuntimeError("no")

    gateway = Gateway(A, balance="consistent-hash", key=key)
    assert problem(await gateway.ask()) == (500, "policy-failed")
    assert gateway.transport.asked == []


@pytest.mark.parametrize("balance", ["least-connections", "power-of-two"])
async def test_a_member_that_is_busy_is_spared(balance):
    async def nested(request):
        if len(gateway.transport.asked) < 4:
            await gateway.ask()
        return 200

    gateway = Gateway(A, B, C, told=dict.fromkeys("abc", nested), balance=balance)
    await gateway.ask()
    assert len(set(gateway.transport.asked[: 3 if balance == "least-connections" else 2])) > 1
    assert gateway.under_way == [0, 0, 0]


async def test_each_member_gets_the_request_as_if_it_were_the_only_one():
    gateway = Gateway("http://a:81/base", told={})
    seen = []

    async def keep(request):
        seen.append(request)
        return 200

    gateway.transport.told = {"a:81": [keep]}
    await gateway.ask(path="/x", query=b"y=1")
    assert seen[0].target == b"/base/x?y=1"
    assert (b"host", b"a:81") in seen[0].headers


async def test_a_loop_is_broken_whichever_member_it_comes_back_from():
    gateway = Gateway(A, B)
    seen = []

    async def keep(request):
        seen.append(dict(request.headers)[b"via"])
        return 200

    gateway.transport.told = {"a": [keep], "b": [keep]}
    await gateway.ask()
    await gateway.ask()
    assert seen[0] == seen[1]
    assert problem(await gateway.ask(headers=[(b"via", seen[0])])) == (508, "loop-detected")
    assert gateway.under_way == [0, 0]


async def test_options_that_go_no_further_ask_nobody():
    gateway = Gateway(A)
    assert (await gateway.ask("OPTIONS", headers=[(b"max-forwards", b"0")])).status == 204
    assert (gateway.transport.asked, gateway.under_way) == ([], [0])


@pytest.mark.parametrize("transport", [None, HttpxTransport])
async def test_it_is_the_same_over_real_sockets(transport):
    """One upstream hangs up without a word, another answers, the third is not there."""

    def speaking(*said):
        async def speak(spoken):
            if b"POST" in await spoken.until():
                await spoken.until(b"body")
            for each in said:
                await spoken.say(each)

        return speak

    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with stub(speaking()) as rude, stub(speaking(ok)) as kind:
        pool = Pool(rude.origin, kind.origin, f"http://127.0.0.1:{free_port()}")
        app = Proxy(pool, transport=transport and transport(), retry=Retry(backoff=0))
        assert [(await ask(app)).status for _ in range(6)] == [200] * 6
        length = [(b"content-length", b"4")]
        posts = [(await ask(app, "POST", headers=length, body=b"body")).status for _ in range(6)]
        assert {200, 502} == set(posts)
        await app._transport.aclose()
    heard = [bytes(each) for each in [*rude.heard, *kind.heard] if each.startswith(b"POST")]
    assert [each.endswith(b"\r\n\r\nbody") for each in heard] == [True] * 6


async def test_it_is_the_same_when_two_are_asked_over_real_sockets():
    async def silent(spoken):
        await spoken.hang_on()
        gone.set()

    gone = anyio.Event()
    answering = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    async with stub(silent) as slow, stub(answering) as quick:
        app = Proxy(Pool(slow.origin, quick.origin), hedge=Hedge(after=0.01))
        assert (await ask(app)).body == b"ok"
        with anyio.fail_after(10):
            await gone.wait()
        await app._transport.aclose()


# Failing members


@pytest.mark.parametrize("error", [ConnectFailed("x"), UpstreamTimeout("x"), UpstreamBroken("x"), 500])
async def test_a_member_that_fails_is_left_alone_until_its_time_is_over(error):
    gateway = Gateway(A, B, told={"a": [error]}, breaker=CircuitBreaker(failures=2, open_for=30))
    assert await gateway.asked(4) == "abab"
    assert gateway.states == ["open", "ready"]
    assert await gateway.asked(3) == "bbb"
    gateway.clock.advance(30)
    assert "a" in await gateway.asked(2)
    assert await gateway.asked(3) == "bbb"


async def test_a_member_that_is_well_again_takes_part_again():
    gateway = Gateway(A, B, told={"a": [500, 200]}, breaker=CircuitBreaker(failures=1, open_for=30))
    assert await gateway.asked(3) == "abb"
    gateway.clock.advance(30)
    assert gateway.states == ["half-open", "ready"]
    assert Counter(await gateway.asked(4)) == {"a": 2, "b": 2}
    assert gateway.states == ["ready", "ready"]
    told = [event for event in gateway.events.all if event[0] == "apim.upstream.breaker"]
    assert told == [("apim.upstream.breaker", A, state) for state in ("open", "half-open", "closed")]


async def test_errors_that_are_not_to_count_do_not():
    breaker = CircuitBreaker(failures=1, errors=("connect",), statuses=(503,))
    gateway = Gateway(
        A, told={"a": [500, UpstreamBroken("x"), UpstreamTimeout("x"), ConnectFailed("x")]}, breaker=breaker
    )
    assert await gateway.asked(4) == "aaaa"
    assert gateway.states == ["open"]


async def test_the_members_own_retry_after_is_honoured():
    told = {"a": [(503, [(b"retry-after", b"7")])]}
    gateway = Gateway(A, told=told, breaker=CircuitBreaker(failures=1, open_for=30))
    await gateway.ask()
    answer = await gateway.ask()
    assert problem(answer) == (503, "no-upstream-available")
    assert answer.header(b"retry-after") == b"7"


async def test_a_response_that_breaks_off_is_a_failure():
    broken = Said(breaks=UpstreamBroken("half"))
    gateway = Gateway(A, told={"a": [broken]}, breaker=CircuitBreaker(failures=1))
    with pytest.raises(UpstreamBroken):
        await gateway.ask()
    assert gateway.states == ["open"]
    assert gateway.under_way == [0]


async def test_a_client_that_leaves_says_nothing_of_the_member():
    gateway = Gateway(A, breaker=CircuitBreaker(failures=1))

    async def leave():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    await gateway.app(http_scope("POST", headers=[(b"content-length", b"5")]), leave, send)
    assert (gateway.states, gateway.under_way) == (["ready"], [0])


async def test_a_probe_whose_client_leaves_makes_room_for_another():
    gateway = Gateway(A, told={"a": [500, 200]}, breaker=CircuitBreaker(failures=1, open_for=30))
    await gateway.ask()
    gateway.clock.advance(30)

    async def leave():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    await gateway.app(http_scope("POST", headers=[(b"content-length", b"5")]), leave, send)
    assert gateway.states == ["half-open"]
    assert (await gateway.ask()).status == 200
    assert gateway.states == ["ready"]


async def test_failures_in_a_row_put_a_member_out_for_a_while():
    gateway = Gateway(A, B, told={"a": [503]}, ejection=Ejection(consecutive=2, out_for=30))
    assert await gateway.asked(6) == "ababbb"
    assert gateway.states == ["ejected", "ready"]
    gateway.clock.advance(30)
    assert "a" in await gateway.asked(2)
    assert ("apim.upstream.ejection", A, "ejected") in gateway.events.all


async def test_a_response_that_breaks_off_counts_towards_that():
    broken = Said(breaks=UpstreamBroken("half"))
    gateway = Gateway(A, B, told={"a": [broken]}, ejection=Ejection(consecutive=1))
    with pytest.raises(UpstreamBroken):
        await gateway.ask()
    assert gateway.states == ["ejected", "ready"]


async def test_a_member_that_breaks_off_every_response_is_put_out():
    """Each of its heads took back what the body before had told."""
    gateway = Gateway(A, B, ejection=Ejection(consecutive=2))
    gateway.transport.told = {"a": [Said(breaks=UpstreamBroken("half")) for _ in range(2)]}
    for _ in range(4):
        with suppress(UpstreamBroken):
            await gateway.ask()
    assert gateway.states == ["ejected", "ready"]


async def test_a_response_that_does_not_break_off_takes_back_what_was_told_before():
    gateway = Gateway(A, B, told={"a": [503, 200, 503, 200]}, ejection=Ejection(consecutive=2))
    await gateway.asked(8)
    assert gateway.states == ["ready", "ready"]


async def test_never_so_many_are_put_out_that_too_few_are_left():
    gateway = Gateway(A, B, C, told=dict.fromkeys("abc", 503), ejection=Ejection(consecutive=1, at_most=0.5))
    await gateway.asked(9)
    assert sorted(gateway.states) == ["ejected", "ready", "ready"]
    alone = Gateway(A, told={"a": 503}, ejection=Ejection(consecutive=1))
    await alone.asked(3)
    assert alone.states == ["ready"]


async def test_what_comes_while_a_member_is_out_does_not_count():
    """One failure after its return put a member out again, for answers to requests from before had been counted."""
    gateway = Gateway(A, B, ejection=Ejection(consecutive=5, out_for=30))
    pool = gateway.app._plan.pool
    early = [pool.nodes()[0].take() for _ in range(9)]
    for live in early:
        pool.answered(live, 503, [])
        live.leave()
    gateway.clock.advance(30)
    gateway.transport.told = {"a": [503]}
    await gateway.asked(2)
    assert gateway.states == ["ready", "ready"]


async def test_the_last_that_can_be_asked_is_not_put_out():
    gateway = Gateway(A, B, told={"a": 503}, ejection=Ejection(consecutive=1), health=HealthCheck(down=1))
    gateway.app._plan.pool.nodes()[1].pulse.turns(well=False)
    assert await gateway.asked(3) == "aaa"
    assert gateway.states == ["ready", "unhealthy"]


# Our own limits


async def test_a_connection_that_is_not_to_be_had_says_nothing_of_the_member():
    """A burst beyond our own limits opened the breakers of members that were well."""
    rules = {"breaker": CircuitBreaker(failures=1), "ejection": Ejection(consecutive=1)}
    gateway = Gateway(A, B, told={"a": NoConnectionFree("x")}, **rules)
    answer = await gateway.ask()
    assert problem(answer) == (503, "upstream-busy")
    assert answer.header(b"retry-after") == b"1"
    assert gateway.states == ["ready", "ready"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("waiting", [0, 5])
async def test_a_request_that_finds_no_connection_is_told_so(waiting):
    async def speak(spoken):
        await spoken.until()
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        await spoken.hang_on()

    async with stub(speak) as upstream:
        transport = Http1Transport(max_connections=1, max_waiting=waiting)
        app = Proxy(upstream.origin, transport=transport, connect_timeout=0.01)
        begun, leave = anyio.Event(), anyio.Event()

        async def receive():
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            begun.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, http_scope("GET"), receive, send)
            with anyio.fail_after(10):
                await begun.wait()
            assert problem(await ask(app)) == (503, "upstream-busy")
            leave.set()
        await transport.aclose()


# Nobody


async def test_when_nobody_is_available_the_client_is_told_when_to_come_back():
    gateway = Gateway(A, B, told=dict.fromkeys("ab", 500), breaker=CircuitBreaker(failures=1, open_for=30))
    await gateway.asked(2)
    gateway.clock.advance(12.5)
    answer = await gateway.ask()
    assert problem(answer) == (503, "no-upstream-available")
    assert answer.header(b"retry-after") == b"18"
    assert ("apim.upstream.none",) in gateway.events.all


# Coming in slowly


async def test_a_member_that_comes_back_takes_its_weight_little_by_little():
    gateway = Gateway(A, B, told={"a": [500, 200]}, breaker=CircuitBreaker(failures=1, open_for=30), slow_start=100)
    await gateway.asked(2)
    gateway.clock.advance(30)
    while "a" not in await gateway.asked(1):
        pass
    early = Counter(await gateway.asked(22))["a"]
    gateway.clock.advance(50)
    middle = Counter(await gateway.asked(30))["a"]
    gateway.clock.advance(50)
    assert early <= 3
    assert 8 <= middle <= 12
    assert Counter(await gateway.asked(20))["a"] == 10


async def test_a_member_that_comes_in_has_its_keys_at_once():
    members = Members(A, B)
    fields = {"balance": "consistent-hash", "key": by.header("x-tenant")}
    slow, quick = Gateway(members, slow_start=100, **fields), Gateway(members, **fields)
    await slow.ask()
    members.add(C)
    for number in range(30):
        tenant = [(b"x-tenant", b"%d" % number)]
        assert await slow.asked(1, headers=tenant) == await quick.asked(1, headers=tenant)


# The same member for the same client


def cookies(answer):
    return [value for name, value in answer.headers if name == b"set-cookie"]


async def test_a_client_stays_with_the_member_that_answered_it():
    gateway = Gateway(A, B, C, affinity=Affinity(cookie="node"))
    first = await gateway.ask()
    (line,) = cookies(first)
    cookie = line.split(b";")[0]
    assert set(await gateway.asked(5, headers=[(b"cookie", b"x=y; " + cookie)])) == {"a"}
    again = await gateway.ask(headers=[(b"cookie", cookie)])
    assert cookies(again) == []


async def test_the_cookie_is_opaque_and_out_of_reach_of_scripts():
    gateway = Gateway(A, affinity=Affinity(cookie="node", max_age=60))
    (line,) = cookies(await gateway.ask(scheme="https"))
    value, *attributes = line.split(b"; ")
    assert len(value) == len("node=") + 32
    assert attributes == [b"Path=/", b"Max-Age=60", b"HttpOnly", b"SameSite=Lax", b"Secure"]
    assert b"Secure" not in cookies(await gateway.ask())[0]


async def test_processes_with_one_secret_know_each_others_cookies():
    affinity = Affinity(cookie="node", secret="0123456789abcdef")
    (one,), (other,) = [cookies(await Gateway(A, affinity=affinity).ask()) for _ in range(2)]
    assert one == other
    (third,) = cookies(await Gateway(A, affinity=Affinity(cookie="node")).ask())
    assert third != one
    assert "0123" not in repr(affinity)


async def test_a_cookie_that_was_made_up_is_worth_nothing():
    gateway = Gateway(A, B, affinity=Affinity(cookie="node"))
    forged = [(b"cookie", b"node=" + b"0" * 32)]
    assert await gateway.asked(4, headers=forged) == "abab"
    assert len(cookies(await gateway.ask(headers=forged))) == 1


async def test_nobody_is_kept_at_a_member_that_gave_no_answer():
    gateway = Gateway(A, told={"a": ConnectFailed("x")}, affinity=Affinity(cookie="node"))
    assert cookies(await gateway.ask()) == []


async def test_a_client_whose_member_is_gone_gets_another():
    gateway = Gateway(A, B, told={"a": [200, 500]}, affinity=Affinity(cookie="n"), breaker=CircuitBreaker(failures=1))
    cookie = cookies(await gateway.ask())[0].split(b";")[0]
    assert await gateway.asked(2, headers=[(b"cookie", cookie)]) == "ab"
    assert len(cookies(await gateway.ask(headers=[(b"cookie", cookie)]))) == 1


# Members that come and go


async def test_members_come_and_go_while_requests_come_in():
    members = Members(A)
    gateway = Gateway(members)
    assert await gateway.asked(2) == "aa"
    members.add(Member(B, weight=2))
    assert Counter(await gateway.asked(3)) == {"a": 1, "b": 2}
    members.remove(A)
    assert await gateway.asked(2) == "bb"
    members.remove(B)
    assert problem(await gateway.ask()) == (503, "no-upstream-available")


async def test_a_member_that_is_given_another_name_goes_by_it():
    """Else another could have its old name, and the clients with its cookie."""
    members = Members(Member(A, name="one"))
    gateway = Gateway(members, affinity=Affinity(cookie="node"))
    given = (await gateway.ask()).header(b"set-cookie")
    members.add(Member(A, name="two"))
    members.add(Member(B, name="one"))
    assert [each.name for each in gateway.app.standing()] == ["two", "one"]
    assert await gateway.asked(2, headers=[(b"cookie", given.partition(b";")[0])]) == "bb"


async def test_a_member_that_is_drained_keeps_the_clients_it_has():
    members = Members(A, B)
    gateway = Gateway(members, affinity=Affinity(cookie="node"))
    cookie = cookies(await gateway.ask())[0].split(b";")[0]
    members.drain(A)
    assert gateway.states == ["draining", "ready"]
    assert await gateway.asked(3) == "bbb"
    assert await gateway.asked(2, headers=[(b"cookie", cookie)]) == "aa"
    members.resume(A)
    assert set(await gateway.asked(2)) == {"a", "b"}


async def test_what_is_known_of_a_member_outlives_changes_of_others():
    members = Members(A, B)
    gateway = Gateway(members, told={"a": [500]}, breaker=CircuitBreaker(failures=1))
    await gateway.ask()
    members.add(C)
    assert gateway.states == ["open", "ready", "ready"]


def test_members_are_held_to_what_they_are():
    members = Members(A)
    for wrong in (lambda: members.drain(B), lambda: Members(A, A), lambda: members.add("ftp://x"), lambda: Members(7)):
        with pytest.raises(ConfigError):
            wrong()
    members.remove(B)
    assert (len(members), repr(members)) == (1, "Members(Member('http://a'))")


# What is seen of it


class Look(Policy):
    """Keeps the attributes of the last exchange."""

    def on_end(self, exchange):
        SEEN.append(dict(exchange.attributes))


SEEN = []


async def test_the_exchange_says_who_was_asked_and_how_its_breaker_stood():
    gateway = Gateway(Member(A, name="one"), breaker=CircuitBreaker())
    await ask(Stack(Look())(gateway.app))
    assert SEEN[-1] == {"apim.upstream.member": "one", "apim.upstream.breaker": "closed"}


async def test_the_exchange_says_that_there_was_nobody():
    gateway = Gateway(A, told={"a": 500}, breaker=CircuitBreaker(failures=1))
    await gateway.ask()
    await ask(Stack(Look())(gateway.app))
    assert SEEN[-1] == {"apim.upstream.error": "no-upstream-available"}


async def test_requests_are_judged_by_the_hygiene_of_its_environment():
    app = Proxy(Pool(A), transport=Scripted(), env=Env(hygiene=Hygiene(max_fields=2)))
    many = [(b"x-%d" % number, b"1") for number in range(5)]
    assert [(await ask(app, headers=lines)).status for lines in ([], many)] == [200, 431]


async def test_one_upstream_and_no_rules_is_no_pool():
    proxy = Proxy(A, transport=Scripted())
    assert proxy._plan is None
    assert proxy.standing() == []


# Values and mistakes


def test_what_could_not_be_asked_is_not_added_later_either():
    members = Members(A)
    app = Proxy(Pool(members), transport=Scripted())
    with pytest.raises(ConfigError, match=r"Member\.lookup"):
        members.add(Member("https://b", lookup=5))
    assert [each.url for each in members] == [A]
    del app


def test_what_no_proxy_forbids_any_more_can_be_added():
    members = Members(A)
    app = Proxy(Pool(members), transport=Scripted())
    app.__dict__.clear()
    del app
    gc.collect()
    members.add(Member("https://b", lookup=5))
    assert len(members) == 2


def test_members_that_a_proxy_uses_can_be_copied():
    members = Members(A)
    app = Proxy(Pool(members))
    assert [each.url for each in copy.deepcopy(members)] == [A]
    assert app.standing()


def test_what_becomes_of_a_copy_of_members_is_its_own():
    members = Members(A)
    other = copy.copy(members)
    other.add(B)
    other.drain(A)
    assert ([each.url for each in members], members.drained(A)) == ([A], False)


def test_a_pool_is_a_value():
    pool = Pool(A, Member(B, weight=2), balance="least-connections", affinity=Affinity(cookie="n", secret="s" * 16))
    assert copy.copy(pool) == pool
    assert "s" * 16 not in repr(pool)
    shown = repr(Pool(A, balance="least-connections"))
    assert shown == "Pool(Members(Member('http://a')), balance='least-connections')"


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Pool(), "Pool.members"),
        (lambda: Pool(7), "Pool.members"),
        (lambda: Pool(A, A), "Members.members"),
        (lambda: Members(A).add(5), "Members.members"),
        (lambda: Pool(Member(A, name="x"), Member(B, name="x")), "Members.members"),
        (lambda: Pool("a:80"), "Member.url"),
        (lambda: Pool("http://user:secret@a"), "Member.url"),
        (lambda: Pool(A, balance="random"), "Pool.balance"),
        (lambda: Pool(A, balance="consistent-hash"), "Pool.balance"),
        (lambda: Pool(A, key=by.client), "Pool.balance"),
        (lambda: Pool(A, slow_start=-1), "Pool.slow_start"),
        (lambda: Pool(A, helth=HealthCheck()), "Pool.helth"),
        (lambda: Member(A, weight=0), "Member.weight"),
        (lambda: Member(A, priority=-1), "Member.priority"),
        (lambda: Member(A, lookup=0.5), "Member.lookup"),
        (lambda: Affinity(cookie="a b"), "Affinity.cookie"),
        (lambda: Affinity(cookie="a", secret="short"), "Affinity.secret"),
        (lambda: Affinity(cookie="a", path="/;x"), "Affinity.path"),
        (lambda: Affinity(cookie="a", max_age=0), "Affinity.max_age"),
        (lambda: Proxy(Pool(Member("https://a", lookup=5)), transport=Scripted()), "Member.lookup"),
    ],
)
def test_a_mistake_names_its_field(make, where):
    with pytest.raises(ConfigError, match=where) as caught:
        make()
    assert "secret@" not in str(caught.value)
