"""What the log says of an upstream that fails: at once when it begins, rarely while it goes on, never of clients."""

import logging

import pytest
from tests.proxy.scripted import Said, Scripted

from apim_middleware.env import Env
from apim_middleware.errors import ConnectFailed, Refusal, UpstreamBroken, UpstreamTimeout
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Retry
from apim_middleware.testing import FakeClock, call

pytestmark = pytest.mark.anyio


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said since the last time."""
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return said


def proxy(clock, transport, upstream="http://a", **options):
    return Proxy(upstream, transport=transport, env=Env(clock=clock), **options)


async def test_a_burst_is_told_at_once_and_then_once_a_minute(caplog):
    clock = FakeClock()
    gateway = proxy(clock, Scripted(a=ConnectFailed("refused")))
    for _ in range(100):
        assert (await call(gateway)).status == 502
    assert messages(caplog) == ["upstream-unreachable: http://a: refused"]
    clock.advance(60)
    await call(gateway)
    assert messages(caplog) == ["upstream-unreachable: http://a: refused (99 more before)"]


async def test_another_kind_of_failure_is_told_at_once(caplog):
    gateway = proxy(FakeClock(), Scripted(a=[ConnectFailed("refused"), UpstreamTimeout("too long")]))
    for _ in range(5):
        await call(gateway)
    assert messages(caplog) == ["upstream-unreachable: http://a: refused", "upstream-timeout: http://a: too long"]


async def test_it_is_told_once_that_all_is_well(caplog):
    gateway = proxy(FakeClock(), Scripted(a=[*[ConnectFailed("refused")] * 3, 200]))
    for _ in range(9):
        await call(gateway)
    assert messages(caplog) == ["upstream-unreachable: http://a: refused", "http://a answers again (2 more had failed)"]


async def test_an_upstream_that_fails_every_other_time_says_little_and_no_failure_is_lost(caplog):
    clock = FakeClock()
    gateway = proxy(clock, Scripted(a=[ConnectFailed("refused"), 200] * 50 + [200]))
    for _ in range(100):
        await call(gateway)
    assert len(messages(caplog)) == 3
    clock.advance(60)
    await call(gateway)
    assert messages(caplog) == ["http://a answers again (48 more had failed)"]


async def test_an_outage_soon_after_another_is_told_at_once(caplog):
    """The last that was said was that all is well."""
    clock = FakeClock()
    gateway = proxy(clock, Scripted(a=[ConnectFailed("one"), 200, ConnectFailed("two")]))
    for _ in range(3):
        await call(gateway)
        clock.advance(1)
    assert messages(caplog)[1:] == ["http://a answers again", "upstream-unreachable: http://a: two"]


async def test_a_body_that_breaks_off_is_told_and_noted_for_the_access_log(caplog):
    lines = []
    broken = Said(200, [(b"content-length", b"10")], b"half", UpstreamBroken("hung up"))
    app = Stack(AccessLog(write=lines.append))(proxy(FakeClock(), Scripted(a=broken)))
    with pytest.raises(UpstreamBroken) as caught:
        await call(app)
    assert caught.value.told
    assert messages(caplog) == ["upstream-broken: http://a: hung up"]
    assert '"apim.upstream.error":"upstream-broken"' in lines[0].replace(": ", ":")
    assert '"outcome":"failed"' in lines[0].replace(": ", ":")


async def test_each_member_is_told_of_also_when_another_has_answered(caplog):
    transport = Scripted(a=ConnectFailed("refused"), b=200)
    gateway = proxy(FakeClock(), transport, Pool("http://a", "http://b"), retry=Retry(attempts=2))
    for _ in range(6):
        assert (await call(gateway)).status == 200
    assert messages(caplog) == ["upstream-unreachable: http://a: refused"]


async def test_the_last_member_is_told_of_once(caplog):
    transport = Scripted(a=ConnectFailed("refused"), b=ConnectFailed("refused"))
    gateway = proxy(FakeClock(), transport, Pool("http://a", "http://b"), retry=Retry(attempts=2))
    for _ in range(6):
        assert (await call(gateway)).status == 502
    assert sorted(messages(caplog)) == [f"upstream-unreachable: http://{each}: refused" for each in "ab"]


async def test_clients_cannot_fill_the_log(caplog):
    async def refusing(request):
        raise Refusal(400, "bad-framing", "The request body is not as long as announced.")

    gateway = proxy(FakeClock(), Scripted(a=refusing))
    assert (await call(gateway)).status == 400
    assert messages(caplog) == []
