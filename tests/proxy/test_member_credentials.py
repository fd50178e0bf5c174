"""Members with credentials of their own: each sees its own, and none that of a caller or of another member."""

import anyio
import pytest

from apim_middleware import BearerCredential, HeaderCredential
from apim_middleware.credentials.credential import Shown
from apim_middleware.credentials.renewing import Unavailable
from apim_middleware.errors import ConfigError
from apim_middleware.proxy.members import Member, Members
from apim_middleware.proxy.retry import Hedge, Retry

from .scripted import problem
from .test_pool import A, B, C, Gateway

pytestmark = pytest.mark.anyio

ONE, TWO = BearerCredential(token="one"), HeaderCredential(name="api-key", value="two")
CALLERS = [(b"authorization", b"Bearer caller"), (b"dpop", b"proof"), (b"api-key", b"caller"), (b"x-other", b"1")]
AT_ONCE = Retry(backoff=0)


class Failing:
    """A credential that is not to be had."""

    def __init__(self, *, denied=False):
        self.denied = denied

    def showing(self, env):
        async def show(exchange):
            raise Unavailable("no reason to tell", denied=self.denied)

        return show


class Dropping:
    """A token that is dropped when its upstream says so."""

    def __init__(self):
        self.dropped = 0

    def showing(self, env):
        async def show(exchange):
            return Shown((b"authorization", b"Bearer mine"), self.drop)

        return show

    def drop(self):
        self.dropped += 1


class Seeing(Gateway):
    """Keeps what each member was shown."""

    def __init__(self, *members, **options):
        super().__init__(*members, **options)
        self.shown, send = [], self.transport.send

        async def noted(request):
            names = {name for name, _ in CALLERS}
            found = {name: value for name, value in request.headers if name in names}
            self.shown.append((request.origin.removeprefix("http://"), found))
            return await send(request)

        self.transport.send = noted


async def test_each_member_is_shown_its_own_and_nothing_of_the_callers():
    gateway = Seeing(Member(A, credential=ONE), Member(B, credential=TWO))
    for _ in range(2):
        await gateway.ask(headers=CALLERS)
    assert gateway.shown == [
        ("a", {b"authorization": b"Bearer one", b"api-key": b"caller", b"x-other": b"1"}),
        ("b", {b"api-key": b"two", b"x-other": b"1"}),
    ]


async def test_a_member_without_one_gets_what_is_there():
    gateway = Seeing(A, Member(B, credential=ONE))
    await gateway.ask(headers=CALLERS)
    assert gateway.shown == [("a", dict(CALLERS))]


@pytest.mark.parametrize("more", [{"retry": AT_ONCE}, {"hedge": Hedge(after=0.01)}])
async def test_the_next_attempt_shows_what_is_for_its_member(more):
    gateway = Seeing(Member(A, credential=ONE), Member(B, credential=TWO), told={"a": 503}, **more)
    await gateway.ask(headers=CALLERS)
    for host, found in gateway.shown:
        assert (b"two" in found.values(), b"Bearer one" in found.values()) == (host == "b", host == "a")


async def test_without_a_credential_another_member_is_asked():
    gateway = Seeing(Member(A, credential=Failing()), Member(B, credential=TWO), retry=AT_ONCE)
    answer = await gateway.ask()
    assert (answer.status, [host for host, _ in gateway.shown]) == (200, ["b"])


async def test_without_any_the_upstream_cannot_be_reached():
    gateway = Seeing(Member(A, credential=Failing()))
    answer = await gateway.ask()
    assert problem(answer) == (502, "upstream-unreachable")
    assert (b"no reason" in answer.body, gateway.shown, gateway.under_way) == (False, [], [0])


async def test_a_caller_for_whom_there_is_none_is_refused():
    gateway = Seeing(Member(A, credential=Failing(denied=True)), Member(B, credential=TWO), retry=AT_ONCE)
    assert problem(await gateway.ask()) == (403, "token-not-exchanged")


@pytest.mark.parametrize(("status", "times"), [(401, 1), (403, 0)])
async def test_a_token_that_is_refused_is_dropped(status, times):
    credential = Dropping()
    await Seeing(Member(A, credential=credential), told={"a": status}).ask()
    assert credential.dropped == times


async def test_a_member_may_get_another():
    members = Members(Member(A, credential=ONE))
    gateway = Seeing(members)
    for credential in (ONE, BearerCredential(token="new"), None):
        members.add(Member(A, credential=credential))
        await gateway.ask(headers=CALLERS[:1])
    assert [found[b"authorization"] for _, found in gateway.shown] == [b"Bearer one", b"Bearer new", b"Bearer caller"]


def test_what_is_no_credential_is_a_mistake():
    with pytest.raises(ConfigError, match=r"Member\.credential"):
        Member(C, credential="secret")


def test_a_secret_is_not_shown_with_its_member():
    assert "one" not in repr(Member("http://x", credential=ONE))


class Slow:
    """A credential that takes its time."""

    def showing(self, env):
        async def show(exchange):
            await anyio.sleep_forever()

        return show


async def test_a_credential_that_takes_long_takes_of_the_time_of_its_attempt():
    gateway = Seeing(Member(A, credential=Slow()), Member(B, credential=TWO), retry=Retry(backoff=0, per_try=0.05))
    answer = await gateway.ask()
    assert (answer.status, [host for host, _ in gateway.shown], gateway.under_way) == (200, ["b"], [0, 0])


class Bare:
    """A credential of somebody's own, who does not look at it."""

    def __init__(self, *line):
        self.line = line

    def showing(self, env):
        async def show(exchange):
            return Shown(self.line)

        return show


@pytest.mark.parametrize(
    "line", [(b"x-key", b"a\r\nevil: 1"), (b"x key", b"a"), (b"content-length", b"5"), (b"Host", b"elsewhere")]
)
async def test_a_credential_that_cannot_stand_in_a_header_is_none(line):
    gateway = Seeing(Member(A, credential=Bare(*line)))
    assert problem(await gateway.ask()) == (502, "upstream-unreachable")
    assert gateway.shown == []


async def test_a_credential_takes_the_place_of_the_callers_however_it_is_written():
    gateway = Seeing(Member(A, credential=Bare(b"Api-Key", b"mine")))
    await gateway.ask(headers=CALLERS)
    assert gateway.shown[0][1][b"api-key"] == b"mine"
