"""Members that are looked up: every address of a host, and the SRV records of a service, as they come and go."""

import asyncio
import socket
import ssl
import sys
import threading

import anyio
import anyio.lowlevel
import dns.message
import dns.resolver
import dns.rrset
import pytest
from tests.certificates import write_certificate

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.proxy import Proxy, _lookup, _roster
from apim_middleware.proxy._node import Place
from apim_middleware.proxy.health import HealthCheck
from apim_middleware.proxy.members import Member, Members, Service
from apim_middleware.proxy.pool import Pool
from apim_middleware.testing import FakeClock

from .scripted import Scripted, ask, problem

pytestmark = pytest.mark.anyio


class Names:
    """A name server that answers what it is told to."""

    def __init__(self):
        self.records, self.asked = {}, 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self):
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            question = dns.message.from_wire(data)
            answer = dns.message.make_response(question)
            name = question.question[0].name.to_text()
            if name in self.records:
                ttl, *lines = self.records[name]
                answer.answer.append(dns.rrset.from_text(name, ttl, "IN", "SRV", *lines))
            else:
                answer.set_rcode(3)
            self.asked += 1
            self._socket.sendto(answer.to_wire(), client)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture
def names():
    made = Names()
    yield made
    made.close()


class Gateway:
    def __init__(self, *members, **options):
        self.clock, self.transport = FakeClock(), Scripted()
        self.app = Proxy(Pool(*members, **options), transport=self.transport, env=Env(clock=self.clock))
        self.pool = self.app._plan.pool
        self.pool.begin = lambda: None  # tests look up themselves

    async def asked(self, times):
        before = len(self.transport.asked)
        for _ in range(times):
            await ask(self.app)
        return self.transport.asked[before:]


# SRV records


def service(names, **fields):
    return Service("_http._tcp.api.test", nameserver=names.address, **fields)


async def test_members_are_those_of_the_records(names):
    names.records["_http._tcp.api.test."] = (60, "1 3 8001 a.test.", "1 1 8002 b.test.", "2 1 8003 c.test.")
    gateway = Gateway(service(names))
    assert sorted(await gateway.asked(4)) == ["a.test:8001"] * 3 + ["b.test:8002"]
    assert [each.url for each in gateway.app.standing()] == [
        "http://a.test:8001",
        "http://b.test:8002",
        "http://c.test:8003",
    ]


async def test_records_are_looked_up_again_when_their_time_is_over(names):
    names.records["_http._tcp.api.test."] = (20, "1 1 8001 a.test.")
    gateway = Gateway(service(names, every=30))
    assert await gateway.asked(1) == ["a.test:8001"]
    names.records["_http._tcp.api.test."] = (100, "1 1 8002 b.test.")
    gateway.clock.advance(19)
    assert await gateway.pool.look_up() == pytest.approx(1)
    assert await gateway.asked(1) == ["a.test:8001"]
    gateway.clock.advance(1)
    assert await gateway.pool.look_up() == pytest.approx(30)
    assert await gateway.asked(1) == ["b.test:8002"]


async def test_members_known_before_stay_when_nobody_answers(names):
    names.records["_http._tcp.api.test."] = (20, "1 1 8001 a.test.")
    gateway = Gateway(service(names))
    await gateway.asked(1)
    del names.records["_http._tcp.api.test."]
    gateway.clock.advance(60)
    await gateway.pool.look_up()
    assert await gateway.asked(1) == ["a.test:8001"]


async def test_a_service_nobody_knows_is_nobody_and_is_not_asked_for_all_the_time(names):
    gateway = Gateway(service(names))
    for _ in range(5):
        assert problem(await ask(gateway.app)) == (503, "no-upstream-available")
    assert names.asked == 1
    names.records["_http._tcp.api.test."] = (20, "1 1 8001 a.test.")
    gateway.clock.advance(5)
    assert await gateway.asked(1) == ["a.test:8001"]


async def test_requests_that_come_at_once_wait_for_one_lookup(names):
    names.records["_http._tcp.api.test."] = (20, "1 1 8001 a.test.")
    gateway = Gateway(service(names))
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(gateway.asked, 1)
    assert names.asked == 1
    assert gateway.transport.asked == ["a.test:8001"] * 5


async def test_a_service_that_is_said_not_to_be_there_is_not_there(names):
    names.records["_http._tcp.api.test."] = (20, "0 0 0 .")
    assert problem(await ask(Gateway(service(names)).app)) == (503, "no-upstream-available")


async def test_a_record_that_cannot_be_asked_is_passed_over(names):
    lines = ("1 1 0 a.test.", r"1 1 80 b\064b.test.", "1 1 80 c.test.")
    names.records["_http._tcp.api.test."] = (20, *lines)
    assert await Gateway(service(names)).asked(2) == ["c.test", "c.test"]


async def test_a_record_without_weight_is_seldom_chosen(names):
    names.records["_http._tcp.api.test."] = (20, "1 0 8001 a.test.", "1 10 8002 b.test.")
    assert (await Gateway(service(names)).asked(50)).count("a.test:8001") <= 1


async def test_a_service_stands_beside_other_members(names):
    names.records["_http._tcp.api.test."] = (20, "0 1 8001 a.test.")
    gateway = Gateway("http://b.test", service(names, scheme="http", path="/v1"))
    await gateway.pool.look_up()
    assert sorted(await gateway.asked(2)) == ["a.test:8001", "b.test"]


class Silence:
    """A name server that takes its time, and then has said nothing."""

    def __init__(self, monkeypatch):
        self.asked = 0
        self.clock = None
        monkeypatch.setattr(_roster, "targets", self.targets)
        monkeypatch.setattr(_roster, "addresses", self.targets)

    async def targets(self, *_):
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        self.clock.advance(5)
        raise _lookup.LookupFailed("nothing came")


@pytest.fixture
def silence(monkeypatch):
    return Silence(monkeypatch)


async def test_a_request_waits_for_one_lookup_however_long_that_takes(silence):
    """A lookup that lasted as long as what it found was due again at once, and no request ever came to an end."""
    gateway = Gateway(Service("_http._tcp.api.test"))
    silence.clock = gateway.clock
    assert problem(await ask(gateway.app)) == (503, "no-upstream-available")
    assert silence.asked == 1
    assert problem(await ask(gateway.app)) == (503, "no-upstream-available")
    assert silence.asked == 1


async def test_the_wait_for_the_next_lookup_begins_when_the_last_one_is_done(silence):
    gateway = Gateway(Member("http://api.test", lookup=30))
    silence.clock = gateway.clock
    assert await gateway.pool.look_up() == 5
    await gateway.pool.look_up()
    assert silence.asked == 1


async def test_a_request_waits_for_no_lookup_while_somebody_else_can_be_asked(monkeypatch):
    async def never(*_):
        await anyio.sleep_forever()

    monkeypatch.setattr(_roster, "targets", never)
    gateway = Gateway("http://b.test", Service("_http._tcp.api.test"))
    assert await gateway.asked(2) == ["b.test", "b.test"]


class Told:
    """A name server that says nothing of some names, and nothing of others before it is told to."""

    def __init__(self, monkeypatch):
        self.go_on, self.asked = anyio.Event(), []
        monkeypatch.setattr(_roster, "targets", self.targets)

    async def targets(self, name, server):
        self.asked.append(name)
        if name == "_well":
            return [_lookup.Target("a.test", 80, 1, 0)], 30.0
        if name == "_odd":
            raise RuntimeError("there is no resolv.conf")
        await self.go_on.wait()
        raise _lookup.LookupFailed("nothing came")


@pytest.fixture
def told(monkeypatch):
    return Told(monkeypatch)


async def test_a_request_waits_for_a_lookup_only_until_somebody_is_found(told):
    gateway = Gateway(Service("_well"), Service("_silent"))
    assert await gateway.asked(2) == ["a.test", "a.test"]
    await gateway.pool.aclose()


async def test_a_request_waits_for_no_second_lookup(told):
    members = Members(Service("_silent"))
    gateway = Gateway(members)
    answers = []

    async def request():
        answers.append(problem(await ask(gateway.app)))

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(request)
        while not told.asked:
            await anyio.lowlevel.checkpoint()
        members.add(Service("_silent2"))
        told.go_on.set()
        told.go_on = anyio.Event()
    assert answers == [(503, "no-upstream-available")] * 2
    await gateway.pool.aclose()


async def test_a_request_that_waits_for_a_lookup_is_let_go_when_the_server_ends(told):
    gateway = Gateway(Service("_silent"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, gateway.app)
        while not told.asked:
            await anyio.lowlevel.checkpoint()
        await gateway.pool.aclose()


async def test_a_lookup_that_fails_in_its_own_way_spoils_no_other(told, caplog):
    """A system without a resolv.conf made an error of every request, though others could be asked."""
    gateway = Gateway(Service("_odd"), Service("_well"))
    assert await gateway.pool.look_up() == 5
    assert await gateway.asked(1) == ["a.test"]
    assert "srv:_odd" in caplog.text


async def test_a_system_that_names_no_server_finds_nothing(monkeypatch):
    def unconfigured(*_, **__):
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr("dns.asyncresolver.Resolver", unconfigured)
    with pytest.raises(_lookup.LookupFailed):
        await _lookup.targets("_http._tcp.api.test", None)


async def test_one_lookup_does_not_wait_for_another(monkeypatch):
    second = anyio.Event()

    async def look(host, port):
        if host == "a.test":
            await second.wait()
        second.set()
        return ["10.0.0.1" if host == "a.test" else "10.0.0.2"]

    monkeypatch.setattr(_roster, "addresses", look)
    gateway = Gateway(Member("http://a.test", lookup=30), Member("http://b.test", lookup=30))
    with anyio.fail_after(10):
        await gateway.pool.look_up()
    assert sorted(await gateway.asked(2)) == ["10.0.0.1", "10.0.0.2"]


# Addresses


@pytest.fixture
def addresses(monkeypatch):
    """What a host's name leads to, as the system would say."""
    known = {}

    async def look(host, port):
        if host not in known:
            raise _lookup.LookupFailed("nobody")
        return sorted(known[host])

    monkeypatch.setattr(_roster, "addresses", look)
    return known


async def test_every_address_of_a_host_has_its_turn(addresses):
    addresses["api.test"] = ["10.0.0.1", "10.0.0.2", "fd00::1"]
    gateway = Gateway(Member("http://api.test:8000", lookup=30))
    assert await gateway.asked(1) == ["api.test:8000"]
    await gateway.pool.look_up()
    assert sorted(await gateway.asked(3)) == ["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000"]


async def test_addresses_come_and_go_and_those_that_stay_keep_what_is_known(addresses):
    addresses["api.test"] = ["10.0.0.1", "10.0.0.2"]
    gateway = Gateway(Member("http://api.test", lookup=30), health=HealthCheck(down=1))
    await gateway.pool.look_up()
    gateway.pool.nodes()[1].pulse.turns(well=False)
    addresses["api.test"] = ["10.0.0.2", "10.0.0.3"]
    gateway.clock.advance(30)
    await gateway.pool.look_up()
    standing = [(each.url, each.state) for each in gateway.app.standing()]
    assert standing == [("http://10.0.0.2:80", "unhealthy"), ("http://10.0.0.3:80", "ready")]


async def test_an_address_is_asked_for_the_host(addresses):
    addresses["api.test"] = ["10.0.0.1"]
    gateway = Gateway(Member("http://api.test:8000/base", lookup=30))
    seen = []

    async def keep(request):
        seen.append((request.origin, request.target, dict(request.headers)[b"host"]))
        return 200

    gateway.transport.told = {"10.0.0.1:8000": [keep]}
    await gateway.pool.look_up()
    await ask(gateway.app, path="/x")
    assert seen == [("http://10.0.0.1:8000", b"/base/x", b"api.test:8000")]


async def test_a_member_that_is_given_other_values_has_them_from_the_next_request_on(addresses):
    """They held from the next lookup on, which may be a day away."""
    addresses["api.test"] = ["10.0.0.1"]
    members = Members(Member("http://api.test", lookup=30))
    gateway = Gateway(members)
    await gateway.pool.look_up()
    members.add(Member("http://api.test", lookup=30, weight=5, priority=3))
    (node,) = gateway.pool.nodes()
    assert (node.place.url, node.weight, node.priority) == ("http://10.0.0.1:80", 5, 3)


async def test_an_address_with_a_zone_is_passed_over(monkeypatch):
    """No URL could hold it, and every request was answered 500 for that."""

    def look(*_, **__):
        return [(0, 0, 0, "", (text, 80, 0, zone)) for text, zone in (("fe80::1", 2), ("fe80::2", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    assert await _lookup.addresses("api.test", 80) == ["fe80::2"]


async def test_a_host_nobody_knows_is_still_tried_by_its_name(addresses):
    gateway = Gateway(Member("http://api.test", lookup=30))
    await gateway.pool.look_up()
    assert await gateway.asked(1) == ["api.test"]


async def test_members_that_are_looked_up_can_be_removed(addresses):
    addresses["api.test"] = ["10.0.0.1"]
    members = Members(Member("http://api.test", lookup=30), "http://b.test")
    gateway = Gateway(members)
    await gateway.pool.look_up()
    members.remove("http://api.test")
    await gateway.pool.look_up()
    assert await gateway.asked(2) == ["b.test", "b.test"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_address_of_an_https_host_is_asked_for_the_certificate_of_the_host(tmp_path):
    certificate, key = write_certificate(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=certificate)

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        heard.append(head.split(b"\r\n")[1])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()
        writer.close()

    heard = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        app = Proxy(Pool(Member(f"https://localhost:{port}", lookup=30)), verify=trusting)
        await app._plan.pool.look_up()
        assert f"https://127.0.0.1:{port}" in [each.url for each in app.standing()]
        assert {(await ask(app)).status for _ in app.standing()} <= {200, 502}  # localhost may have ::1 too
        assert heard == [b"host: localhost:%d" % port]
        await app._plan.pool.aclose()
        await app._transports.aclose()


@pytest.mark.parametrize("host", ["[::1]:8443", "[::1]"])
def test_an_address_in_the_place_of_a_host_is_the_name_of_its_certificate(host):
    """What stands before the first colon of it is no name."""
    app = Proxy(Pool(Member(f"https://{host}", lookup=30)))
    transport = app._transports.of(Place("a", "https://[::1]:8443", host, 1, 0, f"https://{host}"))
    assert transport._pools._dialling.server_name == "::1"


async def test_the_system_is_asked_for_addresses():
    assert "127.0.0.1" in await _lookup.addresses("localhost", 80)
    with pytest.raises(_lookup.LookupFailed):
        await _lookup.addresses("nobody.invalid", 80)


async def test_lookups_go_on_in_the_background(addresses):
    addresses["api.test"] = ["10.0.0.1"]
    app = Proxy(Pool(Member("http://api.test", lookup=30)), transport=Scripted())
    with anyio.fail_after(10):
        while app.standing()[0].url != "http://10.0.0.1:80":
            await ask(app)
            await anyio.lowlevel.checkpoint()
    await app._plan.pool.aclose()


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Service("a b"), "Service.record"),
        (lambda: Service("_a", scheme="ftp"), "Service.scheme"),
        (lambda: Service("_a", every=0.1), "Service.every"),
        (lambda: Service("_a", path="/?x"), "Service.path"),
        (lambda: Service("_a", nameserver="dns.test"), "Service.nameserver"),
        (lambda: Service("_a", nameserver="127.0.0.1:0"), "Service.nameserver"),
    ],
)
def test_a_mistake_names_its_field(make, where):
    with pytest.raises(ConfigError, match=where):
        make()


def test_without_the_library_a_service_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    with pytest.raises(ConfigError, match=r"Service\.record: needs the package dnspython"):
        Service("_http._tcp.api.test")


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:8600", ("127.0.0.1", 8600)),
        ("::1", ("::1", 53)),
        ("[::1]:8600", ("::1", 8600)),
    ],
)
def test_a_name_server_is_written_as_people_write_it(text, server):
    assert Service("_a", nameserver=text).server == server
