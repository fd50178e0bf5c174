"""A pool at work, at random: whatever requests do and members become, what must hold holds."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from apim_middleware.env import Env
from apim_middleware.errors import ConnectFailed, Refusal, UpstreamBroken, UpstreamTimeout
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.ejection import Ejection
from apim_middleware.proxy.members import Member, Members
from apim_middleware.proxy.pool import Pool
from apim_middleware.testing import FakeClock

from .scripted import Scripted

OUTCOMES = [200, 404, 500, 503, ConnectFailed("x"), UpstreamTimeout("x"), UpstreamBroken("x"), "left", "broke off"]
URLS = [f"http://m{number}" for number in range(5)]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("again"), st.none()),
        st.tuples(st.just("end"), st.sampled_from(OUTCOMES)),
        st.tuples(st.just("end"), st.sampled_from(OUTCOMES)),
        st.tuples(st.just("pass"), st.floats(0, 40)),
        st.tuples(st.sampled_from(["add", "remove", "drain", "resume"]), st.sampled_from(URLS)),
    ),
    max_size=80,
)
pools = st.fixed_dictionaries(
    {
        "balance": st.sampled_from(["round-robin", "least-connections", "power-of-two"]),
        "breaker": st.sampled_from([None, CircuitBreaker(failures=2, per=10, open_for=20, probes=2, successes=2)]),
        "ejection": st.sampled_from([None, Ejection(consecutive=2, out_for=10, longest=40, at_most=0.5)]),
        "slow_start": st.sampled_from([0.0, 15.0]),
    }
)


class Life:
    """A pool, the requests that are under way in it, and what must hold of both."""

    def __init__(self, options, urls=URLS):
        self.clock = FakeClock()
        self.members = Members(
            *(Member(url, weight=1 + number, priority=number % 2) for number, url in enumerate(urls))
        )
        pool = Pool(self.members, random=random.Random(1).random, **options)
        self.pool = Proxy(pool, transport=Scripted(), env=Env(clock=self.clock))._plan.pool
        self.under_way = []

    def do(self, what, how):
        if what == "pass":
            self.clock.advance(how)
        elif what in ("begin", "again"):
            self.begin(again=what == "again")
        elif what == "end":
            self.end(how)
        elif what == "add" or what == "remove" or how in {each.url for each in self.members}:
            getattr(self.members, what)(how)
        self.check()

    def begin(self, *, again):
        now = self.clock.monotonic()
        open_to = [each for each in self.pool.nodes() if not each.draining and each.available(now)]
        tried = {live.node: 0.0 for live in self.under_way[-1:]} if again else {}
        fresh = [each for each in open_to if each not in tried] or open_to
        live, told = None, None
        try:
            live = self.pool.another(None, tried) if again else self.pool.first(None)
        except Refusal as refusal:
            told = dict(refusal.headers)[b"retry-after"]
        assert told is None or int(told) >= 1
        assert (live is None) == (not open_to)
        if live is not None:
            assert live.node in fresh
            assert live.node.priority == min(each.priority for each in fresh)
            self.under_way.append(live)

    def end(self, how):
        if not self.under_way:
            return
        live = self.under_way.pop(0)
        if isinstance(how, Exception):
            self.pool.failed(live, how)
        elif how != "left":
            self.pool.answered(live, 200 if how == "broke off" else how, [])
        if how == "broke off":
            self.pool.broke_off(live)
        live.leave()
        live.leave()

    def check(self):
        for each in self.pool.nodes():
            assert each.load == sum(1 for live in self.under_way if live.node is each)
            assert 0 < each.weight <= each.share
            if each.breaker is not None and each.breaker.state == "half-open":
                assert 0 <= each.breaker._probing <= 2

    def rest(self):
        """Everything ends, and time passes."""
        while self.under_way:
            self.end("left")
        self.clock.advance(1000)


@settings(max_examples=300)
@given(pools, steps)
def test_nothing_is_lost_count_of_and_nobody_is_left_out_for_ever(options, steps):
    life = Life(options)
    for what, how in steps:
        life.do(what, how)
    life.rest()
    now = life.clock.monotonic()
    for each in life.pool.nodes():
        assert each.load == 0
        assert each.available(now)
        assert each.standing(now) in ("ready", "half-open", "draining")


@settings(max_examples=100)
@given(steps)
def test_never_more_are_put_out_than_may_be(steps):
    life = Life({"ejection": Ejection(consecutive=1, out_for=10, longest=40, at_most=0.4)})
    for what, how in steps:
        if what in ("begin", "again", "end", "pass"):
            life.do(what, how)
            now = life.clock.monotonic()
            assert sum(1 for each in life.pool.nodes() if each.outing.until > now) <= 2


@settings(max_examples=100)
@given(steps)
def test_there_is_always_somebody_who_was_not_put_out(steps):
    life = Life({"ejection": Ejection(consecutive=1, out_for=10, longest=40, at_most=1.0)})
    for what, how in steps:
        if what in ("begin", "again", "end", "pass"):
            life.do(what, how)
            assert any(each.available(life.clock.monotonic()) for each in life.pool.nodes())


few = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("end"), st.sampled_from([200, 500, "left"])),
        st.tuples(st.just("pass"), st.just(20.0)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(few)
def test_a_breaker_is_never_stuck_and_answers_from_before_change_nothing(steps):
    life = Life({"breaker": CircuitBreaker(failures=1, open_for=20)}, URLS[:1])
    (node,) = life.pool.nodes()
    began = {}  # how often the state had changed when a request began
    changes = []
    node.breaker._changed = changes.append
    for what, how in steps:
        early = what == "end" and life.under_way and began[life.under_way[0]] != len(changes)
        before = node.breaker.state
        life.do(what, how)
        assert not early or node.breaker.state == before
        began.update({live: len(changes) for live in life.under_way if live not in began})
    life.rest()
    assert node.available(life.clock.monotonic())
