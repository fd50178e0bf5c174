"""A layer in front of some requests: never in front of others, never left out, never out of order."""

import copy
import functools
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient
from tests.laws.random_stacks import Case, Probe, Trace, app_of, observe

from apim_middleware import by, conditions
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send

pytestmark = pytest.mark.anyio

admin = conditions.path("/admin/*")


@dataclass(frozen=True, kw_only=True)
class Mark(Policy):
    """Writes its name on the request and on the response."""

    name: str

    def on_request(self, exchange: Exchange) -> None:
        exchange.add_header("x-in", self.name)

    def on_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.append(b"x-out", self.name.encode())


@dataclass(frozen=True, kw_only=True)
class Refuse(Policy):
    """Refuses everybody."""

    guards: ClassVar[bool] = True

    def on_request(self, exchange: Exchange) -> None:
        raise Refusal(403, "no")


@dataclass(frozen=True, kw_only=True)
class Identify(Policy):
    provides: ClassVar[frozenset[str]] = frozenset({"principal"})


@dataclass(frozen=True, kw_only=True)
class Needs(Policy):
    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"principal"})


@dataclass(frozen=True, kw_only=True)
class Remember(Policy):
    answers: ClassVar[bool] = True


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the marks on the request."""
    marks = b"".join(value for name, value in scope["headers"] if name == b"x-in")
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept", "headers": [(b"x-marks", marks)]})
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": marks, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def marks(answer: Answer) -> tuple[str, str]:
    """The marks a request got on its way in and those the response got on its way out."""
    return answer.body.decode(), b"".join(answer.all(b"x-out")).decode()


a, b, c, d = (Mark(name=name) for name in "abcd")


def yes(exchange: Exchange) -> bool:
    return True


def no(exchange: Exchange) -> bool:
    return False


async def yes_later(exchange: Exchange) -> bool:
    await anyio.lowlevel.checkpoint()
    return True


async def no_later(exchange: Exchange) -> bool:
    await anyio.lowlevel.checkpoint()
    return False


# Which way


async def test_the_layer_is_in_front_of_what_the_condition_holds_for_and_of_nothing_else():
    guarded = When(admin, Refuse())(app)
    paths = ("/admin", "/admin/", "//admin/x", "/%61dmin", "/", "/administrator")
    assert [(await call(guarded, path=path)).status for path in paths] == [403, 403, 403, 200, 200, 200]
    assert (await call(guarded, path="/admin", raw_path=b"/%61dmin")).status == 403


async def test_otherwise_is_in_front_of_the_others():
    guarded = When(admin, a, otherwise=b)(app)
    assert marks(await call(guarded, path="/admin")) == ("a", "a")
    assert marks(await call(guarded)) == ("b", "b")


async def test_the_first_condition_that_holds_decides_alone():
    chosen = Choose((no, a), (yes, b), (yes, c), otherwise=d)(app)
    assert marks(await call(chosen)) == ("b", "b")


async def test_conditions_behind_the_first_that_holds_are_not_asked():
    def never(exchange: Exchange) -> bool:
        raise AssertionError

    assert marks(await call(Choose((yes, a), (never, b))(app))) == ("a", "a")


async def test_without_a_condition_that_holds_there_is_otherwise_or_nothing():
    assert marks(await call(Choose((no, a), (no, b), otherwise=c)(app))) == ("c", "c")
    assert marks(await call(Choose((no, a), (no, b))(app))) == ("", "")


class Later:
    async def __call__(self, exchange: Exchange) -> bool:
        return await yes_later(exchange)


@pytest.mark.parametrize(
    "condition", [yes_later, functools.partial(yes_later), Later()], ids=["def", "partial", "object"]
)
async def test_a_condition_may_await(condition: Any):
    assert marks(await call(Choose((no, a), (no_later, b), (condition, c), (yes, d))(app))) == ("c", "c")


@pytest.mark.parametrize(("verdict", "taken"), [(b"x", "a"), (1, "a"), ("", "b"), (None, "b"), (0, "b")])
async def test_what_counts_as_true_is_true(verdict: Any, taken: str):
    async def later(exchange: Exchange) -> Any:
        return verdict

    for condition in (lambda exchange: verdict, later):
        assert marks(await call(When(condition, a, otherwise=b)(app)))[0] == taken


async def test_a_layer_may_be_any_app_that_answers_instead():
    async def legacy(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"legacy"})

    moved = Stack(a, When(admin, lambda app: legacy))(app)
    answer = await call(moved, path="/admin")
    assert (answer.status, marks(answer)) == (299, ("legacy", "a"))


async def test_a_layer_may_be_any_middleware():
    def upper(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "headers": [*scope["headers"], (b"x-in", b"M")]}, receive, send)

        return middleware

    assert marks(await call(Stack(a, When(yes, Stack(b, upper, c)), d)(app))) == ("abMcd", "dcba")
    zipped = TestClient(When(yes, functools.partial(GZipMiddleware, minimum_size=1))(Stack(a)(app)))
    assert zipped.get("/").text == "a"


# Order and manners


@pytest.mark.parametrize("condition", [yes, yes_later])
async def test_order_is_kept_whichever_way_a_request_takes(condition: Any):
    stack = Stack(a, When(condition, Stack(b, c)), d)(app)
    assert marks(await call(stack)) == ("abcd", "dcba")
    stack = Stack(a, When(conditions.not_(yes), b), d)(app)
    assert marks(await call(stack)) == ("ad", "da")


async def test_a_refusal_in_a_branch_leaves_through_the_policies_before_it():
    answer = await call(Stack(a, When(yes, Stack(b, Refuse(), c)), d)(app))
    assert (answer.status, b"".join(answer.all(b"x-out"))) == (403, b"ba")


async def test_branches_stand_in_branches():
    inner = When(conditions.path("/x/y/*"), b, otherwise=c)
    stack = Stack(When(conditions.path("/x/*"), Stack(a, inner)), d)(app)
    assert [marks(await call(stack, path=path))[0] for path in ("/", "/x", "/x/y")] == ["d", "acd", "abd"]


async def test_a_condition_sees_what_policies_before_it_did():
    stack = Stack(a, When(conditions.header("x-in", "a"), b), When(conditions.header("x-in", "b"), c))(app)
    assert marks(await call(stack))[0] == "abc"


async def test_a_branch_keeps_what_it_counts_from_request_to_request():
    class Counting(Policy):
        def bind(self, env: Env) -> Any:
            return Counter()

    class Counter:
        seen = 0

        def on_request(self, exchange: Exchange) -> None:
            self.seen += 1
            exchange.add_header("x-in", str(self.seen))

    guarded = When(admin, Counting())(app)
    assert [marks(await call(guarded, path=path))[0] for path in ("/admin", "/", "/admin")] == ["1", "", "2"]


async def test_every_on_end_of_a_branch_runs_once_and_those_of_the_other_do_not():
    ended: list[str] = []

    @dataclass(frozen=True, kw_only=True)
    class Ends(Policy):
        name: str

        def on_end(self, exchange: Exchange) -> None:
            ended.append(self.name)

    one, two, outer = (Ends(name=name) for name in ("one", "two", "outer"))
    stack = Stack(outer, When(admin, one, otherwise=two))(app)
    with pytest.raises(OSError, match="gone"):
        await call(stack, path="/admin", leave_after=1)
    assert sorted(ended) == ["one", "outer"]


async def test_a_stream_passes_chunk_by_chunk():
    answer = await call(Stack(When(yes, a), When(no, b))(app))
    assert [each.get("body") for each in answer.messages[1:]] == [b"a", b""]


async def test_policies_behind_a_branch_are_no_business_of_an_app_in_it():
    """One that may tap bodies hides the ways past it, but only from those whose bodies it could tap."""

    class Taps(Policy):
        taps_body = True

        def on_response(self, exchange: Exchange) -> None: ...

    offered: list[Any] = []

    async def legacy(scope: Scope, receive: Receive, send: Send) -> None:
        offered.append(scope["extensions"])

    stack = Stack(a, When(admin, lambda app: legacy), Taps())(legacy)
    for path in ("/admin", "/"):
        await call(stack, path=path, extensions={"http.response.pathsend": {}})
    assert offered == [{"http.response.pathsend": {}}, {}]


async def test_an_app_that_raises_still_raises():
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("app")

    for condition in (yes, no):
        with pytest.raises(LookupError):
            await call(When(condition, a)(broken))


async def test_a_handshake_takes_its_way_like_any_request():
    stack = When(conditions.all_of(admin, conditions.is_websocket), Refuse(), otherwise=a)(app)
    assert (await connect(stack, path="/admin")).status == 403
    answer = await connect(stack, path="/")
    assert (answer.status, answer.header(b"x-marks"), answer.all(b"x-out")) == (101, b"a", [b"a"])


async def test_the_lifespan_goes_to_the_app_and_conditions_are_not_asked():
    seen: list[str] = []

    def never(exchange: Exchange) -> bool:
        raise AssertionError

    async def living(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await When(never, a)(living)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_it_is_a_middleware_as_it_is():
    starlette = Starlette()
    starlette.add_middleware(When(admin, Refuse()))
    client = TestClient(starlette)
    assert [client.get(path).status_code for path in ("/admin/x", "/x")] == [403, 404]


# Failing closed


def fails(exchange: Exchange) -> bool:
    raise LookupError("secret")


async def fails_later(exchange: Exchange) -> bool:
    raise LookupError("secret")


class Promise:
    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("condition", [fails, fails_later, lambda exchange: Promise()], ids=["def", "async", "promise"])
@pytest.mark.parametrize("otherwise", [None, b])
async def test_a_condition_that_cannot_say_lets_nobody_in(
    condition: Any, otherwise: Layer | None, caplog: pytest.LogCaptureFixture
):
    async def unreached(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    answer = await call(Stack(a, When(condition, c, otherwise=otherwise))(unreached))
    assert (answer.status, answer.all(b"x-out")) == (500, [b"a"])
    assert b"policy-failed" in answer.body
    assert b"secret" not in answer.body
    assert "LookupError" in caplog.text or "TypeError" in caplog.text


async def test_a_condition_may_refuse():
    def refuses(exchange: Exchange) -> bool:
        raise Refusal(421, "elsewhere")

    assert (await call(When(refuses, a)(app))).status == 421


async def test_what_no_policy_could_read_is_refused_before_a_condition_is_asked():
    answer = await call(When(fails, a)(app), path="/admin/../x")
    assert answer.status == 400


# Environments


@dataclass(frozen=True, kw_only=True)
class Placed(Policy):
    """Tells the places it was bound at."""

    def bind(self, env: Env) -> Any:
        env.clock.places.append(env.place)  # type: ignore[attr-defined]
        return Hooks()


class Hooks:
    """Nothing, but something one can refer to."""


class Places:
    def __init__(self) -> None:
        self.places: list[str] = []

    def now(self) -> float:
        return 0.0

    monotonic = now


def test_branches_are_built_in_the_environment_of_their_stack_and_count_apart():
    clock = Places()
    choice = Choose((yes, Placed()), (no, Stack(Placed())), otherwise=Placed())
    Stack(choice, Placed(), env=Env(clock=clock), place="orders")(app)
    assert len(clock.places) == len(set(clock.places)) == 4
    assert all(place.startswith("orders/") for place in clock.places)


def test_a_reload_keeps_what_branches_counted():
    clock = Places()
    env = Env(clock=clock)
    kept = [Stack(When(admin, Placed(), otherwise=Placed()), env=env, place="orders")(app) for _ in range(3)]
    assert len(kept) == 3
    assert len(clock.places) == 2


# The order check looks into branches


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Remember(), When(yes, Refuse())], "Write When before Remember"),
        ([Remember(), When(yes, a, otherwise=Refuse())], "Write When before Remember"),
        ([Remember(), Choose((no, a), (yes, Stack(a, Refuse())))], "Write Choose before Remember"),
        ([Remember(), When(yes, When(yes, Refuse()))], "Write When before Remember"),
        ([When(yes, Remember()), Refuse()], "Write Refuse before When"),
        ([When(yes, Stack(a, Remember())), When(no, Refuse())], "Write When before When"),
        ([Needs(), When(yes, Identify())], "Write When before Needs"),
        ([When(yes, Needs()), Identify()], "Write Identify before When"),
        ([Choose((yes, a), (no, Stack(a, Needs()))), Identify()], "Write Identify before Choose"),
        ([When(by.principal, a), Identify()], "Write Identify before When"),
        ([When(conditions.not_(by.principal), a), Identify()], "Write Identify before When"),
    ],
)
def test_an_order_that_cannot_work_is_found_while_building(layers: list[Layer], message: str):
    with pytest.raises(ConfigError, match=message):
        Stack(*layers)


@pytest.mark.parametrize(
    "layers",
    [
        [When(yes, Refuse()), Remember()],
        [When(yes, Remember()), When(yes, Remember())],
        [When(yes, Identify()), Needs()],
        [When(yes, Stack(Identify(), Needs()))],
        [Identify(), When(by.principal, Needs())],
        [When(yes, lambda app: app)],
    ],
)
def test_an_order_that_can_work_is_let_be(layers: list[Layer]):
    assert Stack(*layers)(app)


# The law


@pytest.fixture
def quiet() -> Iterator[None]:
    """The probes fail on purpose, and a failing policy is logged."""
    log = logging.getLogger("apim_middleware")
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(logging.NOTSET)


def opaque(app: ASGIApp) -> ASGIApp:
    """A layer that only passes on: what stands on its two sides cannot be fused."""

    async def passing(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return passing


def parted(case: Case, rng: random.Random) -> tuple[list[Probe], list[Probe], list[Probe]]:
    """The probes of a case: before a branch, in it, behind it."""
    low, high = sorted(rng.randrange(len(case.probes) + 1) for _ in range(2))
    return list(case.probes[:low]), list(case.probes[low:high]), list(case.probes[high:])


async def outcome(case: Case, layer: Layer) -> tuple[Any, ...]:
    trace: Trace = []
    for probe in case.probes:
        object.__setattr__(probe, "trace", trace)
    return await observe(layer(app_of(case.behaviour, trace)), case, trace)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("condition", [yes, yes_later])
async def test_a_branch_that_is_taken_behaves_as_its_layer_in_that_place(condition: Any):
    rng = random.Random(f"taken {condition.__name__}")
    for _ in range(400):
        case = Case.draw(rng)
        before, inside, behind = parted(case, rng)
        other = Stack(*[Refuse()] * rng.randrange(2))
        ways: list[Layer] = [
            Stack(*before, When(condition, Stack(*inside), otherwise=other), *behind),
            Stack(*before, Choose((no_later, other), (condition, Stack(*inside)), (yes, other)), *behind),
            Stack(*before, When(conditions.not_(yes), other, otherwise=Stack(*inside)), *behind),
            Stack(Stack(*before), opaque, When(condition, Stack(*inside)), opaque, Stack(*behind)),
        ]
        wanted = await outcome(case, Stack(*case.probes))
        assert [await outcome(case, way) for way in ways] == [wanted] * len(ways), case


@pytest.mark.usefixtures("quiet")
async def test_a_branch_that_is_not_taken_might_as_well_not_be_there():
    rng = random.Random("not taken")
    for _ in range(400):
        case = Case.draw(rng)
        before, inside, behind = parted(case, rng)
        wanted = await outcome(case, Stack(*before, *behind))
        assert await outcome(case, Stack(*before, When(no, Stack(*inside)), *behind)) == wanted, case
        assert await outcome(case, Stack(*before, Choose((no_later, Stack(*inside))), *behind)) == wanted, case


# Configuration


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: When(True, a), r"When\.condition: True is not"),
        (lambda: When(yes), r"When\.layer: is missing"),
        (lambda: When(yes, "a"), r"When\.layer: 'a' is not"),
        (lambda: When(yes, a, b), r"When: fields are given at most 2 without a name \(condition, layer\)"),
        (lambda: When(yes, a, els=b), r"When\.els: no such field"),
        (lambda: Choose(), "nothing to choose"),
        (lambda: Choose(otherwise=a), "nothing to choose"),
        (lambda: Choose(yes, a), r"Choose\.branches"),
        (lambda: Choose((yes, a, b)), r"Choose\.branches"),
        (lambda: Choose((yes, a), otherwize=b), "Did you mean otherwise"),
        (lambda: Choose((yes, a), otherwise=3), r"Choose\.otherwise: 3 is not"),
        (lambda: Choose(branches=((yes, a),)), r"Choose\.branches: is not given by name"),
    ],
)
def test_a_mistake_is_found_while_building(make: Callable[[], Policy], message: str):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("policy", [When(yes, a), When(yes, a, otherwise=b), Choose((yes, a), (no, b), otherwise=c)])
def test_branches_are_values(policy: Policy):
    assert copy.copy(policy) == copy.deepcopy(policy) == policy
    assert len({policy, copy.copy(policy)}) == 1


def test_a_choice_reads_as_it_was_written():
    assert repr(Choose((yes, a), otherwise=b)) == f"Choose((yes, {a!r}), otherwise={b!r})"
    assert repr(Choose((yes, a))) == f"Choose((yes, {a!r}))"


def test_a_fork_is_made_for_what_its_conditions_need():
    """Nothing is awaited where no condition is async: the ring calls the hook and goes on."""
    hooks = [When(condition, a)(app).seats[0].hooks for condition in (yes, yes_later)]
    exchange = Exchange(http_scope())
    assert hooks[0].on_request(exchange) is not None
    assert [type(each).__name__ for each in hooks] == ["_Fork", "_AwaitingFork"]
