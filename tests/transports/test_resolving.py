"""Names that are looked up, and a name server that says nothing: it keeps nobody else's name from being found."""

import asyncio
import socket
import threading

import anyio
import anyio.lowlevel
import pytest

from apim_middleware.transports._resolving import Resolver

pytestmark = pytest.mark.anyio

FOUND = [(socket.AF_INET, ("10.0.0.1", 80))]


class System:
    """What the system says of names; of those that begin with "silent" nothing before it is told to."""

    def __init__(self):
        self.asked, self.go_on = [], threading.Event()

    def __call__(self, host, port, **_):
        self.asked.append(host)
        if host.startswith("silent"):
            self.go_on.wait(10)
        if host == "nobody":
            raise socket.gaierror("not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]


@pytest.fixture
def system(monkeypatch):
    made = System()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.go_on.set()


async def given_up(resolver, host):
    with anyio.move_on_after(0):
        await resolver.find(host, 80)


async def asked(system, count):
    with anyio.fail_after(10):
        while len(system.asked) < count:
            await anyio.lowlevel.checkpoint()


async def test_a_name_leads_to_its_addresses(system):
    assert await Resolver().find("api.test", 80) == FOUND


async def test_a_name_nobody_knows_is_an_error_for_all_who_asked(system):
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="not known"):
            await resolver.find("nobody", 80)


async def test_silent_names_keep_no_other_from_being_found(system):
    """They held the threads that everybody shares, also when nobody waited for them any more."""
    resolver = Resolver()
    for number in range(50):
        await given_up(resolver, f"silent{number}")
    await asked(system, 50)
    with anyio.fail_after(10):
        assert await resolver.find("api.test", 80) == FOUND


async def test_a_silent_name_is_not_asked_for_again_before_it_was_answered(system):
    resolver = Resolver()
    for _ in range(3):
        await given_up(resolver, "silent")
    await asked(system, 1)
    assert system.asked == ["silent"]
    system.go_on.set()
    with anyio.fail_after(10):
        assert await resolver.find("silent", 80) == FOUND


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_silent_names_leave_the_threads_of_the_event_loop_alone(system, anyio_backend):
    resolver = Resolver()
    for number in range(50):
        await given_up(resolver, f"silent{number}")
    await asked(system, 50)
    with anyio.fail_after(10):
        await asyncio.get_running_loop().run_in_executor(None, threading.current_thread)
