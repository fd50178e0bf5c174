"""Policies and stacks as they are written: what is refused while building, and how things are bound."""

import copy
import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pytest
from fastapi import FastAPI

import apim_middleware
from apim_middleware._ring import Ring
from apim_middleware.by import Key, client, everyone
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ApimError, ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.guarding.coverage import coverage
from apim_middleware.policies.branch import When
from apim_middleware.policy import Policy, Stack
from apim_middleware.protocols import Clock
from apim_middleware.testing import FakeClock
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("never called")


@dataclass(frozen=True, kw_only=True)
class Sample(Policy):
    calls: int
    per: float = 60.0
    name: str = "sample"
    mode: Literal["refuse", "allow"] = "refuse"
    paths: tuple[str, ...] = ()
    by: Key = everyone
    limits: Mapping[str, int] = field(default_factory=dict, hash=False)
    clock: Clock | None = None
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise self.mistake("calls", "lets nobody in", "Give a number of at least 1")
        if self.secret == "weak":
            raise self.mistake("secret", "is too short", "Give at least 32 characters")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"calls": 1, "cals": 2}, "Sample.cals: no such field (given a value of type int). Did you mean calls?"),
        ({}, "Sample.calls: is missing. Write Sample(calls=...)."),
        ({"calls": "10"}, "Sample.calls: '10' is not int. Give int."),
        ({"calls": True}, "Sample.calls: True is not int. Give int."),
        ({"calls": 1, "per": "60"}, "Sample.per: '60' is not float. Give float."),
        ({"calls": 1, "per": 10**400}, f"Sample.per: 1{'0' * 76}... is not float. Give float."),
        ({"calls": 1, "mode": "deny"}, "Sample.mode: 'deny' is not 'refuse' or 'allow'. Give 'refuse' or 'allow'."),
        ({"calls": 1, "paths": "/a"}, "Sample.paths: '/a' is not a tuple of str. Write paths=(\"...\",), with the comma."),  # noqa: E501
        ({"calls": 1, "paths": (1,)}, "Sample.paths: (1,) is not a tuple of str. Give a tuple of str."),
        ({"calls": 1, "by": "client"}, "Sample.by: 'client' is not a function of 1 argument. Write by=by.client."),
        ({"calls": 1, "limits": {"a": "b"}}, "Sample.limits: {'a': 'b'} is not Mapping of str and int. Give Mapping of str and int."),  # noqa: E501
        ({"calls": 1, "clock": 5}, "Sample.clock: 5 is not Clock. Give a Clock, which has now and monotonic."),
        ({"calls": 0}, "Sample.calls: 0 lets nobody in. Give a number of at least 1."),
        ({"calls": 1, "secret": 5}, "Sample.secret: a value of type int is not str. Give str."),
        ({"calls": 1, "secret": "weak"}, "Sample.secret: a value of type str is too short. Give at least 32 characters."),  # noqa: E501
    ],
)  # fmt: skip
def test_a_mistake_names_policy_field_value_and_cure(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sample(**fields)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_fields_are_given_by_name() -> None:
    with pytest.raises(ConfigError, match="fields are given by name only"):
        Sample(10)  # type: ignore[misc]


def test_a_class_given_as_the_middleware_is_told_of() -> None:
    with pytest.raises(ConfigError, match=r"Write add_middleware\(Sample\(...\)\)"):
        Sample(app, calls=10)  # type: ignore[misc]


def test_a_config_error_is_what_python_would_raise_too() -> None:
    assert issubclass(ConfigError, ApimError | ValueError)
    assert issubclass(ConfigError, TypeError)


def test_good_values_pass() -> None:
    Sample(calls=1, per=5, paths=("/a", "/b"), limits={"a": 1}, clock=FakeClock(), by=lambda exchange: "k")


def test_values_are_values() -> None:
    first = Sample(calls=1)
    assert first == Sample(calls=1)
    assert hash(first) == hash(Sample(calls=1))
    assert replace(first, calls=2) == Sample(calls=2)
    assert copy.deepcopy(first) == copy.copy(first) == pickle.loads(pickle.dumps(first)) == first


def test_replacing_a_field_checks_it() -> None:
    with pytest.raises(ConfigError):
        replace(Sample(calls=1), calls=0)


def test_secrets_stay_out_of_the_repr() -> None:
    assert "hunter2" not in repr(Sample(calls=1, secret="hunter2"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stack(5), "Stack.layers: number 1 is 5, which is no layer"),
        (lambda: Stack(Sample(calls=1), None), "Stack.layers: number 2 is None"),
        (lambda: Stack(env="x"), "Stack.env: 'x' is not an Env"),
        (lambda: Stack(place=5), "Stack.place: 5 is not a str"),
        (lambda: Stack(plac="x"), r"Stack.plac: no such field \(given a value of type str\). Did you mean place?"),
        (lambda: Stack(hygiene=None), "Stack.hygiene: no such field .* The fields are env, place"),
    ],
)
def test_a_stack_takes_layers(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


class Tenants(Stack):
    def __init__(self, tenant: str, **more: str) -> None:
        super().__init__(place=tenant)
        self.more = more


def test_a_stack_of_another_kind_may_be_given_more() -> None:
    assert Tenants("acme", region="eu").more == {"region": "eu"}
    assert Tenants(tenant="acme").place == "acme"


@pytest.mark.parametrize("given", [None, "main:app", 5])
@pytest.mark.parametrize("front", [Sample(calls=1), Stack(Sample(calls=1)), When(everyone, Stack())])
def test_what_is_no_app_cannot_be_guarded(front: Layer, given: Any) -> None:
    """Found by an audit: it was built, and every request failed."""
    with pytest.raises(ConfigError, match=rf"{type(front).__name__}: was put in front of {given!r}, which is no ASGI"):
        front(given)


def test_a_stack_shows_what_it_is_made_of() -> None:
    assert repr(Stack(Stack(), opaque)).startswith("Stack(Stack(), <function opaque")


def opaque(app: ASGIApp) -> ASGIApp:
    async def passing(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return passing


# Order


@dataclass(frozen=True, kw_only=True)
class Authenticates(Policy):
    provides = frozenset({"principal"})
    guards = True


@dataclass(frozen=True, kw_only=True)
class Relies(Policy):
    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"principal"})


@dataclass(frozen=True, kw_only=True)
class Remembers(Policy):
    answers = True


@pytest.mark.parametrize("between", [(), (opaque,)])
def test_a_need_established_only_further_in_is_refused(between: tuple[object, ...]) -> None:
    with pytest.raises(
        ConfigError, match="Relies: relies on the principal, which Authenticates establishes only behind"
    ):
        Stack(Relies(), *between, Authenticates())  # type: ignore[arg-type]


def test_a_need_established_further_out_is_met() -> None:
    Stack(Authenticates(), Relies())(app)


def test_a_need_that_nobody_here_meets_may_be_met_outside() -> None:
    Stack(Relies())(app)


def test_a_guard_behind_a_memory_of_answers_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"Authenticates: stands behind Remembers.* from memory.*Write Authenticates before Remembers"
    ):
        Stack(Remembers(), Stack(Authenticates()))


def test_no_guard_is_put_behind_a_memory_of_answers_one_by_one() -> None:
    with pytest.raises(ConfigError):
        Remembers()(Authenticates()(app))


@pytest.mark.parametrize(
    "between",
    [
        apim_middleware.AccessLog(),
        apim_middleware.Compress(),
        apim_middleware.ETag(),
        apim_middleware.Faults(slow=0.5),
        apim_middleware.Idempotency(),
        apim_middleware.LimitBody(max_bytes=1),
        apim_middleware.LimitConcurrency(at_once=1, queue=1),
        apim_middleware.Mirror(app),
        apim_middleware.RateLimit(calls=1, per=1, units="bytes"),
        apim_middleware.Timeout(seconds=1),
        apim_middleware.Tracing(),
        apim_middleware.When(apim_middleware.conditions.is_websocket, apim_middleware.Timeout(seconds=1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_no_guard_hides_behind_what_stands_between(between: Policy) -> None:
    """Put on one by one; in a stack it was always found."""
    with pytest.raises(ConfigError, match="Authenticates: stands behind"):
        Remembers()(between(Authenticates()(app)))


def test_no_guard_hides_behind_several_that_stand_between() -> None:
    timeout = apim_middleware.Timeout(seconds=1)
    with pytest.raises(ConfigError, match="stands behind Remembers"):
        Remembers()(apim_middleware.ETag()(timeout(apim_middleware.LimitBody(max_bytes=1)(Authenticates()(app)))))


def test_a_need_is_found_behind_what_stands_between() -> None:
    with pytest.raises(ConfigError, match="Write Authenticates before Relies"):
        Relies()(apim_middleware.Timeout(seconds=1)(Authenticates()(app)))


@dataclass(frozen=True)
class Undecided(Policy):
    """Might refuse, for all that is known."""

    def on_request(self, exchange: Exchange) -> None:
        """Let everybody in."""


@dataclass(frozen=True)
class KeepsNobodyOut(Undecided):
    guards = False


def test_nothing_answers_from_memory_before_a_policy_that_might_refuse() -> None:
    with pytest.raises(ConfigError, match=r'Write Undecided before Remembers, or say "guards = False" in Undecided'):
        Stack(Remembers(), Undecided())


def test_nor_before_a_branch_that_holds_one() -> None:
    with pytest.raises(ConfigError, match="When: stands behind Remembers"):
        Stack(Remembers(), When(lambda exchange: True, Undecided()))


def test_what_says_that_it_keeps_nobody_out_may_stand_behind_a_memory_of_answers() -> None:
    Stack(Remembers(), KeepsNobodyOut(), Sample(calls=1))(app)


def test_what_does_not_say_that_it_guards_guards_no_route() -> None:
    api = FastAPI()
    api.get("/")(list)
    table = coverage(Undecided()(api))
    assert table.rows
    assert not any(row.guarded for row in table.rows)


@pytest.mark.parametrize("name", ["on_reqest", "on_requests", "on_respose", "on_ended", "on_send"])
def test_a_misspelt_hook_is_refused(name: str) -> None:
    hooks = type("Hooks", (), {name: lambda self, exchange: None})
    kind = type("Typo", (Policy,), {"bind": lambda self, env: hooks()})
    with pytest.raises(ConfigError, match=rf"Hooks\.{name}: is no hook\. Did you mean on_"):
        Stack(kind())(app)


async def ends_later(self: object, exchange: Exchange) -> None: ...


def takes_nothing(self: object) -> None: ...


def takes_two(self: object, exchange: Exchange, status: int) -> None: ...


def takes_by_name(self: object, *, exchange: Exchange) -> None: ...


UNFIT = [
    ("on_end", ends_later, "is async, and would never be awaited. Write a plain function."),
    ("on_request", takes_nothing, "cannot be called with the exchange alone: .* Write def on_request.self, exchange."),
    ("on_response", takes_two, "cannot be called with the exchange alone: missing a required argument: 'status'"),
    ("on_sent", takes_by_name, "cannot be called with the exchange alone"),
    ("on_end", takes_nothing, "cannot be called with the exchange alone"),
]


@pytest.mark.parametrize(("name", "hook", "message"), UNFIT)
def test_a_hook_that_cannot_do_its_work_is_refused(name: str, hook: object, message: str) -> None:
    """An ``async def on_end`` was built and never awaited; the others failed at every request."""
    kind = type("Unfit", (Policy,), {name: hook})
    with pytest.raises(ConfigError, match=rf"Unfit\.{name}: {message}"):
        Stack(kind())(app)


@pytest.mark.parametrize(("name", "hook", "message"), UNFIT)
def test_it_is_refused_on_what_was_bound_too(name: str, hook: object, message: str) -> None:
    hooks = type("Hooks", (), {name: hook})
    kind = type("Unfit", (Policy,), {"bind": lambda self, env: hooks()})
    with pytest.raises(ConfigError, match=rf"Unfit\.{name}: of Hooks {message}"):
        kind()(app)


def test_an_end_that_must_be_awaited_is_found_in_what_can_be_called() -> None:
    class Later:
        async def __call__(self, exchange: Exchange) -> None: ...

    for hook in (Later(), partial(ends_later, None)):
        kind = type("Unfit", (Policy,), {"on_end": staticmethod(hook)})
        with pytest.raises(ConfigError, match=r"Unfit\.on_end: is async"):
            kind()(app)


def test_a_hook_behind_a_wrapper_is_asked_what_the_wrapper_takes() -> None:
    def thrice(hook: Callable[[Any, Exchange, int], None]) -> Callable[[Any, Exchange], None]:
        @functools.wraps(hook)
        def wrapper(self: Any, exchange: Exchange) -> None:
            hook(self, exchange, 3)

        return wrapper

    class Retrying(Policy):
        guards = False

        @thrice
        def on_request(self, exchange: Exchange, times: int) -> None: ...

    Retrying()(app)


def test_hooks_that_do_not_say_what_they_take_pass() -> None:
    class Silent:
        __signature__ = "unknown"

        def __call__(self, *args: object) -> None: ...

    hooks = {"on_request": Silent(), "on_response": None, "on_sent": lambda *args: None, "on_end": dict.fromkeys}
    Stack(type("Odd", (Policy,), hooks)())(app)


def test_a_need_established_only_further_in_is_found_one_by_one_too() -> None:
    with pytest.raises(ConfigError, match="Write Authenticates before Relies"):
        Relies()(Authenticates()(app))


def test_a_need_may_be_met_by_the_outer_of_two_providers() -> None:
    Stack(Authenticates(), Relies(), Authenticates())(app)


# Fusing and binding


@dataclass(frozen=True, kw_only=True)
class Keeps(Policy):
    number: int = 0

    def bind(self, env: Env) -> "Kept":
        return Kept(env)


class Kept:
    def __init__(self, env: Env) -> None:
        self.place = env.place

    def on_request(self, exchange: Exchange) -> None: ...


def kept(built: ASGIApp) -> list[Kept]:
    assert isinstance(built, Ring)
    return [seat.hooks for seat in built.seats]


def test_neighbours_are_fused_however_they_were_put_together() -> None:
    a, b, c = Keeps(number=1), Keeps(number=2), Keeps(number=3)
    for built in (Stack(a, b, c)(app), a(b(c(app))), Stack(a, Stack(b, c))(app), Stack(a)(Stack(b)(c(app)))):
        assert isinstance(built, Ring)
        assert [seat.policy for seat in built.seats] == [a, b, c]


def test_one_object_keeps_one_count_wherever_it_is_used() -> None:
    """Some frameworks apply one middleware to every route anew: the limit must not be as many times as high."""
    once = Keeps()
    assert kept(once(app))[0] is kept(once(app))[0]


def test_equal_objects_keep_their_own_counts() -> None:
    assert kept(Keeps()(app))[0] is not kept(Keeps()(app))[0]


def test_equal_policies_at_one_named_place_keep_what_they_have_when_built_anew() -> None:
    env = Env()
    before = Stack(Keeps(number=1), Keeps(number=2), env=env, place="orders")(app)
    after = Stack(Keeps(number=2), env=env, place="orders")(app)
    assert kept(after)[0] is kept(before)[1]


def test_equal_policies_at_two_places_count_apart() -> None:
    env = Env()
    orders = Stack(Keeps(), env=env, place="orders")(app)
    users = Stack(Keeps(), env=env, place="users")(app)
    assert kept(orders)[0] is not kept(users)[0]


def test_equal_policies_in_one_stack_at_a_named_place_count_apart() -> None:
    env = Env()
    first, second = kept(Stack(Keeps(), Keeps(), env=env, place="orders")(app))
    again = kept(Stack(Keeps(), Keeps(), env=env, place="orders")(app))
    assert first is not second
    assert [first, second] == again


def test_equal_policies_in_stacks_within_a_named_place_count_apart() -> None:
    env = Env()
    first, second, third = kept(Stack(Stack(Keeps()), Keeps(), Stack(Keeps()), env=env, place="orders")(app))
    assert len({id(first), id(second), id(third)}) == 3
    assert kept(Stack(Stack(Keeps()), Keeps(), Stack(Keeps()), env=env, place="orders")(app)) == [first, second, third]


def test_equal_policies_in_two_branches_at_a_named_place_count_apart() -> None:
    branches = [When(lambda exchange: True, Keeps()), When(lambda exchange: True, Keeps())]
    outer = Stack(*branches, env=Env(), place="orders")(app)
    assert isinstance(outer, Ring)
    taken = [fork._ways[0][1] for fork in (*kept(outer), *kept(outer.app))]
    first, second = (kept(ring)[0] for ring in taken)
    assert first is not second


def test_places_nest_and_are_unique_to_a_policy() -> None:
    built = Stack(Stack(Keeps(), place="inner"), env=Env(), place="outer")(app)
    assert kept(built)[0].place == "outer/inner/Keeps"
    assert kept(Keeps()(app))[0].place != kept(Keeps()(app))[0].place


def test_what_no_stack_uses_any_more_is_forgotten() -> None:
    env = Env()
    for number in range(100):
        Stack(Keeps(number=number), env=env, place="orders")(app)
    assert len(env._bound) <= 1


def test_hooks_that_cannot_be_referenced_weakly_are_refused() -> None:
    class Slotted:
        __slots__ = ("x",)

    @dataclass(frozen=True, kw_only=True)
    class Binds(Policy):
        def bind(self, env: Env) -> Slotted:
            return Slotted()

    with pytest.raises(ConfigError, match=r"Binds\.bind: bind gave Slotted"):
        Binds()(app)


def test_the_default_environment_forgets_too() -> None:
    for _ in range(100):
        Keeps()(app)
    bound = [seat for seats in default_env._bound.values() for seat in seats]
    assert len([seat for seat in bound if isinstance(seat.policy, Keeps)]) <= 50


def test_a_stack_with_an_environment_of_its_own_keeps_it_inside_another() -> None:
    own, outer = Env(place="own"), Env(place="outer")
    built = Stack(Keeps(number=1), Stack(Keeps(number=2), env=own), env=outer)(app)
    assert [each.place for each in kept(built)] == ["outer/Keeps", "own/Keeps"]


def test_what_an_environment_was_not_given_is_made_once() -> None:
    env = Env()
    assert env.at("a").counters(object) is env.at("b").counters(object)  # type: ignore[arg-type]


# Keys


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_one_key_whatever_it_can_choose(address: str, key: str) -> None:
    assert client(Exchange({"type": "http", "client": (address, 1)})) == key
