"""The circuit breaker, ejection and health, as rules: what opens them, what closes them, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.errors import ConfigError
from apim_middleware.proxy._statuses import statuses_of
from apim_middleware.proxy.breaker import Breaker, CircuitBreaker
from apim_middleware.proxy.ejection import Ejection, Outing
from apim_middleware.proxy.health import HealthCheck, Pulse


def breaker(**fields):
    states = []
    made = Breaker(CircuitBreaker(**fields), states.append)
    return made, states


def say(made, now, *outcomes):
    """Requests that come and go at this moment."""
    for failed in outcomes:
        assert made.admits(now)
        if failed is None:
            made.forget(made.admit())
        else:
            made.tell(made.admit(), now, failed=failed)


def test_so_many_failures_within_the_time_open_it():
    made, states = breaker(failures=3, per=10, open_for=30)
    say(made, 0, True, True)
    assert made.admits(0)
    say(made, 9.9, True)
    assert states == ["open"]
    assert not made.admits(39.8)


def test_failures_further_apart_do_not():
    made, _ = breaker(failures=3, per=10)
    for now in (0, 5, 10, 15, 20, 25):
        say(made, now, True)
    assert made.state == "closed"


def test_what_succeeds_in_between_makes_no_difference_to_a_count():
    made, _ = breaker(failures=3, per=10)
    say(made, 0, True, False, False, True, False, True)
    assert made.state == "open"


def test_a_part_of_the_requests_can_open_it():
    made, _ = breaker(failures=2, percent=50, per=10)
    say(made, 0, False, False, False, True, True)
    assert made.state == "closed"
    say(made, 1, True)
    assert made.state == "open"


def test_a_part_of_too_few_requests_does_not():
    made, _ = breaker(failures=5, percent=50, per=10)
    say(made, 0, True, True, True, True)
    assert made.state == "closed"


def test_a_part_counts_only_what_happened_lately():
    made, _ = breaker(failures=2, percent=50, per=10)
    say(made, 0, True)
    say(made, 11, True)
    assert made.state == "closed"


def test_after_its_time_it_lets_a_few_pass():
    made, states = breaker(failures=1, open_for=30, probes=2)
    say(made, 0, True)
    assert made.wait(10) == 20
    assert made.admits(30)
    made.admit()
    assert made.admits(30)
    made.admit()
    assert not made.admits(30)
    assert states == ["open", "half-open"]


def test_a_probe_that_succeeds_closes_it():
    made, states = breaker(failures=1, open_for=30)
    say(made, 0, True)
    say(made, 30, False)
    assert states == ["open", "half-open", "closed"]


def test_a_probe_that_fails_opens_it_for_as_long_again():
    made, states = breaker(failures=1, open_for=30)
    say(made, 0, True)
    say(made, 30, True)
    assert states == ["open", "half-open", "open"]
    assert not made.admits(59)
    assert made.admits(60)


def test_it_can_take_several_probes_to_close_it():
    made, _ = breaker(failures=1, open_for=30, successes=2)
    say(made, 0, True)
    say(made, 30, False)
    assert made.state == "half-open"
    say(made, 30, False)
    assert made.state == "closed"


def test_a_probe_that_is_given_up_makes_room_for_another():
    made, _ = breaker(failures=1, open_for=30)
    say(made, 0, True)
    say(made, 30, None)
    assert made.state == "half-open"
    assert made.admits(30)


def test_an_answer_from_before_says_nothing_of_after():
    made, _ = breaker(failures=1, open_for=30)
    early, late = made.admit(), made.admit()
    made.tell(early, 0, failed=True)
    assert made.admits(30)
    made.tell(late, 30, failed=True)
    assert made.state == "half-open"
    made.tell(late, 30, failed=False)
    assert made.state == "half-open"


@pytest.mark.parametrize(("asked", "lasts"), [(5, 5), (1000, 300), (None, 30), (0.0, 30), (-5.0, 30)])
def test_the_upstream_may_say_how_long_it_stays_open(asked, lasts):
    made, _ = breaker(failures=1, open_for=30, longest=300)
    made.tell(made.admit(), 0, failed=True, wait=asked)
    assert made.wait(0) == lasts


def test_an_upstream_that_has_no_say_is_not_heard():
    made, _ = breaker(failures=1, open_for=30, retry_after=False)
    made.tell(made.admit(), 0, failed=True, wait=5)
    assert made.wait(0) == 30


def test_probes_of_which_nothing_comes_make_room_for_others():
    """A client that never ended its request kept a member out for as long as it liked."""
    made, states = breaker(failures=1, open_for=30)
    say(made, 0, True)
    assert made.admits(30)
    slow = made.admit()
    assert not made.admits(59)
    assert made.admits(60)
    made.tell(slow, 60, failed=True)
    made.forget(slow)
    assert (made.state, made.admits(60)) == ("half-open", True)
    made.admit()
    assert not made.admits(60)
    assert states == ["open", "half-open"]


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from([True, False, None])), max_size=60), st.integers(1, 3))
def test_no_more_probes_than_allowed_are_ever_under_way(steps, probes):
    made, _ = breaker(failures=2, per=10, open_for=5, probes=probes)
    now, out = 0.0, []
    for passed, failed in steps:
        now += passed
        if made.admits(now):
            out.append((made.state, made.admit()))
        assert sum(1 for state, ticket in out if state == "half-open" and ticket == made._ticket) <= probes
        if out and failed is None:
            made.forget(out.pop(0)[1])
        elif len(out) > 3:
            made.tell(out.pop(0)[1], now, failed=failed)


# Ejection


def test_failures_in_a_row_put_a_member_out():
    outing = Outing(Ejection(consecutive=3))
    assert [outing.full(failed=each) for each in (True, True, False, True, True, True)] == [False] * 5 + [True]


def test_each_time_lasts_longer_up_to_a_bound():
    outing = Outing(Ejection(out_for=30, longest=70))
    ends = []
    for _ in range(4):
        outing.begin(outing.until)
        ends.append(outing.until)
    assert ends == [30, 90, 160, 230]


def test_staying_in_is_forgiven_for():
    outing = Outing(Ejection(out_for=30))
    outing.begin(0)
    outing.begin(30)
    assert outing.until == 90
    outing.begin(90 + 60)
    assert outing.until == 210
    outing.begin(1000)
    assert outing.until == 1030


# Health


def test_a_member_turns_when_enough_checks_in_a_row_say_so():
    pulse = Pulse(HealthCheck(up=2, down=3))
    said = [False, False, True, False, False, False, True, False, True, True]
    turned = [pulse.turns(well=each) for each in said]
    assert [number for number, each in enumerate(turned) if each] == [5, 9]
    assert pulse.well


# Mistakes


@pytest.mark.parametrize(
    ("cls", "fields", "field"),
    [
        (CircuitBreaker, {"failures": 0}, "failures"),
        (CircuitBreaker, {"failures": 10_001}, "failures"),
        (CircuitBreaker, {"percent": 0.0}, "percent"),
        (CircuitBreaker, {"percent": 101.0}, "percent"),
        (CircuitBreaker, {"per": 0}, "per"),
        (CircuitBreaker, {"open_for": 90_000}, "open_for"),
        (CircuitBreaker, {"statuses": ("nonsense",)}, "statuses"),
        (CircuitBreaker, {"statuses": (), "errors": ()}, "statuses"),
        (CircuitBreaker, {"errors": ("dns",)}, "errors"),
        (CircuitBreaker, {"probes": 0}, "probes"),
        (Ejection, {"consecutive": 0}, "consecutive"),
        (Ejection, {"out_for": 400.0}, "out_for"),
        (Ejection, {"at_most": 0}, "at_most"),
        (Ejection, {"statuses": (99,)}, "statuses"),
        (Ejection, {"statuses": (), "errors": ()}, "statuses"),
        (HealthCheck, {"path": "healthz"}, "path"),
        (HealthCheck, {"path": "/a b"}, "path"),
        (HealthCheck, {"every": 0}, "every"),
        (HealthCheck, {"timeout": 0}, "timeout"),
        (HealthCheck, {"up": 0}, "up"),
        (HealthCheck, {"method": "G T"}, "method"),
        (HealthCheck, {"statuses": ()}, "statuses"),
    ],
)
def test_a_mistake_names_its_field(cls, fields, field):
    with pytest.raises(ConfigError, match=rf"{cls.__name__}\.{field}"):
        cls(**fields)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ((503,), {503}),
        (("500-502",), {500, 501, 502}),
        (("5xx",), set(range(500, 600))),
        ((200, "4XX"), {200, *range(400, 500)}),
    ],
)
def test_statuses_are_written_as_people_write_them(given, meant):
    assert statuses_of(HealthCheck(statuses=given), "statuses") == meant
