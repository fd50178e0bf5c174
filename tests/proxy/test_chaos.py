"""Real upstream processes that are killed, stopped in their tracks, started again, slow, or break off.

With many requests under way, 10,000 in all, nobody gets a wrong response, nothing that may not be repeated is done
twice, nothing is left behind, and who is there again takes part again as soon as the breaker lets it.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest
from tests.servers import LOOPBACK, PATIENCE, free_port

from apim_middleware.env import Env
from apim_middleware.errors import TransportError
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.health import HealthCheck
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Hedge, Retry
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.testing import Answer, http_scope
from apim_middleware.transports.http1 import Http1Transport

PROGRAM = Path(__file__).with_name("chaos_upstream.py")

BREAKER = CircuitBreaker(failures=3, per=10, open_for=0.3)
HEALTH = HealthCheck(path="/ok?0", every=0.1, timeout=0.2, up=1, down=2)
BACK = BREAKER.open_for + 1.1 * HEALTH.every + HEALTH.timeout
"""Seconds after which a member that is there again takes part at the latest: the breaker's, after a check in vain."""

ANSWERS = (200, 502, 503, 504)
"""What clients may be told: the upstream's answer, or that there is none to be had."""

SLACK = 10.0
"""Seconds that a machine with other things to do may take besides."""


class Process:
    """One upstream, which can be harmed."""

    def __init__(self, folder):
        self.port = free_port()
        self.journal = folder / f"journal-{self.port}"
        self.journal.touch()
        self._process = None

    @property
    def url(self):
        return f"http://{LOOPBACK}:{self.port}"

    def begin(self):
        """Start the process, without waiting until it listens."""
        self._process = subprocess.Popen([sys.executable, "-S", str(PROGRAM), str(self.port), str(self.journal)])

    async def listening(self):
        give_up = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(LOOPBACK, self.port)
                writer.close()
                return
            assert time.monotonic() < give_up
            await asyncio.sleep(0.01)

    def signal(self, number):
        os.kill(self._process.pid, number)

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def executed(self):
        """The lines of its journal."""
        return self.journal.read_text().splitlines()


@pytest.fixture
def processes(tmp_path):
    """Three upstreams, not started."""
    made = [Process(tmp_path) for _ in range(3)]
    yield made
    for each in made:
        each.stop()


class Gateway:
    """A proxy to the processes, all that was asked of it, and what came of that."""

    def __init__(self, processes, **options):
        self.processes = processes
        self.transport = Http1Transport()
        breaker = options.pop("breaker", BREAKER)
        pool = Pool(*(each.url for each in processes), breaker=breaker, health=HEALTH)
        self.changes = Counter()
        env = Env()
        env.listen(self)
        retry = Retry(backoff=0.01, per_try=options.pop("per_try", 0.5), budget=1.0)
        self.proxy = Proxy(pool, transport=self.transport, retry=retry, env=env, **options)
        self.permits = MemoryPermits()
        limit = LimitConcurrency(at_once=10_000, name="all")
        self.app = Stack(limit, env=Env(place="here", permits=self.permits))(self.proxy)
        self.sent = Counter()
        self.outcomes = Counter()
        self._numbers = iter(range(1, 1_000_000))
        self._never = asyncio.Event()

    async def __aenter__(self):
        self._own = asyncio.all_tasks()
        for each in self.processes:
            each.begin()
        for each in self.processes:
            await each.listening()
        return self

    async def __aexit__(self, kind, error, traceback):
        """Close it, and see that no connection and no task is left."""
        pool = self.transport._pools.here()  # once it is closed, the transport counts those of another
        await self.proxy._plan.pool.aclose()
        await self.transport.aclose()
        if error is None:
            assert pool.connections == 0
            for _ in range(20):  # what can end has ended then
                await asyncio.sleep(0)
            assert asyncio.all_tasks() <= self._own

    def count(self, event, attributes):
        """What the proxy tells of its members."""
        self.changes[event, attributes.get("apim.upstream.state")] += 1

    async def ask(self, method, path, body=b""):
        """One exchange; whatever comes back whole with 200 is what this request has asked for."""
        number = b"%d" % next(self._numbers)
        self.sent[f"{method} {path} {number.decode()}"] += 1
        answer = Answer()
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return inbox.pop() if inbox else await self._never.wait()

        async def send(message):
            answer.messages.append(message)

        headers = [(b"content-length", b"%d" % len(body))] if body else []
        try:
            await self.app(http_scope(method, path, query=number, headers=headers), receive, send)
        except TransportError:
            assert not answer.complete
            self.outcomes["broken off"] += 1
            return answer
        assert answer.complete
        if answer.status == 200:
            assert answer.body == b"%b %b %b" % (method.encode(), number, body)
        assert answer.status in ANSWERS
        self.outcomes[answer.status] += 1
        return answer

    async def asked(self, more):
        """Wait until so many requests more have been sent, but for those that were refused as nobody was there."""
        enough = self._worth() + more
        await until(lambda: self._worth() >= enough)

    def _worth(self):
        return self.sent.total() - self.outcomes[503]

    async def busy(self, until, paths, *, workers=64):
        """Many requests at once, one after the other for each worker, until something has happened."""
        rng = random.Random(1)

        async def work():
            while not until.is_set():
                method = rng.choice(("GET", "GET", "PUT", "POST"))
                body = b"" if method == "GET" else rng.randbytes(20).hex().encode()
                if (await self.ask(method, rng.choice(paths), body)).status == 503:
                    await asyncio.sleep(0.005)  # a refusal costs so little that nobody else would have a turn

        await asyncio.gather(*(work() for _ in range(workers)))

    def check(self):
        """Nothing was done twice that may not be, and nothing is left behind."""
        executed = Counter(line for each in self.processes for line in each.executed)
        twice = [line for line, times in executed.items() if line.startswith("POST") and times > 1]
        assert twice == []
        assert {line for line in executed if len(line.split()) == 3 and not line.endswith(" 0")} <= set(self.sent)
        assert [each.under_way for each in self.proxy.standing()] == [0] * len(self.processes)
        assert not any(self.permits._inside.values())

    async def recovered(self):
        """See that every member takes part again within the breaker's interval, as all are there."""
        give_up = time.monotonic() + BACK + SLACK
        while {each.state for each in self.proxy.standing()} != {"ready"}:
            assert time.monotonic() < give_up
            await self.ask("GET", "/ok")
            await asyncio.sleep(0.005)


async def until(condition):
    """Wait until something is so."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


PATHS = ["/ok", "/ok", "/ok", "/slow"]


def test_upstreams_killed_stopped_and_started_again_under_load(processes):
    """6,500 requests: one is killed and another stopped, until both are there again; and that once more."""

    async def test():
        async with Gateway(processes) as gateway:
            over = asyncio.Event()
            load = asyncio.create_task(gateway.busy(over, PATHS))
            one, two, _ = processes
            for _ in range(2):
                await gateway.asked(750)
                one.stop()
                await gateway.asked(1000)
                two.signal(signal.SIGSTOP)
                await gateway.asked(1500)
                one.begin()
                await one.listening()
                two.signal(signal.SIGCONT)
                await gateway.recovered()
            over.set()
            await load
            gateway.check()
            assert gateway.sent.total() >= 6500
            whole = gateway.outcomes[200]
            assert whole > 5000, gateway.outcomes
            assert gateway.changes["apim.upstream.breaker", "open"] >= 2
            assert gateway.transport.connections < 300

    asyncio.run(test())


def test_upstreams_that_reset_break_off_and_close_under_load(processes):
    """3,500 requests, half of which meet an upstream that does not do what it should, and stays in all the same."""

    async def test():
        stays = CircuitBreaker(failures=50, percent=100, per=10, open_for=0.3)
        async with Gateway(processes, breaker=stays) as gateway:
            over = asyncio.Event()
            load = asyncio.create_task(gateway.busy(over, [*PATHS, "/reset", "/half", "/close", "/sorry"]))
            await gateway.asked(3500)
            over.set()
            await load
            gateway.check()
            broken = gateway.outcomes["broken off"], gateway.outcomes[502], gateway.outcomes[503]
            assert min(broken) > 100, gateway.outcomes
            assert gateway.outcomes[200] > 1500, gateway.outcomes
            await gateway.recovered()
            assert (await gateway.ask("GET", "/ok")).status == 200

    asyncio.run(test())


def test_while_all_are_gone_clients_are_told_so_and_served_again_afterwards(processes):
    async def test():
        async with Gateway(processes) as gateway:
            for each in processes:
                each.stop()
            answers = [await gateway.ask("GET", "/ok") for _ in range(20)]
            assert {each.status for each in answers} <= {502, 503}
            assert answers[-1].status == 503
            assert int(answers[-1].header(b"retry-after")) == 1
            for each in processes:
                each.begin()
            for each in processes:
                await each.listening()
            await gateway.recovered()
            assert (await gateway.ask("POST", "/ok", b"x")).status == 200
            gateway.check()

    asyncio.run(test())


def test_a_hedge_does_not_wait_for_an_upstream_that_is_stopped(processes):
    async def test():
        async with Gateway(processes, hedge=Hedge(after=0.02, budget=1.0), per_try=60) as gateway:
            processes[0].signal(signal.SIGSTOP)
            with anyio.fail_after(PATIENCE):  # much less than one try may take
                answers = [await gateway.ask("GET", "/ok") for _ in range(6)]
            assert {each.status for each in answers} == {200}
            processes[0].signal(signal.SIGCONT)
            await gateway.recovered()
            gateway.check()

    asyncio.run(test())


@pytest.mark.parametrize(("path", "half"), [("/ok", b"half"), ("/left", b""), ("/endless", b"")])
def test_a_client_that_leaves_is_missed_by_the_upstream_and_leaves_nothing_behind(processes, path, half):
    """In the middle of its request, before the response, and in the middle of that."""

    async def test():
        async with Gateway(processes, per_try=60) as gateway:  # which is longer than anybody waits here
            leaving, came = asyncio.Event(), 20
            length = [(b"content-length", b"%d" % (2 * len(half)))] if half else []

            async def visit(number):
                gateway.sent[f"POST {path} {number}"] += 1
                first = [{"type": "http.request", "body": half, "more_body": bool(half)}]

                async def receive():
                    if not first:
                        await leaving.wait()
                    return first.pop() if first else {"type": "http.disconnect"}

                async def send(message):
                    pass

                await gateway.app(http_scope("POST", path, query=b"%d" % number, headers=length), receive, send)

            visits = [asyncio.create_task(visit(1000 + each)) for each in range(came)]
            await until(lambda: gateway.transport.connections >= came)
            await until(lambda: half or sum(len(each.executed) for each in processes) >= came)
            leaving.set()
            await asyncio.gather(*visits)
            await until(lambda: sum(each.executed.count("left") for each in processes) >= came)
            gateway.check()

    asyncio.run(test())
