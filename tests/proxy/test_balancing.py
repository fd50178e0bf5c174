"""Whose turn it is: every way of choosing, over many requests."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._digest import digest
from apim_middleware.proxy._balancing import ConsistentHash, LeastConnections, PowerOfTwo, RoundRobin, drawn


@dataclass(eq=False)
class Spot:
    name: str
    weight: float = 1
    load: int = 0
    turn: float = 0.0

    @property
    def share(self):
        return self.weight

    @property
    def seed(self):
        return digest(self.name)


def spots(**weights):
    return [Spot(name, weight) for name, weight in weights.items()]


def test_each_has_its_turn_by_weight_and_never_in_bursts():
    members = spots(a=5, b=1, c=1)
    chosen = "".join(RoundRobin().pick(members, None).name for _ in range(14))
    assert chosen == "aabacaaaabacaa"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_a_round_gives_each_exactly_its_weight(weights):
    members = [Spot(str(number), weight) for number, weight in enumerate(weights)]
    balance = RoundRobin()
    chosen = Counter(balance.pick(members, None).name for _ in range(sum(weights)))
    assert [chosen[each.name] for each in members] == weights


def test_one_that_comes_back_gets_no_more_than_its_turn():
    members = spots(a=1, b=1, c=1)
    balance = RoundRobin()
    for _ in range(100):
        balance.pick(members[:2], None)
    chosen = [balance.pick(members, None).name for _ in range(6)]
    assert chosen.count("c") == 2


def test_the_one_with_the_least_to_do_for_its_weight_is_chosen():
    members = spots(a=1, b=3)
    members[0].load, members[1].load = 1, 2
    assert LeastConnections().pick(members, None).name == "b"
    members[1].load = 4
    assert LeastConnections().pick(members, None).name == "a"


def test_those_with_as_little_to_do_take_turns():
    members = spots(a=1, b=1, c=1)
    members[1].load = 1
    balance = LeastConnections()
    assert [balance.pick(members, None).name for _ in range(4)] == ["a", "c", "a", "c"]


def test_the_better_of_two_is_chosen():
    members = spots(a=1, b=1)
    members[0].load = 5
    balance = PowerOfTwo(random.Random(1).random)
    assert {balance.pick(members, None).name for _ in range(50)} == {"b"}


def test_two_are_drawn_by_weight():
    balance = PowerOfTwo(random.Random(1).random)
    members = spots(a=8, b=1, c=1)
    chosen = Counter(balance.pick(members, None).name for _ in range(3000))
    assert chosen["a"] > 2000
    assert min(chosen.values()) > 100


def test_two_choices_keep_the_worst_close_to_the_rest():
    rng = random.Random(1)
    balance = PowerOfTwo(rng.random)
    members = [Spot(str(number)) for number in range(50)]
    for _ in range(5000):
        balance.pick(members, None).load += 1
    assert max(each.load for each in members) <= 106


def test_one_alone_is_chosen_by_all():
    for balance in (RoundRobin(), LeastConnections(), PowerOfTwo(random.random), ConsistentHash()):
        assert balance.pick(spots(a=1), "key").name == "a"


KEYS = [f"tenant-{number}" for number in range(2000)]


def test_a_key_stays_where_it_is():
    members = spots(a=1, b=1, c=1)
    balance = ConsistentHash()
    before = [balance.pick(members, key).name for key in KEYS]
    assert [balance.pick(members[::-1], key).name for key in KEYS] == before


def test_keys_are_spread_by_weight():
    chosen = Counter(ConsistentHash().pick(spots(a=1, b=1, c=2), key).name for key in KEYS)
    assert 400 < chosen["a"] < 600
    assert 400 < chosen["b"] < 600
    assert 900 < chosen["c"] < 1100


def test_when_one_goes_only_its_keys_go_elsewhere():
    members = spots(a=1, b=1, c=1, d=1)
    balance = ConsistentHash()
    for key in KEYS:
        before, after = balance.pick(members, key).name, balance.pick(members[:3], key).name
        assert before in ("d", after)


def test_the_same_key_has_the_same_member_in_every_process():
    assert [ConsistentHash().pick(spots(a=1, b=1, c=1), key).name for key in KEYS[:8]] == list(EXPECTED)


EXPECTED = "caaabacb"  # whatever it is, it may not change from one release to the next


def test_requests_without_a_key_take_turns():
    balance = ConsistentHash()
    members = spots(a=1, b=1)
    assert [balance.pick(members, None).name for _ in range(4)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("number", [0.0, 0.999999999999, 1.0])
def test_every_number_falls_on_somebody(number):
    assert drawn(spots(a=0.1, b=0.2, c=0.7), number).name in "abc"
