"""The transport over real sockets: exact bytes up, untouched bytes down, and connections that never mix exchanges."""

import datetime as dt
import gzip
import ssl
import tempfile
from functools import partial
from pathlib import Path

import anyio
import anyio.streams.tls
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.servers import LOOPBACK, saying, stub

from apim_middleware.errors import ConfigError, ConnectFailed, UpstreamBroken, UpstreamTimeout
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports.httpx import HttpxTransport, _Chunked, _framed, _Length

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
async def transport():
    made = HttpxTransport()
    yield made
    await made.aclose()


async def ask(transport, upstream, method="GET", target=b"/", **more):
    """Send a request, read the response to its end and give it back."""
    with anyio.fail_after(10):
        response = await transport.send(UpstreamRequest(method, upstream.origin, target, **more))
        try:
            body = b"".join([chunk async for chunk in response])
        finally:
            await response.aclose()
    return response.status, response.headers, body


def polite(answer=OK):
    """Answer every request of a connection."""

    async def speak(spoken):
        while await spoken.until():
            await spoken.say(answer)

    return speak


# Exact bytes


@pytest.mark.parametrize("target", [b"/", b"*", b"/%61%zz//../x;y?<>|^`{}", b"http://other/absolute"])
async def test_the_target_goes_up_byte_for_byte(transport, target):
    async with stub(saying(OK)) as upstream:
        await ask(transport, upstream, target=target)
        assert upstream.heard[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")


async def test_the_header_lines_go_up_as_given_and_nothing_else(transport):
    headers = [(b"host", b"other"), (b"X-b", b"2"), (b"x-a", b"1"), (b"X-b", b"\xff")]
    async with stub(saying(OK)) as upstream:
        await ask(transport, upstream, headers=headers)
        assert upstream.heard[0] == b"GET / HTTP/1.1\r\nhost: other\r\nX-b: 2\r\nx-a: 1\r\nX-b: \xff\r\n\r\n"


async def test_the_origin_is_the_host_where_none_is_given(transport):
    async with stub(saying(OK)) as upstream:
        await ask(transport, upstream)
        assert upstream.heard[0] == b"GET / HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % upstream.port


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://a.example", b"a.example"),
        ("http://A.example:80", b"a.example"),
        ("http://a.example:443", b"a.example:443"),
        ("http://[::1]:8080", b"[::1]:8080"),
        ("http://me:secret@a.example", b"a.example"),
    ],
)
def test_a_host_is_written_in_one_way_and_without_secrets(origin, host):
    assert _framed(UpstreamRequest("GET", origin)) == [(b"host", host)]


async def chunks(*parts):
    for part in parts:
        yield part


@pytest.mark.parametrize(
    ("body", "length", "sent"),
    [
        (b"bytes", None, b"content-length: 5\r\n\r\nbytes"),
        (b"", None, b"content-length: 0\r\n\r\n"),
        ((b"by", b"", b"tes"), 5, b"content-length: 5\r\n\r\nbytes"),
        ((b"by", b"", b"tes"), None, b"transfer-encoding: chunked\r\n\r\n2\r\nby\r\n3\r\ntes\r\n0\r\n\r\n"),
        ((), None, b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_is_framed_by_what_is_known_of_it(transport, body, length, sent):
    async def speak(spoken):
        await spoken.until(sent)
        await spoken.say(OK)

    async with stub(speak) as upstream:
        body = body if isinstance(body, bytes) else chunks(*body)
        assert (await ask(transport, upstream, "POST", body=body, length=length))[2] == b"ok"
        assert upstream.heard[0].endswith(sent)


async def test_a_response_comes_down_untouched(transport):
    packed = gzip.compress(b"text")
    said = (
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nX: \xff\r\n\r\n" + packed
    )
    async with stub(saying(said)) as upstream:
        status, headers, body = await ask(transport, upstream)
        lines = [(b"location", b"/x"), (b"content-encoding", b"gzip"), (b"set-cookie", b"a=b"), (b"x", b"\xff")]
        assert (status, headers, body) == (302, lines, packed)


async def test_the_environment_has_no_say(monkeypatch, transport):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with stub(saying(OK)) as upstream:
        assert (await ask(transport, upstream))[0] == 200


async def test_an_error_of_the_body_comes_out_as_it_is(transport):
    class Odd(OSError):
        pass

    class Failing:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise Odd

    async with stub(polite()) as upstream:
        with pytest.raises(Odd):
            await ask(transport, upstream, "POST", body=Failing())


# Connections


async def test_a_connection_is_kept(transport):
    async with stub(polite()) as upstream:
        for _ in range(3):
            assert (await ask(transport, upstream))[2] == b"ok"
        assert len(upstream.heard) == 1


@pytest.mark.parametrize("length", [7, None])
async def test_a_connection_is_kept_after_an_upload(transport, length):
    async def speak(spoken):
        while (request := await spoken.until()) and await spoken.until(
            b"3\r\ntwo\r\n0\r\n\r\n" if length is None else b"two"
        ):
            assert request.startswith(b"POST")
            await spoken.say(OK)

    async with stub(speak) as upstream:
        for _ in range(20):
            sent = chunks(b"one ", b"two")
            assert (await ask(transport, upstream, "POST", body=sent, length=length))[2] == b"ok"
        assert len(upstream.heard) == 1


async def test_requests_at_once_have_connections_of_their_own(transport):
    async with stub(polite()) as upstream:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask, transport, upstream)
        assert len(upstream.heard) == 5
        await ask(transport, upstream)
        assert len(upstream.heard) == 5


async def test_a_response_not_read_to_its_end_costs_the_connection(transport):
    async with stub(polite()) as upstream:
        for _ in range(2):
            response = await transport.send(UpstreamRequest("GET", upstream.origin))
            await response.aclose()
            await response.aclose()
        assert len(upstream.heard) == 2


@pytest.mark.parametrize("framing", [b"content-length: 100000", b"transfer-encoding: chunked"])
async def test_a_response_left_in_the_middle_leaves_nothing_behind(transport, framing):
    """On trio a forgotten generator would be told of, and warnings are errors."""
    async with stub(polite(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nsome \r\n5\r\nmore \r\n")) as upstream:
        response = await transport.send(UpstreamRequest("GET", upstream.origin))
        async for _ in response:
            break
        await response.aclose()
        assert [chunk async for chunk in response] == []


async def test_a_connection_the_upstream_closed_is_not_used(transport):
    closed = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(OK)
        await spoken.stream.aclose()
        closed.set()

    async with stub(speak) as upstream:
        for _ in range(3):
            assert (await ask(transport, upstream, "POST", body=b"x"))[2] == b"ok"
            with anyio.fail_after(10):
                await closed.wait()
            closed = anyio.Event()
        assert len(upstream.heard) == 3


def dying(first=OK):
    """Answer the first request of a connection, and hang up on the second, having read it."""

    async def speak(spoken):
        await spoken.until()
        await spoken.say(first)
        await spoken.until()

    return speak


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", b"all of it"), ("DELETE", None)])
async def test_a_safe_request_on_a_dead_connection_is_repeated(transport, method, body):
    async with stub(dying()) as upstream:
        await ask(transport, upstream)
        assert (await ask(transport, upstream, method, body=body))[2] == b"ok"
        assert len(upstream.heard) == 2


@pytest.mark.parametrize(("method", "body"), [("POST", None), ("PATCH", b"x"), ("PUT", (b"a", b"b"))])
async def test_a_request_that_may_have_had_its_effect_is_not(transport, method, body):
    async with stub(dying()) as upstream:
        await ask(transport, upstream)
        with pytest.raises(UpstreamBroken):
            await ask(transport, upstream, method, body=chunks(*body) if isinstance(body, tuple) else body)
        assert len(upstream.heard) == 1


async def test_a_request_that_got_half_an_answer_is_not_repeated(transport):
    async def speak(spoken):
        await spoken.until()
        await spoken.say(OK)
        await spoken.until()
        await spoken.say(b"HTTP/1.1 2")

    async with stub(speak) as upstream:
        await ask(transport, upstream)
        with pytest.raises(UpstreamBroken):
            await ask(transport, upstream)
        assert len(upstream.heard) == 1


async def test_idle_connections_are_given_up_after_their_time():
    transport = HttpxTransport(idle=0.0)
    async with stub(polite()) as upstream:
        await ask(transport, upstream)
        await ask(transport, upstream)
        assert len(upstream.heard) == 2
        await transport.aclose()


async def test_no_more_connections_are_kept_than_allowed():
    transport = HttpxTransport(max_idle=1)
    async with stub(polite()) as upstream:
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, transport, upstream)
                tasks.start_soon(ask, transport, upstream)
        assert len(upstream.heard) == 3
        await transport.aclose()


async def test_connections_beyond_the_most_are_waited_for():
    transport, heard, answer = HttpxTransport(max_connections=1), anyio.Event(), anyio.Event()

    async def speak(spoken):
        while await spoken.until():
            heard.set()
            await answer.wait()
            await spoken.say(OK)

    async with stub(speak) as upstream, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, transport, upstream)
        await heard.wait()
        with pytest.raises(ConnectFailed, match="every connection is in use"):
            await ask(transport, upstream, connect=0.01)
        tasks.start_soon(ask, transport, upstream)
        answer.set()
    assert len(upstream.heard) == 1
    await transport.aclose()


async def test_failures_and_cancellations_give_their_place_back():
    transport = HttpxTransport(max_connections=1)
    async with stub(polite(b"no HTTP\r\n\r\n")) as broken, stub(polite(b"")) as silent, stub(polite()) as good:
        for _ in range(3):
            with pytest.raises(UpstreamBroken):
                await ask(transport, broken)
            with pytest.raises(UpstreamTimeout):
                await ask(transport, silent, read=0.01)
            with anyio.move_on_after(0.01) as scope:
                await ask(transport, silent)
            assert scope.cancelled_caught
            with pytest.raises(ConnectFailed):
                await transport.send(UpstreamRequest("GET", "http://127.0.0.1:1"))
            assert (await ask(transport, good, connect=1.0))[2] == b"ok"
        await transport.aclose()


async def test_closing_closes_what_is_idle_now_and_what_comes_back_later():
    transport, over = HttpxTransport(), [anyio.Event(), anyio.Event()]

    async def speak(spoken):
        while await spoken.until():
            await spoken.say(OK)
        next(event for event in over if not event.is_set()).set()

    async with stub(speak) as upstream:
        response = await transport.send(UpstreamRequest("GET", upstream.origin))
        await ask(transport, upstream)
        await transport.aclose()
        with anyio.fail_after(10):
            await over[0].wait()
        assert [chunk async for chunk in response] == [b"ok"]
        await response.aclose()
        with anyio.fail_after(10):
            await over[1].wait()


async def test_a_closed_transport_can_be_used_again(transport):
    async with stub(polite()) as upstream:
        for _ in range(2):
            await ask(transport, upstream)
        await transport.aclose()
        for _ in range(2):
            assert (await ask(transport, upstream))[2] == b"ok"
        assert len(upstream.heard) == 2


def test_each_event_loop_has_connections_of_its_own():
    transport = HttpxTransport()

    async def once():
        async with stub(polite()) as upstream:
            assert (await ask(transport, upstream))[2] == b"ok"
            await transport.aclose()

    anyio.run(once)
    anyio.run(once)
    anyio.run(once, backend="trio")


@pytest.mark.parametrize("origin", ["host", "ftp://host", "http://", "http://host:99999", "http://hö"])
async def test_what_is_no_origin_cannot_be_connected_to(transport, origin):
    with pytest.raises(ConnectFailed):
        await transport.send(UpstreamRequest("GET", origin))


async def test_a_unix_socket_can_be_connected_to():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "s")
        transport = HttpxTransport(uds=str(path))

        async def serve(stream):
            async with stream:
                await stream.receive()
                await stream.send(OK)

        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            response = await transport.send(UpstreamRequest("GET", "http://anything"))
            assert [chunk async for chunk in response] == [b"ok"]
            await response.aclose()
            await transport.aclose()
            tasks.cancel_scope.cancel()


def test_http2_needs_its_package(monkeypatch):
    monkeypatch.setattr("apim_middleware.transports.httpx.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"HttpxTransport\.http2"):
        HttpxTransport(http2=True)


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for the loopback address that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


@pytest.fixture
async def tls_origin(authority):
    """An upstream that speaks TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)

    async def serve(stream):
        async with stream:
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += await stream.receive()
            await stream.send(OK)

    plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
    port = plain.extra(anyio.abc.SocketAttribute.local_port)
    listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(listener.serve, serve))
        yield f"https://localhost:{port}"
        tasks.cancel_scope.cancel()


async def fetch(transport, origin):
    try:
        response = await transport.send(UpstreamRequest("GET", origin))
        body = b"".join([chunk async for chunk in response])
        await response.aclose()
    finally:
        await transport.aclose()
    return body


async def test_a_certificate_of_ones_own_authority_will_do(authority, tls_origin):
    context = ssl.create_default_context(cafile=authority)
    assert await fetch(HttpxTransport(verify=context), tls_origin) == b"ok"


async def test_a_certificate_of_an_unknown_authority_will_not(tls_origin):
    with pytest.raises(ConnectFailed) as failed:
        await fetch(HttpxTransport(), tls_origin)
    assert failed.value.__cause__ is not None


async def test_a_certificate_for_another_name_will_not(authority, tls_origin):
    context = ssl.create_default_context(cafile=authority)
    with pytest.raises(ConnectFailed):
        await fetch(HttpxTransport(verify=context), tls_origin.replace("localhost", LOOPBACK))


async def test_nobody_asks_for_certificates_when_told_not_to(tls_origin):
    assert await fetch(HttpxTransport(verify=False), tls_origin) == b"ok"


# How far a response reaches


def reached(reach, data, step):
    """How many of these bytes are the response's, when they come ``step`` at a time."""
    total = 0
    for at in range(0, len(data), step):
        part = data[at : at + step]
        count = reach(part)
        total += count
        if count < len(part):
            break
    return total


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "body",
    [
        b"0\r\n\r\n",
        b"2\r\nok\r\n0\r\n\r\n",
        b"A;name=value\r\n0\r\n\r\n\r\n\r\n\r\n00\r\n\r\n",
        b"000002 \r\nok\r\n0\r\nx: y\r\nz: 0\r\n\r\n",
    ],
)
def test_a_chunked_body_ends_where_it_ends(body, step):
    assert reached(_Chunked(), body + b"HTTP/1.1 200 OK\r\n\r\n", step) == len(body)


@given(parts=st.lists(st.binary(min_size=1, max_size=20)), rest=st.binary(max_size=20), step=st.integers(1, 30))
def test_any_chunks_end_where_they_end(parts, rest, step):
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert reached(_Chunked(), body + rest, step) == len(body)


@given(length=st.integers(0, 50), data=st.binary(max_size=60), step=st.integers(1, 70))
def test_a_body_of_known_length_ends_there(length, data, step):
    assert reached(_Length(length), data, step) == min(length, len(data))
