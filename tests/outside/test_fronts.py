"""Behind real front servers the gateway knows who is calling, and nobody can tell it otherwise."""

import pytest

from .conftest import CLIENT, Front, Upstream

LIES = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "gopher"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6;proto=gopher;host=evil.example"),
    ("True-Client-IP", "6.6.6.6"),
    ("X-Forwarded-Port", "666"),
]


@pytest.mark.parametrize(("tls", "scheme"), [(False, "http"), (True, "https")])
@pytest.mark.parametrize("lies", [(), LIES], ids=["honest", "lying"])
def test_address_scheme_and_host_are_the_clients_own(front: Front, tls, scheme, lies):
    seen = front.ask(tls=tls, headers=lies)
    assert seen.status == 200
    assert seen.lines("x-forwarded-for") == [CLIENT]
    assert seen.lines("x-forwarded-proto") == [scheme]
    assert seen.lines("x-forwarded-host") == ["api.example"]
    assert "6.6.6.6" not in str(seen.body)


def test_a_client_cannot_pile_up_lies(front: Front):
    headers = [("X-Forwarded-For", "127.0.0.1, 10.0.0.1"), ("X-Forwarded-For", "127.0.0.1")]
    assert front.ask(headers=headers).lines("x-forwarded-for") == [CLIENT]


def test_a_client_cannot_nominate_the_truth_away(front: Front):
    """Apache would take away what it has set itself, if it were to see the client's Connection."""
    seen = front.ask(headers=[("Connection", "close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host")])
    assert seen.lines("x-forwarded-for") == [CLIENT]
    assert seen.lines("x-forwarded-proto") == ["https"]
    assert seen.lines("x-forwarded-host") == ["api.example"]


def test_the_credentials_pass(front: Front):
    assert front.ask(headers=[("Authorization", "Bearer a.b.c")]).lines("authorization") == ["Bearer a.b.c"]


def test_every_hop_tells_of_itself(front: Front):
    assert front.ask().lines("via")[-1].startswith("1.1 apim-")


def test_a_body_passes(front: Front):
    assert b'"size": 1000000' in front.ask("POST", body=bytes(1_000_000)).body


def test_events_pass_when_they_come(front: Front, upstream: Upstream):
    upstream.go_on.clear()
    connection = front.connection(tls=True)
    try:
        connection.request("GET", "/events", headers={"Host": "api.example"})
        response = connection.getresponse()
        assert response.readline() == b"data: 1\n"
        assert not upstream.go_on.is_set()
        upstream.go_on.set()
        assert response.read() == b"\ndata: 2\n\n"
    finally:
        upstream.go_on.set()
        connection.close()


def test_a_target_a_front_and_the_gateway_could_read_in_two_ways_is_one(front: Front):
    """Fronts resolve or pass dot segments; the gateway takes none."""
    seen = front.ask(path="/public/..%2fadmin")
    assert seen.status in (400, 404)
