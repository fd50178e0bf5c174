"""Faults: which requests they meet, and what is done to them."""

import json
import random

import anyio
import pytest

from apim_middleware import Cache, IPFilter, conditions
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policies.faults import Faults
from apim_middleware.policy import Stack
from apim_middleware.testing import call, connect, http_scope

pytestmark = pytest.mark.anyio


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def failing(scope, receive, send):
    raise RuntimeError("mine")


async def test_nothing_happens_unless_told():
    guarded = Faults()(app)
    assert [(await call(guarded)).body for _ in range(50)] == [b"ab"] * 50


async def test_a_part_of_the_requests_is_refused():
    guarded = Faults(fail=0.3, status=500, random=random.Random(1).random)(app)
    statuses = [(await call(guarded)).status for _ in range(500)]
    assert 120 < statuses.count(500) < 180
    assert set(statuses) == {200, 500}


async def test_the_refusal_says_that_it_is_on_purpose():
    answer = await call(Faults(fail=1)(app))
    assert answer.status == 503
    assert json.loads(answer.body)["code"] == "fault-injected"


async def test_the_same_numbers_do_the_same_harm():
    runs = [Faults(fail=0.5, random=random.Random(7).random)(app) for _ in range(2)]
    one, other = [[(await call(guarded)).status for _ in range(20)] for guarded in runs]
    assert one == other


async def test_a_part_of_the_requests_is_kept_waiting():
    began = anyio.current_time()
    assert (await call(Faults(slow=1, delay=0.02)(app))).body == b"ab"
    assert anyio.current_time() - began >= 0.02


async def test_a_client_that_leaves_waits_no_longer():
    with anyio.move_on_after(0.01) as left:
        await call(Faults(slow=1, delay=3600)(app))
    assert left.cancelled_caught


async def test_a_request_whose_client_leaves_goes_no_further():
    """It was kept for up to an hour, and with it the permit it had."""
    limited = Stack(LimitConcurrency(at_once=1), Faults(slow=1, delay=3600))(failing)
    with anyio.fail_after(10):
        answers = [await call(limited, body=b"whole", leave_after=0) for _ in range(2)]
    assert [answer.messages for answer in answers] == [[], []]


async def test_a_handshake_whose_client_leaves_goes_no_further():
    with anyio.fail_after(10):
        answer = await connect(Faults(slow=1, delay=3600)(failing))
    assert answer.messages == []


async def test_what_came_meanwhile_is_not_lost():
    async def echo(scope, receive, send):
        heard = [await receive(), await receive()]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"".join(each["body"] for each in heard)})

    assert (await call(Faults(slow=1, delay=0.01)(echo), body=[b"one ", b"two"])).body == b"one two"


async def test_a_client_that_waits_to_be_asked_for_its_body_is_not_asked_meanwhile():
    """RFC 9110 §10.1.1."""
    asked = []

    async def receive():
        asked.append(True)
        await anyio.sleep_forever()

    async def send(message):
        pass

    scope = http_scope("PUT", headers=[(b"expect", b"100-continue")])
    await Faults(slow=1, delay=0.01)(app)(scope, receive, send)
    assert asked == []


async def test_one_that_waited_may_be_refused_as_well():
    assert (await call(Faults(slow=1, delay=0.01, fail=1)(app))).status == 503


async def test_an_error_of_an_app_that_had_to_wait_comes_out_as_it_is():
    with pytest.raises(RuntimeError, match="mine"):
        await call(Faults(slow=1, delay=0.01)(failing))


async def test_only_some_requests_may_meet_them():
    guarded = Faults(fail=1, when=conditions.path("/pay/*"))(app)
    assert [(await call(guarded, path=path)).status for path in ("/pay/1", "/look")] == [503, 200]


def test_what_the_condition_relies_on_must_be_there_before():
    def gold(exchange):
        return exchange.principal is not None

    gold.needs = frozenset({"principal"})
    assert Faults(when=gold).needs == {"principal"}


async def test_a_handshake_meets_them_too():
    assert (await connect(Faults(fail=1)(app))).status == 503
    assert (await connect(Faults()(app))).status == 101


async def test_an_error_of_the_app_comes_out_as_it_is():
    with pytest.raises(RuntimeError, match="mine"):
        await call(Faults(fail=0.0)(failing))


class Events:
    def __init__(self):
        self.all = []

    def count(self, event, attributes):
        self.all.append((event, dict(attributes)))


async def test_each_is_counted():
    env, events = Env(), Events()
    env.listen(events)
    await call(Stack(Faults(fail=1), env=env)(app))
    assert events.all == [("apim.faults", {"apim.faults.kind": "fail"})]


async def later(exchange):
    return True


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"slow": 1.1}, "slow"),
        ({"fail": -0.1}, "fail"),
        ({"delay": 0}, "delay"),
        ({"status": 200}, "status"),
        ({"when": later}, "when"),
    ],
)
def test_a_mistake_names_its_field(fields, field):
    with pytest.raises(ConfigError, match=rf"Faults\.{field}"):
        Faults(**fields)


def test_an_order_that_cannot_work_is_found_through_it():
    with pytest.raises(ConfigError, match="stands behind"):
        Cache(ttl=60)(Faults(slow=0.5)(IPFilter(deny=("192.0.2.1",))(app)))
