"""Issuers: discovered, several, of Entra ID, rotating their keys under load, and one that nobody here wrote."""

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.jose.issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    Answering,
    Held,
    Reply,
    answering,
    as_json,
    claims,
    down,
    encoded,
    forged,
    jwk,
    pem,
    rsa_key,
    token,
)
from tests.servers import Running, free_port, program, serving

from apim_middleware._jose.issuers import Issuer
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policy import Stack
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.testing import call, http_scope
from apim_middleware.types import Receive, Scope, Send

from .bearing import KEY, House, code

pytestmark = pytest.mark.anyio

METADATA = "/.well-known/openid-configuration"


def publishing(pages: dict[str, Any]) -> Answering:
    """An issuer with these documents under its paths."""

    async def answer(request: UpstreamRequest) -> Reply:
        found = pages.get(request.origin + request.target.decode())
        return Reply(b"", 404) if found is None else found if isinstance(found, Reply) else Reply(as_json(found))

    return answer


def pages(issuer: str = ISSUER, jwks_uri: str = f"{ISSUER}/keys", **more: Any) -> dict[str, Any]:
    return {
        issuer + METADATA: {"issuer": issuer, "jwks_uri": jwks_uri, **more},
        jwks_uri: {"keys": [KEY]},
    }


def discovering(documents: dict[str, Any], **fields: Any) -> House:
    house = House(keys=None, **fields)
    house.issuer.behave(publishing(documents))
    return house


def asked(house: House) -> list[str]:
    return [request.origin + request.target.decode() for request in house.issuer.asked]


# Discovery


async def test_the_issuer_alone_is_enough() -> None:
    house = discovering(pages())
    assert (await house.ask(token(kid="one"))).status == 200
    assert asked(house) == [ISSUER + METADATA, f"{ISSUER}/keys"]


async def test_an_issuer_with_a_path_is_looked_for_behind_it_then_before_it() -> None:
    """OpenID Connect Discovery 1.0 §4, RFC 8414 §3."""
    name = "https://issuer.example/tenants/one/"
    documents = {
        "https://issuer.example/.well-known/oauth-authorization-server/tenants/one": {
            "issuer": name,
            "jwks_uri": "https://keys.example/",
        },
        "https://keys.example/": {"keys": [KEY]},
    }
    house = discovering(documents, issuer=name)
    assert (await house.ask(token(kid="one", iss=name))).status == 200
    assert asked(house)[0] == "https://issuer.example/tenants/one/.well-known/openid-configuration"


@pytest.mark.parametrize("way", ["compressed", "at length"])
async def test_however_a_server_says_that_nothing_is_there_the_next_place_is_tried(way: str) -> None:
    page = Reply(b"", 404, [(b"content-encoding", b"gzip")]) if way == "compressed" else Reply([bytes(65536)] * 16, 404)
    name = "https://issuer.example/one"
    documents = {
        "https://issuer.example/one/.well-known/openid-configuration": page,
        "https://issuer.example/.well-known/oauth-authorization-server/one": {
            "issuer": name,
            "jwks_uri": "https://keys.example/",
        },
        "https://keys.example/": {"keys": [KEY]},
    }
    house = discovering(documents, issuer=name)
    assert (await house.ask(token(kid="one", iss=name))).status == 200


async def test_metadata_may_be_elsewhere() -> None:
    documents = {
        "https://meta.example/x": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/k"},
        f"{ISSUER}/k": {"keys": [KEY]},
    }
    house = discovering(documents, issuer=Issuer(ISSUER, metadata_url="https://meta.example/x"))
    assert (await house.ask(token(kid="one"))).status == 200


async def test_metadata_is_not_asked_for_again_while_it_is_fresh() -> None:
    house = discovering(pages())
    await house.ask(token(kid="one"))
    house.clock.advance(30)
    await house.ask(token(kid="unknown"))
    assert asked(house) == [ISSUER + METADATA, f"{ISSUER}/keys", f"{ISSUER}/keys"]


async def test_keys_that_moved_are_found_again() -> None:
    house = discovering(pages())
    await house.ask(token(kid="one"))
    moved = pages(jwks_uri=f"{ISSUER}/new")
    moved[f"{ISSUER}/new"] = {"keys": [jwk(rsa_key("two"), "two")]}
    house.issuer.behave(publishing(moved))
    text = token(rsa_key("two"), kid="two")
    for _ in range(2):
        house.clock.advance(30)
        answer = await house.ask(text)
    assert answer.status == 200


BAD_METADATA: dict[str, Any] = {
    "another issuer": {"issuer": "https://evil.example", "jwks_uri": f"{ISSUER}/keys"},
    "a slash more": {"issuer": ISSUER + "/", "jwks_uri": f"{ISSUER}/keys"},
    "no issuer": {"jwks_uri": f"{ISSUER}/keys"},
    "no keys": {"issuer": ISSUER},
    "keys over http": {"issuer": ISSUER, "jwks_uri": "http://issuer.example/keys"},
    "keys in a file": {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
    "keys of the cloud": {"issuer": ISSUER, "jwks_uri": "http://169.254.169.254/"},
    "keys here": {"issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys"},
    "keys at a private address": {"issuer": ISSUER, "jwks_uri": "https://10.0.0.1/keys"},
    "keys of a user": {"issuer": ISSUER, "jwks_uri": "https://u:p@issuer.example/keys"},
    "keys in a list": {"issuer": ISSUER, "jwks_uri": [f"{ISSUER}/keys"]},
    "a list": [],
    "twice": b'{"issuer":"https://issuer.example","issuer":"x"}',
    "a redirect": Reply(b"", 302, [(b"location", b"https://evil.example/")]),
    "large": Reply([bytes(65536)] * 100),
    "an error": Reply(b"", 500),
}


@pytest.mark.parametrize("name", BAD_METADATA)
async def test_metadata_that_nobody_should_believe_gives_no_keys(name: str) -> None:
    house = discovering({**pages(), ISSUER + METADATA: BAD_METADATA[name]})
    answer = await house.ask(token(kid="one"))
    assert (answer.status, code(answer)) == (503, "keys-unavailable")
    assert set(asked(house)) <= {ISSUER + METADATA, f"{ISSUER}/.well-known/oauth-authorization-server"}


# Several issuers


OTHER = "https://other.example"
TWO = jwk(rsa_key("two"), "two")


def of_two(**more: Any) -> House:
    return House(keys=None, issuer=(Issuer(ISSUER, keys=KEY), Issuer(OTHER, keys=TWO, audience="them")), **more)


async def test_each_issuer_is_believed_with_its_own_keys_and_audience() -> None:
    house = of_two()
    assert (await house.ask(token(kid="one"))).status == 200
    assert (await house.ask(token(rsa_key("two"), kid="two", iss=OTHER, aud="them"))).status == 200
    assert (await house.ask(token(rsa_key("two"), kid="two", iss=OTHER))).status == 401


async def test_no_issuer_signs_for_another() -> None:
    """RFC 8725 §3.8."""
    house = of_two()
    for text in (
        token(rsa_key("two"), kid="two"),
        token(rsa_key("two")),
        token(rsa_key("two"), kid="one"),
        token(kid="one", iss=OTHER, aud="them"),
        token(kid="one", iss="https://third.example"),
        token(kid="one", iss=None),
        forged({"alg": "RS256", "kid": "one"}, claims(iss=[ISSUER])),
    ):
        assert (await house.ask(text)).status == 401
    assert house.seen == []


async def test_issuers_that_share_their_keys_ask_once() -> None:
    house = House(remote=True, issuer=(ISSUER, OTHER))
    assert (await house.ask(token(kid="one"))).status == 200
    assert (await house.ask(token(kid="one", iss=OTHER))).status == 200
    assert len(house.issuer.asked) == 1


async def test_a_secret_and_published_keys_stand_side_by_side() -> None:
    issuers = (Issuer("inside", keys=SECRET), Issuer(ISSUER, jwks_url=f"{ISSUER}/keys"))
    house = House(keys=None, issuer=issuers, algorithms=("RS256", "HS256"))
    assert (await house.ask(token(SECRET, "HS256", iss="inside"))).status == 200
    assert house.issuer.asked == []
    assert (await house.ask(token(kid="one"))).status == 200
    assert (await house.ask(token(SECRET, "HS256", kid="one"))).status == 401
    assert (await house.ask(forged({"alg": "HS256"}, claims(), pem(rsa_key()).encode(), "HS256"))).status == 401


async def test_an_issuer_that_is_down_keeps_only_its_own_tokens_out() -> None:
    house = House(keys=None, issuer=(Issuer(ISSUER), Issuer(OTHER)))
    house.issuer.behave(publishing(pages()))
    assert (await house.ask(token(kid="one", iss=OTHER))).status == 503
    assert (await house.ask(token(kid="one"))).status == 200
    assert (await house.ask(token(kid="one"))).status == 200


async def test_nobody_is_asked_about_the_token_of_an_issuer_nobody_trusts() -> None:
    house = House(keys=None, issuer=(Issuer(ISSUER), Issuer(OTHER)))
    for name in ("https://third.example", ISSUER + "/", None, [ISSUER], 7):
        assert (await house.ask(forged({"alg": "RS256", "kid": "one"}, {**claims(), "iss": name}))).status == 401
    assert house.issuer.asked == []


async def test_a_key_one_of_several_withdraws_verifies_no_more() -> None:
    house = House(keys=None, issuer=(Issuer(ISSUER, jwks_url=f"{ISSUER}/a"), Issuer(OTHER, jwks_url=f"{ISSUER}/b")))
    documents: dict[str, Any] = {f"{ISSUER}/a": {"keys": [KEY]}, f"{ISSUER}/b": {"keys": [TWO]}}
    house.issuer.behave(publishing(documents))
    ours, theirs = token(kid="one", exp=NOW + 100_000), token(rsa_key("two"), kid="two", iss=OTHER, exp=NOW + 100_000)
    for text in (ours, theirs):
        assert (await house.ask(text)).status == 200
    documents[f"{ISSUER}/b"] = {"keys": [jwk(rsa_key("three"), "three")]}
    house.clock.advance(3600)
    await house.ask(ours)
    source: Any = house.env.bind(house.policy)._source
    for each in source._sources.values():
        await each._job.over()
    assert (await house.ask(ours)).status == 200
    assert (await house.ask(theirs)).status == 401


# Entra ID


TENANT = "11111111-2222-3333-4444-555555555555"


def entra(**fields: Any) -> House:
    usual: dict[str, Any] = {"issuer": Issuer.entra(TENANT), "audience": ("app", "api://app"), "keys": None}
    return House(**{**usual, **fields})


async def test_tokens_of_both_versions_of_a_tenant_are_believed() -> None:
    house = entra(client_ids="spa", roles="Reader")
    both = (
        {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "aud": "app", "azp": "spa", "ver": "2.0"},
        {"iss": f"https://sts.windows.net/{TENANT}/", "aud": "api://app", "appid": "spa", "ver": "1.0"},
    )
    for each in both:
        assert (await house.ask(token(kid="one", **each, roles=["Reader"]))).status == 200
    assert asked(house) == [
        f"https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys",
        f"https://login.microsoftonline.com/{TENANT}/discovery/keys",
    ]
    other = both[0]["iss"].replace("1111", "9999")
    assert (await house.ask(token(kid="one", **{**both[0], "iss": other}, roles=["Reader"]))).status == 401
    assert (await house.ask(token(kid="one", **{**both[0], "azp": "evil"}, roles=["Reader"]))).status == 401
    refused = await house.ask(token(kid="one", **both[0], roles=["Writer"]))
    assert (refused.status, code(refused)) == (403, "forbidden")


async def test_scopes_of_entra_are_read_from_scp() -> None:
    house = entra(scopes="orders.read")
    iss = f"https://login.microsoftonline.com/{TENANT}/v2.0"
    assert (await house.ask(token(kid="one", iss=iss, aud="app", scp="orders.read x"))).status == 200
    assert (await house.ask(token(kid="one", iss=iss, aud="app", scp="x"))).status == 403


@pytest.mark.parametrize("tenant", ["common", "organizations", "contoso.onmicrosoft.com", "", TENANT + "/", "../x"])
def test_a_tenant_is_named_by_its_id_alone(tenant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Issuer.entra(tenant)
    assert caught.value.field == "tenants"


def test_clouds_have_their_own_issuers() -> None:
    names = [each.name for each in Issuer.entra(TENANT, cloud="china")]
    assert names == [
        f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0",
        f"https://sts.chinacloudapi.cn/{TENANT}/",
    ]


# Rotation and floods


async def test_keys_rotate_under_load_and_nobody_is_wronged() -> None:
    """A key is published before it signs, signs until the next does, and is withdrawn a while later."""
    house = House(remote=True, jwks_refresh=60)
    names = [f"r{number}" for number in range(4)]
    made = {name: jwk(rsa_key(name), name) for name in names}
    wrong: list[str] = []
    generation = 0

    async def visit(visitor: int) -> None:
        for turn in range(5):
            name = names[generation]
            text = token(rsa_key(name), kid=name, jti=f"{visitor} {turn}", exp=NOW + 100_000)
            if (await house.ask(text)).status != 200:
                wrong.append(f"{name} was refused")
            bad = token(rsa_key("evil"), kid=name, jti=f"{visitor} {turn}", exp=NOW + 100_000)
            if (await house.ask(bad)).status != 401:
                wrong.append(f"a forgery of {name} came in")

    for generation in range(3):
        house.issuer.keys = [made[names[generation]], made[names[generation + 1]]]
        for _ in range(3):
            house.clock.advance(50)
            async with anyio.create_task_group() as tasks:
                for visitor in range(10):
                    tasks.start_soon(visit, visitor)
            await house.renewed(b"x.y.z")
    gone = token(rsa_key("r0"), kid="r0", exp=NOW + 100_000)
    assert wrong == []
    assert (await house.ask(gone)).status == 401


async def test_ten_thousand_made_up_keys_cost_a_discovered_issuer_one_fetch() -> None:
    house = discovering(pages())
    good = token(kid="one")
    await house.ask(good)
    house.clock.advance(30)
    gate = house.env.bind(house.policy)
    _, rest = good.split(b".", 1)
    for number in range(10_000):
        flood = encoded(as_json({"alg": "RS256", "kid": f"k{number}"})) + b"." + rest
        with pytest.raises(Refusal):
            await gate.on_request(Exchange(http_scope(headers=[(b"authorization", b"Bearer " + flood)])))
    assert asked(house) == [ISSUER + METADATA, f"{ISSUER}/keys", f"{ISSUER}/keys"]
    assert len(gate._memories.free) == 1
    assert (await house.ask(good)).status == 200


async def test_a_thousand_callers_wait_for_one_fetch_and_none_of_them_for_the_next() -> None:
    house = discovering(pages())
    held = Held(house.issuer)
    statuses: list[int] = []

    async def ask(number: int) -> None:
        statuses.append((await house.ask(token(kid="one", jti=str(number)))).status)

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(ask, number)
    assert statuses == [200] * 200
    house.issuer.behave(held)
    house.clock.advance(4000)
    statuses.clear()
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(ask, 1000 + number)
    assert statuses == [401] * 200 or set(statuses) == {200, 401}
    held.let.set()


# Addresses


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001"])
@pytest.mark.parametrize(("more", "why"), [({}, "may be connected to"), ({"allow_private": True}, "404")])
async def test_a_name_that_leads_here_is_not_asked_unless_that_is_said(
    host: str, more: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The name is looked up, and every address it leads to is judged before it is dialled."""
    heard: list[str] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(scope["path"])
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})

    with serving(inside) as server:
        house, env = House(keys=None, jwks_url=f"http://{host}:{server.port}/keys", allow_http=True, **more), Env()
        app = Stack(house.policy, env=env)(house.inner)
        headers = [(b"authorization", b"Bearer " + token(kid="one", nbf=None, iat=None))]
        assert (await call(app, headers=headers)).status == 503
        await env.callouts(lambda: house.issuer, public=not more).aclose()
    assert heard == (["/keys"] if more else [])
    assert why in caplog.text


# An issuer nobody here wrote


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port)]
    log: Path = tmp_path_factory.mktemp("provider") / "log"
    with program(command, port, log=log) as running:
        yield running


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def id_token(origin: str, client: str = "orders") -> bytes:
    """A token for a client, through the authorization code flow."""
    here = "http://client.example/back"
    query = urllib.parse.urlencode(
        {"client_id": client, "redirect_uri": here, "response_type": "code", "scope": "openid", "state": "s"}
    )
    opener = urllib.request.build_opener(_Stay())
    with pytest.raises(urllib.request.HTTPError) as sent:  # type: ignore[attr-defined]
        opener.open(f"{origin}/oauth2/authorize?{query}", data=b"sub=ada", timeout=20)
    sent.value.close()
    back = urllib.parse.urlsplit(sent.value.headers["location"])
    form = {
        "grant_type": "authorization_code",
        "code": urllib.parse.parse_qs(back.query)["code"][0],
        "redirect_uri": here,
        "client_id": client,
        "client_secret": "secret",
    }
    with opener.open(f"{origin}/oauth2/token", data=urllib.parse.urlencode(form).encode(), timeout=20) as answer:
        found: str = json.load(answer)["id_token"]
    return found.encode()


async def test_the_tokens_of_a_provider_that_nobody_here_wrote_are_believed(provider: Running) -> None:
    """Discovery, keys and signatures of oidc-provider-mock, over the default transport."""
    good = JWTAuth(issuer=provider.origin, audience="orders", leeway=5)
    other = JWTAuth(issuer=provider.origin, audience="another", leeway=5)
    house, env = House(), Env()
    text = id_token(provider.origin)
    try:
        statuses = []
        for policy in (good, good, other):
            app = Stack(policy, env=env)(house.inner)
            statuses.append((await call(app, headers=[(b"authorization", b"Bearer " + text)])).status)
        assert statuses == [200, 200, 401]
        assert (house.principal.subject, house.principal.issuer) == ("ada", provider.origin)
        head, payload, signature = text.split(b".")
        changed = json.loads(urllib.parse.unquote_to_bytes(_decoded(payload)))
        forgery = b".".join([head, encoded(as_json({**changed, "sub": "eve"})), signature])
        app = Stack(good, env=env)(house.inner)
        assert (await call(app, headers=[(b"authorization", b"Bearer " + forgery)])).status == 401
    finally:
        await env.callouts(lambda: house.issuer, public=False).aclose()


def _decoded(segment: bytes) -> bytes:
    import base64

    return base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


async def test_the_keys_of_a_provider_can_be_named_outright(provider: Running) -> None:
    house, env = House(), Env()
    policy = JWTAuth(issuer=provider.origin, audience="orders", jwks_url=f"{provider.origin}/jwks", leeway=5)
    try:
        app = Stack(policy, env=env)(house.inner)
        headers = [(b"authorization", b"Bearer " + id_token(provider.origin))]
        assert (await call(app, headers=headers)).status == 200
    finally:
        await env.callouts(lambda: house.issuer, public=False).aclose()


async def test_a_fetch_that_fails_is_counted_for_whoever_listens() -> None:
    counted: list[tuple[str, dict[str, str]]] = []

    class Listener:
        def count(self, event: str, attributes: Any) -> None:
            counted.append((event, dict(attributes)))

    house = House(keys=None, issuer=f"{ISSUER}/secret-path")
    house.env.listen(Listener())
    house.issuer.behave(down)
    await house.ask(token(kid="one"))
    assert counted == [("apim.jwt.keys_not_fetched", {"apim.jwt.origin": ISSUER})]


async def test_an_issuer_that_is_down_from_the_start_is_told_as_such() -> None:
    house = House(keys=None)
    house.issuer.behave(down)
    assert code(await house.ask(token(kid="one"))) == "keys-unavailable"
    house.issuer.behave(answering(b"{}", 404))
    house.clock.advance(5)
    assert code(await house.ask(token(kid="one"))) == "keys-unavailable"


def test_the_same_policy_is_the_same_value() -> None:
    one, two = (JWTAuth(issuer=Issuer.entra(TENANT), audience=AUDIENCE) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert TENANT in repr(one)
    assert "keys" not in repr(Issuer("i", keys=SECRET))
