"""The proxy over real sockets: what the upstream gets, what comes back, and what a hostile upstream achieves."""

import asyncio
import copy
import json
import ssl
import time
from email.utils import parsedate_to_datetime
from functools import partial

import anyio
import pytest
from tests.servers import saying, stub

from apim_middleware.errors import ConfigError, ConnectFailed, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.testing import Answer, http_scope
from apim_middleware.transports.httpx import HttpxTransport

from .scripted import Said, Scripted

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = (b"transfer-encoding", b"chunked")


async def stay():
    """A client that waits for its answer."""
    await anyio.sleep_forever()


async def ask(app, method="GET", path="/", *, headers=(), body=(), then=stay, hear=None, answer=None, **more):
    """Make an exchange: send these chunks of a body, then do as told; a client that returns from ``then`` has left.

    ``hear`` is called with each chunk that comes down.
    """
    answer = Answer() if answer is None else answer
    chunks = [body] if isinstance(body, bytes) else list(body)
    inbox = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks or [b""], 1)
    ]

    async def receive():
        if inbox:
            return inbox.pop(0)
        await then()
        return {"type": "http.disconnect"}

    async def send(message):
        answer.messages.append(message)
        if hear is not None and message.get("body"):
            await hear(message["body"])

    with anyio.fail_after(10):
        await app(http_scope(method, path, headers=headers, **more), receive, send)
    return answer


class Gateway:
    """A proxy to a stub that says what it is told; closed at the end."""

    def __init__(self, speak=None, path="", **options):
        self.speak, self.path, self.options = speak or saying(OK), path, options

    async def __aenter__(self):
        self.context = stub(self.speak)
        self.upstream = await self.context.__aenter__()
        self.app = Proxy(self.upstream.origin + self.path, **self.options)
        return self

    async def __aexit__(self, *error):
        await self.app._transport.aclose()
        await self.context.__aexit__(*error)

    async def ask(self, *args, **options):
        return await ask(self.app, *args, **options)

    @property
    def heard(self):
        """All that the upstream heard on its first connection."""
        return bytes(self.upstream.heard[0])

    def lines(self, name):
        """The values the upstream heard under a name."""
        head = self.heard.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        pairs = [line.split(b": ", 1) for line in head]
        return [value for key, value in pairs if key.lower() == name]


def problem(answer):
    """The status and code of an answer of the proxy's own."""
    assert answer.header(b"content-type") == b"application/problem+json"
    return answer.status, json.loads(answer.body)["code"]


# What the upstream gets


@pytest.mark.parametrize(
    ("base", "scope", "target"),
    [
        ("", {"path": "/"}, b"/"),
        ("", {"path": "/a/b", "query": b"x=1&y=%20&z"}, b"/a/b?x=1&y=%20&z"),
        ("", {"path": "/a b", "raw_path": b"/a%20b"}, b"/a%20b"),
        ("", {"path": "/ü", "raw_path": b"/%c3%BC"}, b"/%c3%BC"),
        ("", {"path": "/%61", "raw_path": b"/%2561"}, b"/%2561"),
        ("", {"path": "/a?b", "raw_path": b"/a%3fb"}, b"/a%3fb"),
        ("", {"path": "/changed", "raw_path": b"/as-it-was"}, b"/changed"),
        ("", {"path": "/no raw path", "raw_path": None}, b"/no%20raw%20path"),
        ("/base", {"path": "/a"}, b"/base/a"),
        ("/base/", {"path": "/a"}, b"/base/a"),
        ("/b%20c", {"path": "/"}, b"/b%20c/"),
        ("", {"path": "/api/a%2", "raw_path": b"/api/a%252", "root_path": "/api"}, b"/a%252"),
        ("", {"path": "/api", "root_path": "/api"}, b"/"),
        ("", {"path": "/apix", "root_path": "/api"}, b"/apix"),
        ("/base", {"path": "/v 1/api/x", "raw_path": b"/v%201/api/x", "root_path": "/v 1/api"}, b"/base/x"),
        ("/base", {"path": "/api", "root_path": "/api"}, b"/base"),
    ],
)
async def test_the_target_goes_up_byte_for_byte(base, scope, target):
    async with Gateway(path=base) as gateway:
        assert (await gateway.ask("GET", **scope)).status == 200
        assert gateway.heard.split(b" ")[1] == target


async def test_options_of_the_whole_server_goes_up():
    async with Gateway(path="/base") as gateway:
        assert (await gateway.ask("OPTIONS", "*")).status == 200
        assert gateway.heard.startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_options_of_the_whole_server_goes_up_without_its_bytes_as_well():
    async with Gateway() as gateway:
        assert (await gateway.ask("OPTIONS", "*", raw_path=None)).status == 200
        assert gateway.heard.startswith(b"OPTIONS * HTTP/1.1\r\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_the_method_goes_up(method):
    async with Gateway(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as gateway:
        assert (await gateway.ask(method)).status == 204
        assert gateway.heard.startswith(method.encode() + b" / ")


async def test_nothing_is_added_but_what_a_proxy_has_to_say():
    async with Gateway() as gateway:
        await gateway.ask(headers=[(b"host", b"api.example"), (b"x-b", b"2"), (b"x-a", b"1"), (b"x-b", b"3")])
        via = gateway.lines(b"via")[0]
        assert gateway.heard == (
            b"GET / HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nx-b: 2\r\nx-a: 1\r\nx-b: 3\r\nx-forwarded-proto: http\r\n"
            b"x-forwarded-for: 203.0.113.7\r\nx-forwarded-host: api.example\r\nvia: %b\r\n\r\n"
        ) % (gateway.upstream.port, via)


async def test_the_host_the_client_asked_for_is_kept_when_told():
    async with Gateway(host="preserve") as gateway:
        await gateway.ask(headers=[(b"host", b"api.example")])
        assert gateway.lines(b"host") == [b"api.example"]


async def test_forwarded_can_be_spoken_instead():
    async with Gateway(forwarded="forwarded") as gateway:
        await gateway.ask(scheme="https", headers=[(b"host", b"api.example")])
        assert gateway.lines(b"forwarded") == [b'for=203.0.113.7;proto=https;host="api.example"']
        assert gateway.lines(b"x-forwarded-for") == []


async def test_what_a_client_says_of_itself_goes_no_further():
    spoofed = [(b"x-forwarded-for", b"6.6.6.6"), (b"forwarded", b"for=6.6.6.6"), (b"x-real-ip", b"6.6.6.6")]
    async with Gateway(forwarded="both") as gateway:
        await gateway.ask(headers=spoofed)
        assert gateway.lines(b"x-forwarded-for") == [b"203.0.113.7"]
        assert b"6.6.6.6" not in gateway.heard


async def test_cookies_become_one_line():
    async with Gateway() as gateway:
        await gateway.ask(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")], http_version="2")
        assert gateway.lines(b"cookie") == [b"a=1; b=2"]


async def test_fields_of_one_hop_do_not_go_up():
    hop = [(b"te", b"trailers"), (b"upgrade", b"h2c"), (b"keep-alive", b"1"), (b"proxy-authorization", b"Basic eDp5")]
    hop += [
        (b"connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"proxy-connection", b"close"),
        (b"expect", b"100-continue"),
    ]
    async with Gateway() as gateway:
        await gateway.ask(headers=[*hop, (b"authorization", b"Bearer x"), (b"x-end", b"1")])
        assert gateway.lines(b"authorization") == [b"Bearer x"]
        assert gateway.lines(b"x-end") == [b"1"]
        for name in [name for name, _ in hop]:
            assert gateway.lines(name) == []


class SetUser(Policy):
    """Tells the upstream who is calling."""

    def on_request(self, exchange):
        exchange.set_header("x-user", "alice")


async def test_fields_of_one_hop_do_not_go_up_however_a_layer_writes_them():
    def adding(app):
        async def layer(scope, receive, send):
            headers = [*scope["headers"], (b"Keep-Alive", b"5"), (b"X-Layer", b"1")]
            await app({**scope, "headers": headers}, receive, send)

        return layer

    async with Gateway() as gateway:
        await ask(Stack(Policy(), adding)(gateway.app))
        assert (gateway.lines(b"keep-alive"), gateway.lines(b"x-layer")) == ([], [b"1"])


async def test_a_client_cannot_nominate_away_what_a_policy_has_set():
    async with Gateway() as gateway:
        headers = [(b"connection", b"close, X-User, Authorization, X-Forwarded-For"), (b"authorization", b"Bearer x")]
        await ask(Stack(SetUser())(gateway.app), headers=headers)
        assert gateway.lines(b"x-user") == [b"alice"]
        assert gateway.lines(b"x-forwarded-for") == [b"203.0.113.7"]
        assert gateway.lines(b"authorization") == [b"Bearer x"]


async def test_via_tells_of_the_way_up():
    async with Gateway(via="edge") as gateway:
        await gateway.ask(headers=[(b"via", b"1.0 fred")], http_version="1.0")
        first, second = gateway.lines(b"via")
        assert first == b"1.0 fred"
        assert second.startswith(b"1.0 edge-")


async def test_a_loop_is_broken():
    async with Gateway() as gateway:
        await gateway.ask()
        answer = await gateway.ask(headers=[(b"via", b"1.1 other, " + gateway.lines(b"via")[0])])
        assert problem(answer) == (508, "loop-detected")
        assert len(gateway.upstream.heard) == 1


async def test_another_proxy_of_the_same_name_is_no_loop():
    async with Gateway() as gateway:
        other = Proxy("http://x")._writer.pseudonym
        assert (await gateway.ask(headers=[(b"via", b"1.1 " + other)])).status == 200


@pytest.mark.parametrize(("sent", "heard"), [(b"5", [b"4"]), (b"1", [b"0"]), (b"many", [b"many"])])
async def test_max_forwards_counts_down(sent, heard):
    async with Gateway() as gateway:
        await gateway.ask("OPTIONS", headers=[(b"max-forwards", sent)])
        assert gateway.lines(b"max-forwards") == heard


async def test_max_forwards_ends_the_way():
    async with Gateway() as gateway:
        answer = await gateway.ask("OPTIONS", headers=[(b"max-forwards", b"0")])
        assert (answer.status, answer.body) == (204, b"")
        assert gateway.upstream.heard == []


async def test_max_forwards_of_other_methods_means_nothing():
    async with Gateway() as gateway:
        assert (await gateway.ask(headers=[(b"max-forwards", b"0")])).status == 200


# The body on its way up


def reading(mark):
    """Answer once the request has come up to this mark."""

    async def speak(spoken):
        if await spoken.until(mark):
            await spoken.say(OK)

    return speak


async def test_a_body_of_known_length_goes_up():
    async with Gateway(reading(b"two")) as gateway:
        answer = await gateway.ask("POST", headers=[(b"content-length", b"7")], body=[b"one ", b"", b"two"])
        assert answer.body == b"ok"
        assert gateway.lines(b"content-length") == [b"7"]
        assert gateway.heard.endswith(b"\r\n\r\none two")


async def test_a_body_of_unknown_length_goes_up_in_chunks():
    async with Gateway(reading(b"0\r\n\r\n")) as gateway:
        assert (await gateway.ask("POST", headers=[CHUNKED], body=[b"one ", b"two"])).body == b"ok"
        assert gateway.lines(b"transfer-encoding") == [b"chunked"]
        assert gateway.heard.endswith(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_body_no_header_tells_of_goes_up_in_chunks():
    """HTTP/2 needs neither length nor coding."""
    async with Gateway(reading(b"0\r\n\r\n")) as gateway:
        assert (await gateway.ask("POST", body=[b"one ", b"two"], http_version="2")).body == b"ok"
        assert gateway.heard.endswith(b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_request_without_a_body_says_nothing_of_one():
    async with Gateway() as gateway:
        await gateway.ask("POST")
        assert gateway.lines(b"content-length") == gateway.lines(b"transfer-encoding") == []


async def test_a_request_that_expects_to_be_asked_for_no_body_says_nothing_of_one():
    async with Gateway() as gateway:
        await gateway.ask("POST", headers=[(b"expect", b"100-continue")])
        assert gateway.lines(b"content-length") == gateway.lines(b"transfer-encoding") == []


async def test_an_empty_body_stays_an_empty_body():
    async with Gateway() as gateway:
        await gateway.ask("POST", headers=[(b"content-length", b"0")])
        assert gateway.lines(b"content-length") == [b"0"]


@pytest.mark.parametrize("options", [b"upgrade", b"Upgrade, HTTP2-Settings", b"upgrade, close"])
async def test_a_body_that_the_server_lost_with_an_upgrade_is_none_that_is_empty(options):
    """An offer of which nothing was left, for the client had nominated it, was overlooked."""
    offered = [CHUNKED, (b"connection", options), (b"upgrade", b"h2c")]
    async with Gateway() as gateway:
        answer = await gateway.ask("POST", headers=offered)
        assert problem(answer) == (400, "bad-framing")
        assert answer.header(b"connection") == b"close"


async def test_a_body_may_come_with_an_upgrade_that_is_offered():
    offered = [CHUNKED, (b"connection", b"upgrade"), (b"upgrade", b"h2c")]
    async with Gateway(reading(b"ok")) as gateway:
        assert (await gateway.ask("POST", headers=offered, body=[b"ok"])).status == 200


@pytest.mark.parametrize("body", [[b"short"], [b"rather", b"short"], [b"rather longer", b"than told"]])
async def test_a_body_that_is_not_as_long_as_told_never_arrives_whole(body):
    async with Gateway(reading(b"never")) as gateway:
        answer = await gateway.ask("POST", headers=[(b"content-length", b"15")], body=body)
        assert problem(answer) == (400, "bad-framing")
        assert answer.header(b"connection") == b"close"  # what is left of it must not be the next request


@pytest.mark.parametrize("framing", [CHUNKED, (b"content-length", b"100")])
async def test_a_body_broken_off_never_arrives_whole(framing):
    async def speak(spoken):
        await spoken.hang_on()

    async with Gateway(speak) as gateway:
        left = {"type": "http.disconnect"}
        messages = [{"type": "http.request", "body": b"half", "more_body": True}, left]
        answer = await relayed(gateway.app, messages, headers=[framing])
        assert answer.messages == []
    assert not gateway.heard.endswith(b"0\r\n\r\n")


async def relayed(app, inbox, *, headers=(), method="POST"):
    """Make an exchange with exactly these messages."""
    answer, inbox = Answer(), list(inbox)

    async def receive():
        return inbox.pop(0) if inbox else await anyio.sleep_forever()

    async def send(message):
        answer.messages.append(message)

    with anyio.fail_after(10):
        await app(http_scope(method, headers=headers), receive, send)
    return answer


async def test_a_client_gone_before_its_body_asks_nothing():
    async with Gateway() as gateway:
        assert (await relayed(gateway.app, [{"type": "http.disconnect"}])).messages == []
        assert gateway.upstream.heard == []


async def test_an_answer_before_the_end_of_the_body_is_passed_on_and_ends_the_upload():
    closed = anyio.Event()

    async def speak(spoken):
        await spoken.until(b"first")
        await spoken.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 7\r\n\r\ntoo big")
        await spoken.hang_on()
        closed.set()

    async with Gateway(speak) as gateway:
        answer = Answer()

        async def receive():
            await anyio.lowlevel.checkpoint()
            if not answer.messages:
                return {"type": "http.request", "body": b"first", "more_body": True}
            return await anyio.sleep_forever()

        async def send(message):
            answer.messages.append(message)

        with anyio.fail_after(10):
            await gateway.app(http_scope("POST", headers=[CHUNKED]), receive, send)
            await closed.wait()
        assert (answer.status, answer.body, answer.complete) == (413, b"too big", True)


async def test_an_answer_is_heard_while_the_client_keeps_silent():
    """The upload waits for the client, and the answer comes in the meantime; interim ones do not end the upload."""

    async def speak(spoken):
        await spoken.until(b"first")
        await spoken.say(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 10")
        await spoken.until(b"second")
        await spoken.say(b"2 Processing\r\n\r\n" + OK)
        await spoken.hang_on()

    async with Gateway(speak) as gateway:
        inbox = [{"type": "http.request", "body": each, "more_body": True} for each in (b"first", b"second")]
        answer = await relayed(gateway.app, inbox, headers=[CHUNKED])
        assert answer.body == b"ok"


async def test_an_upstream_that_takes_no_body_times_out():
    async def speak(spoken):
        await anyio.sleep_forever()

    async with Gateway(speak, read_timeout=0.05) as gateway:
        answer = await gateway.ask("POST", headers=[CHUNKED], body=[bytes(1 << 20)] * 32)
        assert problem(answer) == (504, "upstream-timeout")


# The response on its way down


async def test_status_lines_and_body_come_down():
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    response = (
        b"HTTP/1.1 418 Teapot\r\nX-B: 1\r\nSet-Cookie: a\r\nset-cookie: b\r\nDate: %b\r\nContent-Length: 3\r\n\r\ntea"
    ) % date
    async with Gateway(saying(response)) as gateway:
        answer = await gateway.ask()
        assert (answer.status, answer.body, answer.complete) == (418, b"tea", True)
        cookies = [(b"set-cookie", b"a"), (b"set-cookie", b"b")]
        assert answer.headers[:-1] == [(b"x-b", b"1"), *cookies, (b"date", date), (b"content-length", b"3")]
        assert answer.headers[-1] == (b"via", b"1.1 " + gateway.app._writer.pseudonym)


async def test_a_response_that_does_not_say_when_it_was_made_is_of_now():
    async with Gateway(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as gateway:
        began = int(time.time())
        (date,) = (await gateway.ask()).all(b"date")
        assert date.endswith(b" GMT")
        assert began <= parsedate_to_datetime(date.decode()).timestamp() <= time.time()


async def test_fields_of_one_hop_do_not_come_down():
    response = (
        b"HTTP/1.1 200 OK\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: Basic\r\n"
        b"Trailer: x-sum\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\nX-End: 1\r\n\r\n"
        b"2\r\nok\r\n0\r\nx-sum: 1\r\nauthorization: x\r\n\r\n"
    )
    async with Gateway(saying(response)) as gateway:
        answer = await gateway.ask()
        assert [name for name, _ in answer.headers] == [b"x-end", b"via", b"date"]
        assert answer.body == b"ok"


@pytest.mark.parametrize(
    ("method", "response", "headers"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", [(b"content-length", b"5")]),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", []),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nx: y\r\n\r\n", [(b"x", b"y")]),
    ],
)  # fmt: skip
async def test_a_response_without_a_body_has_none(method, response, headers):
    async def speak(spoken):
        await spoken.until()
        await spoken.say(response)
        await spoken.hang_on()

    async with Gateway(speak) as gateway:
        answer = await gateway.ask(method)
        assert [line for line in answer.headers if line[0] not in (b"via", b"date")] == headers
        assert (answer.body, answer.complete) == (b"", True)


async def test_a_body_that_ends_with_the_connection_comes_down():
    async with Gateway(saying(b"HTTP/1.0 200 OK\r\n\r\nto the ", b"end")) as gateway:
        assert (await gateway.ask()).body == b"to the end"


async def test_via_tells_of_the_version_an_upstream_has_answered_in():
    async with Gateway(saying(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")) as gateway:
        answer = await gateway.ask()
        assert answer.header(b"via") == b"1.0 " + gateway.app._writer.pseudonym


async def test_interim_responses_are_passed_over():
    async with Gateway(saying(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3, OK)) as gateway:
        answer = await gateway.ask()
        assert (answer.status, answer.header(b"link"), answer.body) == (200, None, b"ok")


async def test_each_chunk_comes_down_when_it_comes():
    arrived = [anyio.Event() for _ in range(3)]

    async def speak(spoken):
        await spoken.until()
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in arrived:
            await spoken.say(b"9\r\ndata: x\n\n\r\n")
            await event.wait()  # the next is not said before the client has this one
        await spoken.say(b"0\r\n\r\n")

    async def hear(chunk):
        next(event for event in arrived if not event.is_set()).set()

    async with Gateway(speak) as gateway:
        assert (await gateway.ask(hear=hear)).body == b"data: x\n\n" * 3


async def test_a_body_of_announced_length_comes_down_as_it_comes():
    arrived = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
        await arrived.wait()  # the rest is not said before the client has this
        await spoken.say(b"ay")

    async def hear(chunk):
        arrived.set()

    async with Gateway(speak) as gateway:
        answer = await gateway.ask(hear=hear)
        assert (answer.body, answer.complete) == (b"okay", True)


async def test_a_slow_client_holds_the_upstream_back():
    """Nothing is read ahead of the client but what the sockets hold."""
    said = 0

    async def speak(spoken):
        nonlocal said
        await spoken.until()
        await spoken.say(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(64):
            await spoken.say(bytes(1 << 20))
            said += 1

    taken = anyio.Event()

    async def hear(chunk):
        taken.set()
        await anyio.sleep_forever()

    async with Gateway(speak) as gateway, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(gateway.ask, hear=hear))
        with anyio.fail_after(10):
            await taken.wait()
        before = -1
        while before != said:  # until no more goes into the sockets
            before = said
            await anyio.sleep(0.05)
        assert said < 32
        tasks.cancel_scope.cancel()


# When the upstream fails


def head(*lines, status=b"200 OK"):
    return b"HTTP/1.1 " + b"\r\n".join([status, *lines]) + b"\r\n\r\n"


HOSTILE = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nconte",
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "an empty line first": b"\r\n\r\n" + OK,
    "status 99": head(b"content-length: 0", status=b"99 Low"),
    "status 099": head(b"content-length: 0", status=b"099 Low"),
    "status 600": head(b"content-length: 0", status=b"600 High"),
    "status 999": head(b"content-length: 0", status=b"999 High"),
    "status 2000": head(b"content-length: 0", status=b"2000 High"),
    "status -1": head(b"content-length: 0", status=b"-1 Low"),
    "101 not asked for": head(b"upgrade: websocket", b"connection: upgrade", status=b"101 Switching Protocols"),
    "a null byte": head(b"x: a\0b", b"content-length: 0"),
    "a control character": head(b"x: a\x01b", b"content-length: 0"),
    "a carriage return": head(b"x: a\rset-cookie: b", b"content-length: 0"),
    "a space in a name": head(b"x y: a", b"content-length: 0"),
    "a space before the colon": head(b"x : a", b"content-length: 0"),
    "an empty name": head(b": a", b"content-length: 0"),
    "a line without a colon": head(b"x", b"content-length: 0"),
    "1 MB of header": head(b"x: " + b"a" * (1 << 20), b"content-length: 0"),
    "5,000 headers": head(*[b"x-%d: y" % number for number in range(5000)], b"content-length: 0"),
    "10,000 interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000 + OK,
    "two lengths": head(b"content-length: 2", b"content-length: 3") + b"okk",
    "two lengths alike": head(b"content-length: 2", b"content-length: 2") + b"ok",
    "a list of lengths alike": head(b"content-length: 2, 2") + b"ok",
    "a folded line": head(b"x: a", b"  b", b"content-length: 2") + b"ok",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "a bare line feed": head(b"x: a\ny: b", b"content-length: 2") + b"ok",
    "chunks of HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a list of lengths": head(b"content-length: 2, 3") + b"okk",
    "a signed length": head(b"content-length: +2") + b"ok",
    "a hexadecimal length": head(b"content-length: 0x2") + b"ok",
    "an endless length": head(b"content-length: " + b"9" * 5000),
    "length and chunks": head(b"content-length: 2", b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "an unknown coding": head(b"transfer-encoding: gzip") + b"ok",
    "two codings": head(b"transfer-encoding: gzip, chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "chunked twice": head(b"transfer-encoding: chunked", b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_head_that_cannot_be_passed_on_is_a_bad_gateway(said):
    async with Gateway(saying(said)) as gateway:
        assert problem(await gateway.ask()) == (502, "upstream-broken")


async def test_a_client_is_told_of_a_bad_head_before_the_response_is_closed():
    order = []

    class Closing(Said):
        async def aclose(self):
            order.append("closed")
            raise OSError("it does not close")

    async def hear(chunk):
        order.append("told")

    scripted = Scripted(a=Closing(200, [(b"content-length", b"no")]))
    with pytest.raises(OSError, match="does not close"):
        await ask(Proxy("http://a", transport=scripted), hear=hear)
    assert order == ["told", "closed"]


BROKEN = {
    "too short": head(b"content-length: 5") + b"ok",
    "a chunk too short": head(b"transfer-encoding: chunked") + b"5\r\nok",
    "no last chunk": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n",
    "no end of the trailers": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\nx: y\r\n",
    "a chunk without a size": head(b"transfer-encoding: chunked") + b"2\r\nok\r\nxyz\r\n",
    "a negative chunk": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n-2\r\nok\r\n0\r\n\r\n",
    "an immense chunk": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n" + b"f" * 40 + b"\r\n",
    "an endless chunk line": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n2;" + b"x" * 1_000_000,
    "endless trailers": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n" + b"x: y\r\n" * 100_000,
    "bare line feeds": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n2\nok\n0\n\n",
    "a chunk longer than told": head(b"transfer-encoding: chunked") + b"2\r\nok\r\n2\r\noops\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_breaks_off_is_never_whole(said):
    async with Gateway(saying(said)) as gateway:
        answer = Answer()
        with pytest.raises(UpstreamBroken):
            await gateway.ask(answer=answer)
        assert answer.status == 200
        assert not answer.complete


def stalling(said):
    """Say this and then nothing more."""

    async def speak(spoken):
        await spoken.until()
        await spoken.say(said)
        await spoken.hang_on()

    return speak


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nx: y\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"]
)
async def test_an_upstream_that_stalls_before_its_answer_times_out(said):
    async with Gateway(stalling(said), read_timeout=0.05) as gateway:
        assert problem(await gateway.ask()) == (504, "upstream-timeout")


@pytest.mark.parametrize("framing", [b"content-length: 5", b"transfer-encoding: chunked", b"x: y"])
async def test_an_upstream_that_stalls_within_its_answer_breaks_it_off(framing):
    async with Gateway(stalling(head(framing)), read_timeout=0.05) as gateway:
        answer = Answer()
        with pytest.raises(UpstreamTimeout):
            await gateway.ask(answer=answer)
        assert answer.status == 200
        assert not answer.complete


async def test_the_first_byte_has_a_time_of_its_own():
    async with Gateway(stalling(b""), first_byte_timeout=0.05) as gateway:
        assert problem(await gateway.ask()) == (504, "upstream-timeout")


async def test_a_head_that_drips_times_out_as_a_whole():
    async def speak(spoken):
        await spoken.until()
        await spoken.say(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1000):
            await spoken.say(b"x: y\r\n")
            await anyio.sleep(0.01)

    async with Gateway(speak, read_timeout=0.05) as gateway:
        assert problem(await gateway.ask()) == (504, "upstream-timeout")


async def test_an_upstream_that_is_not_there_is_unreachable():
    async with Gateway() as gateway:
        pass
    assert problem(await ask(gateway.app)) == (502, "upstream-unreachable")


async def test_a_name_nobody_has_is_unreachable():
    proxy = Proxy("http://no-such-host.invalid", connect_timeout=1.0)
    assert problem(await ask(proxy)) == (502, "upstream-unreachable")


async def test_an_upstream_that_speaks_no_tls_is_unreachable():
    async def speak(spoken):
        await spoken.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with stub(speak) as upstream:
        app = Proxy(f"https://127.0.0.1:{upstream.port}")
        assert problem(await ask(app)) == (502, "upstream-unreachable")


async def test_bytes_beyond_a_response_never_reach_the_next():
    """Whatever an upstream says too much is dropped with its connection."""
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"

    async def speak(spoken):
        while request := await spoken.until():
            framing = b"transfer-encoding: chunked" if b"chunked" in request else b"content-length: 2"
            body = b"2\r\nok\r\n0\r\n\r\n" if b"chunked" in request else b"ok"
            await spoken.say(head(framing) + (b"" if request.startswith(b"HEAD") else body) + poison)

    async with Gateway(speak) as gateway:
        for method, path in [("GET", "/"), ("GET", "/chunked"), ("HEAD", "/"), ("GET", "/")]:
            answer = await gateway.ask(method, path)
            assert answer.body == (b"" if method == "HEAD" else b"ok")
        assert len(gateway.upstream.heard) == 4


async def test_a_connection_is_kept_for_the_next_request():
    async def speak(spoken):
        while request := await spoken.until():
            chunks = head(b"transfer-encoding: chunked") + b"2;x=y\r\nok\r\n0\r\nx: y\r\n\r\n"
            await spoken.say(chunks if b"chunked" in request else OK)

    async with Gateway(speak) as gateway:
        for path in ("/", "/chunked", "/"):
            assert (await gateway.ask(path=path)).body == b"ok"
        assert len(gateway.upstream.heard) == 1


# When the client leaves


@pytest.mark.parametrize("said", [b"", head(b"content-length: 100") + b"some"])
async def test_a_client_that_leaves_ends_the_exchange_with_the_upstream(said):
    heard, closed = anyio.Event(), anyio.Event()

    async def speak(spoken):
        await spoken.until()
        heard.set()
        await spoken.say(said)
        await spoken.hang_on()
        closed.set()

    async with Gateway(speak) as gateway:
        answer = await gateway.ask(then=heard.wait)
        assert not answer.messages or not answer.complete
        with anyio.fail_after(10):
            await closed.wait()


async def test_a_client_that_cannot_be_sent_to_ends_the_exchange_with_the_upstream():
    closed = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(head(b"content-length: 100") + b"some")
        await spoken.hang_on()
        closed.set()

    async def hear(chunk):
        raise OSError("the client is gone")

    async with Gateway(speak) as gateway:
        with pytest.raises(OSError, match="the client is gone"):
            await gateway.ask(hear=hear)
        with anyio.fail_after(10):
            await closed.wait()


async def test_an_error_of_a_layer_in_front_comes_out_as_it_is():
    class Odd(Exception):
        pass

    async def receive():
        raise Odd

    async with Gateway(stalling(b"")) as gateway:
        with pytest.raises(Odd), anyio.fail_after(10):
            await gateway.app(http_scope("POST", headers=[CHUNKED]), receive, Answer().messages.append)


@pytest.mark.parametrize("transport", [None, HttpxTransport])
async def test_being_cancelled_closes_the_upstream(transport):
    heard, closed = anyio.Event(), anyio.Event()

    async def speak(spoken):
        await spoken.until()
        heard.set()
        await spoken.hang_on()
        closed.set()

    options = {} if transport is None else {"transport": transport()}
    async with Gateway(speak, **options) as gateway, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, gateway.app)
        with anyio.fail_after(10):
            await heard.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await closed.wait()


class SlowToClose(Said):
    """A response that goes on, and takes a moment to be closed."""

    async def __anext__(self):
        if self._parts:
            return self._parts.pop()
        return await anyio.sleep_forever()

    async def aclose(self):
        await anyio.lowlevel.checkpoint()
        await super().aclose()


async def test_a_response_is_closed_to_the_end_when_the_client_leaves():
    said, heard = SlowToClose(), anyio.Event()

    async def hear(chunk):
        heard.set()

    await ask(Proxy("http://a", transport=Scripted(a=said)), then=heard.wait, hear=hear)
    assert said.closed


async def test_a_time_limit_in_front_is_not_mistaken_for_a_client_that_left():
    async with Gateway(stalling(b"")) as gateway:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.2):  # by then the proxy looks for the client's leaving
                await ask(gateway.app)


async def test_an_error_of_receive_while_the_answer_is_on_its_way_comes_out_as_it_is():
    class Odd(Exception):
        pass

    async def then():
        raise Odd

    async with Gateway(stalling(head(b"content-length: 5"))) as gateway:
        with pytest.raises(Odd):
            await gateway.ask(then=then)


async def test_a_client_that_leaves_while_another_transport_works_is_missed_as_well():
    heard, closed = anyio.Event(), anyio.Event()

    async def speak(spoken):
        await spoken.until()
        heard.set()
        await spoken.hang_on()
        closed.set()

    async with Gateway(speak, transport=HttpxTransport()) as gateway:
        await gateway.ask(then=heard.wait)
        with anyio.fail_after(10):
            await closed.wait()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_quick_exchange_makes_no_task(anyio_backend):
    made = []

    async def speak(spoken):
        while await spoken.until():
            made.extend(
                task for task in asyncio.all_tasks() if "apim_middleware" in task.get_coro().cr_code.co_filename
            )
            await spoken.say(OK)

    async with Gateway(speak) as gateway:
        for method, headers, body in [("GET", [], b""), ("POST", [(b"content-length", b"4")], b"body")]:
            assert (await gateway.ask(method, headers=headers, body=body)).body == b"ok"
        assert made == []


async def test_a_response_of_known_length_needs_no_message_for_its_end():
    async with Gateway() as gateway:
        answer = await gateway.ask()
        assert [message.get("body") for message in answer.messages] == [None, b"ok"]


async def test_a_client_that_waits_to_be_asked_is_not_asked_in_vain():
    """RFC 9110 §10.1.1: nobody has to send a body that no upstream takes."""
    asked = []

    async def receive():
        if asked:
            await stay()
        asked.append(True)
        return {"type": "http.request", "body": b"body", "more_body": False}

    async with Gateway(reading(b"body")) as gateway:
        headers = [(b"expect", b"100-continue"), (b"content-length", b"4")]
        answer = Answer()
        with anyio.fail_after(10):
            await gateway.app(http_scope("POST", headers=headers), receive, answer_to(answer))
        assert answer.body == b"ok"
        assert asked
    asked.clear()
    with anyio.fail_after(10):
        await gateway.app(http_scope("POST", headers=headers), receive, answer_to(answer))
    assert problem(Answer(answer.messages[-2:])) == (502, "upstream-unreachable")
    assert asked == []


def answer_to(answer):
    """A ``send`` that keeps what it is given."""

    async def send(message):
        answer.messages.append(message)

    return send


# Requests that do not go up


@pytest.mark.parametrize(
    ("method", "scope", "outcome"),
    [
        ("CONNECT", {"path": "evil:443", "raw_path": None}, (501, "method-not-implemented")),
        ("TRACE", {}, (501, "method-not-implemented")),
        ("get", {}, (400, "bad-method")),
        ("GET", {"path": "/../admin"}, (400, "bad-target")),
        ("GET", {"path": "/a\r\nb", "raw_path": b"/a%0d%0ab"}, (400, "bad-target")),
        ("GET", {"path": "/", "query": b"a b"}, (400, "bad-target")),
        ("GET", {"headers": [(b"host", b"a"), (b"host", b"b")]}, (400, "duplicate-header")),
        ("GET", {"headers": [(b"x", b"a\r\nb: c")]}, (400, "bad-header")),
        ("GET", {"headers": [(b"x", b"a\x0bb")]}, (400, "bad-header")),
        ("POST", {"headers": [CHUNKED, (b"content-length", b"5")]}, (400, "bad-framing")),
        ("POST", {"headers": [(b"transfer-encoding", b"gzip, chunked")]}, (400, "bad-framing")),
        ("POST", {"headers": [(b"content-length", b"+5")]}, (400, "bad-framing")),
    ],
)
async def test_a_bare_proxy_does_the_hygiene_itself(method, scope, outcome):
    async with Gateway() as gateway:
        assert problem(await gateway.ask(method, **scope)) == outcome
        assert gateway.upstream.heard == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"path": "/../x", "raw_path": None}, "bad-target"),
        ({"path": "/x\r\nhost: evil", "raw_path": b"/x\r\nhost: evil"}, "bad-target"),
        ({"path": "/x\r\nhost: evil", "raw_path": None}, "bad-target"),
        ({"query_string": b"x HTTP/1.1"}, "bad-target"),
        ({"query_string": b"x#y"}, "bad-target"),
        ({"headers": [(b"x", b"y\r\nz: 1")]}, "bad-header"),
        ({"headers": [(b"x y", b"z")]}, "bad-header"),
        ({"headers": [(b"content-length", b"many")]}, "bad-header"),
    ],
)
async def test_what_a_layer_made_of_a_request_is_looked_at_again(change, code):
    def careless(app):
        async def layer(scope, receive, send):
            await app({**scope, **change}, receive, send)

        return layer

    async with Gateway() as gateway:
        app = Stack(SetUser(), careless)(gateway.app)
        assert problem(await ask(app)) == (400, code)
        assert gateway.upstream.heard == []


async def test_a_refusal_of_head_has_no_body():
    async with Gateway(saying(b"")) as gateway:
        answer = await gateway.ask("HEAD")
        assert (answer.status, answer.body) == (502, b"")


async def test_an_unknown_scope_is_an_error():
    with pytest.raises(RuntimeError, match="mqtt"):
        await Proxy("http://x")({"type": "mqtt"}, stay, stay)


# A transport of one's own


class Canned:
    """A transport that answers without an upstream."""

    def __init__(self, status=200, headers=(), chunks=(), error=None):
        self.status, self.headers, self.chunks, self.error = status, list(headers), list(chunks), error
        self.requests, self.closed, self.response_closed = [], 0, 0

    async def send(self, request):
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return CannedResponse(self)

    async def aclose(self):
        self.closed += 1


class CannedResponse:
    """What a canned transport answers."""

    def __init__(self, transport):
        self.status, self.headers = transport.status, transport.headers
        self._transport, self._chunks = transport, iter(transport.chunks)

    def __aiter__(self):
        return self

    async def __anext__(self):
        for chunk in self._chunks:
            return chunk or await anyio.sleep_forever()
        raise StopAsyncIteration

    async def aclose(self):
        await anyio.lowlevel.checkpoint()
        self._transport.response_closed += 1


async def test_any_transport_will_do():
    canned = Canned(201, [(b"x", b"y")], [b"a", b"b"])
    answer = await ask(Proxy("https://api.example/v1", transport=canned, read_timeout=3), path="/a", query=b"b")
    assert (answer.status, answer.header(b"x"), answer.body) == (201, b"y", b"ab")
    [request] = canned.requests
    assert (request.origin, request.target, request.connect, request.read) == (
        "https://api.example",
        b"/v1/a?b",
        5.0,
        3,
    )
    assert canned.response_closed == 1


async def test_a_client_that_leaves_an_endless_answer_is_missed_whatever_it_still_sent():
    """The answer came before the body's end; what is left of the body must not hide that the client is gone."""
    canned = Canned(chunks=[b"first", b""])  # and then nothing more
    inbox = [{"type": "http.request", "body": b"more", "more_body": True}] * 3 + [{"type": "http.disconnect"}]
    answer = await relayed(Proxy("http://x", transport=canned), inbox, headers=[CHUNKED])
    assert not answer.complete
    assert canned.response_closed == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectFailed("x"), (502, "upstream-unreachable")),
        (UpstreamTimeout("x"), (504, "upstream-timeout")),
        (UpstreamBroken("x"), (502, "upstream-broken")),
        (TransportError("x"), (502, "upstream-broken")),
    ],
)
async def test_each_error_of_a_transport_has_its_answer(error, outcome):
    seen = []

    class Look(Policy):
        def on_response(self, exchange):
            seen.append(exchange.attributes["apim.upstream.error"])

    answer = await ask(Stack(Look())(Proxy("http://x", transport=Canned(error=error))))
    assert problem(answer) == outcome
    assert seen == [outcome[1]]


@pytest.mark.parametrize(
    "said",
    [
        {"status": 99},
        {"status": 101},
        {"status": 600},
        {"headers": [(b"x", b"a\r\nb: c")]},
        {"headers": [(b"x\n", b"a")]},
        {"headers": [(b"content-length", b"1"), (b"content-length", b"2")]},
        {"headers": [(b"content-length", b"-1")]},
        {"headers": [(b"Content-Length", b"-1")]},
        {"headers": [(b"Content-Length", b"1"), (b"content-length", b"2")]},
    ],
)
async def test_no_transport_can_make_the_proxy_send_nonsense(said):
    canned = Canned(**said)
    assert problem(await ask(Proxy("http://x", transport=canned))) == (502, "upstream-broken")
    assert canned.response_closed == 1


@pytest.mark.parametrize("chunks", [[b"four", b"five!"], [b"fo"]])
async def test_a_body_that_is_not_as_long_as_announced_is_broken_off(chunks):
    canned, answer = Canned(headers=[(b"content-length", b"4")], chunks=chunks), Answer()
    with pytest.raises(UpstreamBroken):
        await ask(Proxy("http://x", transport=canned), answer=answer)
    assert not answer.complete
    assert len(answer.body) <= 4
    assert canned.response_closed == 1


async def test_an_error_nobody_foresaw_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        await ask(Proxy("http://x", transport=Canned(error=ZeroDivisionError())))


async def test_the_transport_is_closed_with_the_server():
    canned, sent = Canned(), []
    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return inbox.pop(0)

    async def send(message):
        sent.append((message["type"], canned.closed))

    await Proxy("http://x", transport=canned)({"type": "lifespan"}, receive, send)
    assert sent == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]


async def test_a_failure_is_logged_without_the_request(caplog):
    await ask(Proxy("http://x", transport=Canned(error=UpstreamBroken("it broke"))), path="/p", query=b"key=secret")
    assert [record.getMessage() for record in caplog.records] == ["upstream-broken: http://x: it broke"]


# Configuration


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "host:80",
        "//host",
        "ftp://host",
        "http://",
        "http:///path",
        "http://host?x=1",
        "http://host/#x",
        "http://host/?",
        "http://host:99999",
        "http://host:0",
        "http://host:x",
        "http://ho st",
        "http://host/a b",
        "http://hö.example",
        "http://host\n.example",
        "http://host/../x",
        "http://[::1",
        "http://[zz]",
        "http://[fe80::1%25eth0]",
        "http://-x",
        "http://a,b",
    ],
)
def test_an_upstream_must_be_one(url):
    with pytest.raises(ConfigError, match=r"Proxy\.upstream"):
        Proxy(url)


@pytest.mark.parametrize(
    "url",
    ["http://me:hunter2@host", "me:hunter2@host", "//me:hunter2@host", "http://me:hunter2@[::1", "http://hunter2@"],
)
def test_a_password_in_the_upstream_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match="user name or password") as mistake:
        Proxy(url)
    assert "hunter2" not in str(mistake.value)


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://HOST", "http://host", b"host"),
        ("http://host:80", "http://host", b"host"),
        ("https://host:443/", "https://host", b"host"),
        ("https://host:80", "https://host:80", b"host:80"),
        ("http://[::1]:8080", "http://[::1]:8080", b"[::1]:8080"),
        ("http://my_service.ns.svc:8080", "http://my_service.ns.svc:8080", b"my_service.ns.svc:8080"),
    ],
)
def test_an_upstream_is_named_in_one_way(url, origin, authority):
    parsed = Proxy(url)._writer.upstream
    assert (parsed.origin, parsed.authority) == (origin, authority)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("connect_timeout", {"connect_timeout": 0}),
        ("read_timeout", {"read_timeout": -1.0}),
        ("read_timeout", {"read_timeout": "1"}),
        ("tls_timeout", {"tls_timeout": 0.0}),
        ("first_byte_timeout", {"first_byte_timeout": -1.0}),
        ("write_timeout", {"write_timeout": 0}),
        ("host", {"host": "mine"}),
        ("forwarded", {"forwarded": "x"}),
        ("via", {"via": "two words"}),
        ("via", {"via": ""}),
        ("verify", {"verify": False, "transport": Canned()}),
        ("verify", {"verify": "/etc/ca.pem"}),
        ("transport", {"transport": object()}),
        ("timeout", {"timeout": 5}),
    ],
)
def test_a_mistake_names_its_field(field, options):
    with pytest.raises(ConfigError, match=rf"Proxy\.{field}"):
        Proxy("http://host", **options)


def test_a_proxy_is_a_value():
    assert Proxy("http://host") == Proxy("http://host")
    assert Proxy("http://host", via="a") != Proxy("http://host", via="b")
    assert copy.copy(Proxy("http://host")) == Proxy("http://host")
    assert repr(Proxy("http://host", via="a")) == "Proxy('http://host', via='a')"


def test_a_context_of_ones_own_checks_the_upstream():
    context = ssl.create_default_context()
    assert Proxy("https://host", verify=context).verify is context
    assert Proxy("https://host", verify=False).verify is False
