"""Hostile requests and hostile responses through the whole gateway: real servers in front, plain sockets on both sides.

Whatever is said, nothing desynchronises: the upstream gets what the policies have seen, each request framed in one way,
and the next request on a connection is answered with its own response or, when nobody can tell where it begins, not.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.transports.hostile import BODIES, EXCESS, HEADS

from .gateways import SERVERS, fronted
from .hostile_requests import REQUESTS
from .hostile_upstream import Upstream

RESPONSES = [*HEADS.values(), *BODIES.values(), *(said for _, said in EXCESS.values())]
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def upstream():
    return Upstream(RESPONSES)


@pytest.fixture(scope="module", params=SERVERS)
def front(request, upstream, tmp_path_factory):
    with (
        upstream.listening() as origin,
        fronted(request.param, "witnessed", origin, tmp_path_factory.mktemp("front")) as running,
    ):
        yield running


def answers(heard):
    """What a client is answered: the body of what went well, else the status; ``None`` for what is cut short."""
    found = []
    while heard:
        head = re.match(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n(.*?)\r\n\r\n", heard, re.DOTALL)
        assert head is not None, heard
        rest, status = heard[head.end() :], int(head[1])
        body, heard = _body(rest, head[2].lower())
        found.append(None if body is None else status if status != 200 else body.decode())
    return found


def _body(rest, fields):
    """A body and what is behind it."""
    if length := re.search(rb"content-length: *(\d+)", fields):
        size = int(length[1])
        return (rest[:size], rest[size:]) if len(rest) >= size else (None, b"")
    if b"transfer-encoding: chunked" not in fields:
        return rest, b""
    body = b""
    while line := re.match(rb"([0-9a-f]+)\r\n", rest, re.IGNORECASE):
        size, rest = int(line[1], 16), rest[line.end() :]
        if not size:
            return (body, rest[2:]) if rest.startswith(b"\r\n") else (None, b"")
        if len(rest) < size + 2:
            break
        body, rest = body + rest[:size], rest[size + 2 :]
    return None, b""


# Requests

GO_ON = ["/hidden 0", "/after 0"]

PASSED = {
    "TE with an underscore": "/attack 5",  # which is another field: and that is dropped
    "CL with a tab": "/attack 0",
    "CL on a GET": "/attack 5",
    "a chunk extension": "/attack 0",
}
"""Requests like any other."""

CLEAR = {
    *("a request in a target", "two hosts", "no host", "a tunnel", "an absolute target", "a header of 1 MB"),
    *("a control character in a value", "5,000 headers", "a target of 100 KB", "a method of 10 KB", "endless trailers"),
}
"""Refused, though anybody can tell where the next one begins: it is answered, or the connection ends."""

LENIENT = {
    "an absolute target": "/attack 0",  # RFC 9112 §3.2.2
    "an empty line first": "/attack 0",  # §2.2
    "a bare LF head": "/attack 0",  # §2.2
    "a folded line": "/attack 0",  # §5.2: a server may take it for blanks
    "CL folded": "/attack 5",
    "CL twice, alike": "/attack 5",  # §6.3: one of them is enough
    "a chunk size before a space": "/attack 0",  # §7.1.1: bad whitespace
    "a chunk extension with a bare CR": "/attack 0",  # nobody looks at extensions
    "a chunk extension with a NUL": "/attack 0",
    "an endless chunk extension": "/attack 0",
    "trailers that frame": "/attack 0",  # dropped
    "endless trailers": "/attack 0",  # dropped
    "HTTP/1.2": "/attack 0",  # RFC 9110 §2.5
    "HTTP/3.0": "/attack 0",
    "an upgrade": "/attack 0",  # nobody need take it (§7.8)
}
"""Refused by some servers and read by others, in this one way."""

TWO_FRAMINGS = {
    "CL.TE": "/attack 0",
    "TE.CL": "/attack 33",
    "TE with a tab": "/attack 0",
    "TE in capitals": "/attack 0",
    "TE behind a bare LF": "/attack 0",
}
"""Refused, or read by its chunks alone, and the connection ends (RFC 9112 §6.3)."""


def right(name, found):
    """Whether a client may be answered so."""
    first, rest = (found[0] if found else None), found[1:]
    if name in PASSED:
        return found == [PASSED[name], *GO_ON]
    if isinstance(first, str):
        one_way = LENIENT.get(name) == first and rest in ([], GO_ON, [400], [None])
        return one_way or (TWO_FRAMINGS.get(name) == first and rest == [])
    refused = not any(isinstance(each, str) for each in rest)
    return refused or (name in CLEAR and rest == GO_ON)


def test_hostile_requests_have_their_right_outcome(front, upstream):
    """Each is sent with another behind it, and a third that is to be answered."""
    with ThreadPoolExecutor(16) as pool:
        heard = list(pool.map(lambda attack: front.talk(attack + AFTER, seconds=4), REQUESTS.values()))
    outcomes = {name: answers(said) for name, said in zip(REQUESTS, heard, strict=True)}
    assert {name: found for name, found in outcomes.items() if not right(name, found)} == {}
    assert upstream.unclear == []


# Responses


def said_by(front, *targets, method=b"GET"):
    """What a client is answered that asks for these one after the other on one connection."""
    asked = b"".join(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, target.encode()) for target in targets)
    return front.talk(asked + AFTER)


def test_a_hostile_head_is_a_problem_and_the_next_request_is_answered(front, upstream):
    def ask(said):
        return answers(said_by(front, "/before", f"/hostile/{RESPONSES.index(said)}"))

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(HEADS, pool.map(ask, HEADS.values()), strict=True))
    assert {name: each for name, each in found.items() if each != ["/before 0", 502, "/after 0"]} == {}
    assert upstream.unclear == []


BROKEN_OFF = (
    ["/before 0", None],
    ["/before 0", 500, "/after 0"],  # granian holds the head back until something of the body comes
    ["/before 0"],  # and drops what it has not written yet when it learns of the end
)


def test_a_hostile_body_breaks_off_and_nothing_follows_it(front, upstream):
    def ask(said):
        return answers(said_by(front, "/before", f"/hostile/{RESPONSES.index(said)}"))

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(BODIES, pool.map(ask, BODIES.values()), strict=True))
    assert {name: each for name, each in found.items() if each not in BROKEN_OFF} == {}
    assert answers(said_by(front)) == ["/after 0"]
    assert upstream.unclear == []


def test_what_follows_a_response_reaches_nobody(front, upstream):
    def ask(case):
        method, said = case
        heard = said_by(front, *[f"/excess/{RESPONSES.index(said)}"] * 3, method=method.encode())
        return heard.count(b"HTTP/1.1 "), b"poison" in heard, answers(heard[heard.rindex(b"HTTP/1.1 ") :])

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(EXCESS, pool.map(ask, EXCESS.values()), strict=True))
    assert {name: each for name, each in found.items() if each != (4, False, ["/after 0"])} == {}
    assert upstream.unclear == []
