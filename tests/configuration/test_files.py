"""Gateways in files: what was written reads back as what it was, and every mistake says where it is."""

import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware import (
    AnyOf,
    Api,
    APIKeyAuth,
    BasicAuth,
    Cache,
    Choose,
    Fragment,
    Gateway,
    IPFilter,
    JWTAuth,
    Limits,
    MemoryKeys,
    MemoryUsers,
    Operation,
    Policy,
    Product,
    Proxy,
    Quota,
    RateLimit,
    Refusal,
    RequireHeader,
    RewritePath,
    SetHeader,
    Stack,
    Tracing,
    TrustedProxies,
    Version,
    Versions,
    When,
    by,
    conditions,
)
from apim_middleware.by import Key
from apim_middleware.configuration import dumps, json_schema, load, loads
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.testing import call
from apim_middleware.types import ASGIApp

pytestmark = pytest.mark.anyio

KEYS = MemoryKeys()
USERS = MemoryUsers()
FORMATS = pytest.mark.parametrize("form", ["toml", "yaml", "json"])

SHOP = """
name = "shop"
unknown_method = 405
keys = { ref = "keys" }

[[policies]]
use = "Tracing"

[[policies]]
use = "TrustedProxies"
trusted = ["10.0.0.0/8", "unix"]
also = ["scheme"]

[[policies]]
use = "When"
condition = "conditions.not_(conditions.path('/health'))"
layer = { use = "RateLimit", calls = 100, per = 60, by = "by.either(by.subscription, by.client)" }

[[apis]]
name = "orders"
path = "/orders"
backend = "http://orders.internal:8000"

  [[apis.operations]]
  method = "GET"
  template = "/{id}"

    [[apis.operations.policies]]
    use = "Cache"
    ttl = 5
    private_to = "by.subscription"

  [[apis.operations]]
  method = "POST"
  template = "/"

[[apis]]
name = "status"
path = "/status"
subscription_required = false
backend = { use = "Proxy", upstream = "http://status.internal", read_timeout = 2.5 }

[[products]]
name = "starter"
apis = ["orders"]

  [[products.policies]]
  use = "Quota"
  calls = 1000
  period = "day"
  by = "by.subscription"
"""


TENANT = by.header("x-tenant")


@dataclass(frozen=True, kw_only=True)
class TenantGuard(Policy):
    """Let some tenants in."""

    guards = True

    tenants: tuple[str, ...]
    by: Key = TENANT
    password: str = field(default="", repr=False)

    def on_request(self, exchange: Exchange) -> None:
        if self.by(exchange) not in self.tenants:
            raise Refusal(403, "tenant-unknown")


@dataclass(frozen=True)
class Plain:
    """A layer that checks nothing itself."""

    times: int = 1

    def __call__(self, app: ASGIApp) -> ASGIApp:
        return app


@dataclass(frozen=True)
class Talkative(Policy):
    """Refuses to be made, at length."""

    def __post_init__(self) -> None:
        raise ValueError("Talkative:\n  two\n  lines")


API = "[[apis]]\nname = 'a'\nbackend = 'http://a'\nsubscription_required = false\n"


def own_key(exchange: Exchange) -> str | None:
    return exchange.client


def shop() -> Gateway:
    limit = RateLimit(calls=100, per=60, by=by.either(by.subscription, by.client))
    read = Operation("GET", "/{id}", policies=(Cache(ttl=5, private_to=by.subscription),))
    return Gateway(
        name="shop",
        unknown_method=405,
        keys=KEYS,
        policies=(
            Tracing(),
            TrustedProxies(trusted=("10.0.0.0/8", "unix"), also=("scheme",)),
            When(conditions.not_(conditions.path("/health")), limit),
        ),
        apis=(
            Api("orders", "/orders", backend="http://orders.internal:8000", operations=(read, Operation("POST", "/"))),
            Api(
                "status",
                "/status",
                backend=Proxy("http://status.internal", read_timeout=2.5),
                subscription_required=False,
            ),
        ),
        products=(
            Product("starter", apis=("orders",), policies=(Quota(calls=1000, period="day", by=by.subscription),)),
        ),
    )


def around(*layers: Any, **api: Any) -> Gateway:
    return Gateway(apis=(Api("a", backend="http://a", subscription_required=False, policies=layers, **api),))


def test_a_file_reads_as_the_value_it_says() -> None:
    assert loads(SHOP, names={"keys": KEYS}) == shop()


@FORMATS
def test_a_gateway_reads_back_as_itself(form: Any) -> None:
    assert loads(dumps(shop(), form, names={"keys": KEYS}), form, names={"keys": KEYS}) == shop()


LAYERS: dict[str, Callable[[], Any]] = {
    "all kinds of keys": lambda: Limits(
        RateLimit(calls=1, per=60, by=by.both(by.client, by.header("x-tenant")), name="one"),
        RateLimit(calls=2, per=60, by=by.claim("sub"), name="two", count_when=conditions.status(401, "5xx")),
        RateLimit(calls=3, per=60, by=by.route(login=conditions.path("/login", "/in/*")), name="three"),
    ),
    "branches": lambda: Choose(
        (conditions.method("POST"), RequireHeader(name="x-a")),
        (conditions.all_of(conditions.header("x-b"), conditions.is_websocket), Stack(IPFilter(deny=("192.0.2.1",)))),
        otherwise=SetHeader(name="x-c", value="$money", on="response"),
    ),
    "any of several": lambda: AnyOf(
        APIKeyAuth(keys=KEYS, header="x-key"),
        JWTAuth(issuer="https://i.example", audience="a", jwks_url="https://i.example/jwks"),
        anonymous=True,
    ),
    "stores": lambda: BasicAuth(users=USERS, realm="house"),
    "policies of ones own": lambda: Stack(TenantGuard(tenants=("a", "b")), Plain(times=2)),
    "functions of modules": lambda: RateLimit(calls=1, per=60, by=own_key),
    "fragments": lambda: Fragment("base", (RequireHeader(name="x-a"), RewritePath(match="/a", to="/b"))),
}
NAMES = {"keys": KEYS, "users": USERS}


@FORMATS
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_every_kind_of_policy_reads_back_as_itself(layer: Callable[[], Any], form: Any) -> None:
    gateway = around(layer())
    text = dumps(gateway, form, names=NAMES, secrets=True)
    assert loads(text, form, names=NAMES) == gateway
    assert dumps(loads(text, form, names=NAMES), form, names=NAMES, secrets=True) == text


OWN = f'use = "{__name__}:TenantGuard"'


async def test_a_policy_of_ones_own_has_its_fields_in_the_file() -> None:
    gateway = loads(f"{API}[[policies]]\n{OWN}\ntenants = ['a']\nby = 'by.header(\"x-of\")'")
    assert gateway.policies == (TenantGuard(tenants=("a",), by=by.header("x-of")),)
    assert b"tenant-unknown" in (await call(gateway, headers=[(b"x-of", b"b")])).body


def test_a_field_that_a_policy_of_ones_own_has_not_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"TenantGuard\.tenant: .*policies\[0\]\)\. Did you mean tenants\?"):
        loads(f"[[policies]]\n{OWN}\ntenant = ['a']")


def test_a_field_of_a_class_that_checks_nothing_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"Plain\.tines: no such field .*policies\[0\]\)\. Did you mean times\?"):
        loads(f"[[policies]]\nuse = '{__name__}:Plain'\ntines = 2")


def test_what_may_be_a_secret_in_a_policy_of_ones_own_is_not_written() -> None:
    with pytest.raises(ConfigError, match=r"TenantGuard\.password: may hold a secret"):
        dumps(around(TenantGuard(tenants=(), password="ssss")))


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        (f"{__name__}:own_key", "is no dataclass"),
        (f"{__name__}:Nobody", "cannot be imported"),
        ("apim_middleware.nowhere:TenantGuard", "cannot be imported"),
        ("TenantGuard", 'Write a public name of apim_middleware, or use = "module:Class" for one of your own'),
    ],
)
def test_what_is_no_class_of_values_cannot_be_used(use: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        loads(f"[[policies]]\nuse = '{use}'")


def test_an_import_with_fields_is_told_what_it_must_be() -> None:
    with pytest.raises(ConfigError, match=f'Write use = "{__name__}:TenantGuard"'):
        loads(f"[[policies]]\nimport = '{__name__}:TenantGuard'\ntenants = ['a']")


def test_a_module_that_cannot_be_imported_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mistaken_here.py").write_text("raise RuntimeError('two\\nlines\\n  of it')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported: two lines of it\. ") as caught:
        loads("keys = { import = 'mistaken_here:keys' }")
    assert "\n" not in str(caught.value)


def test_a_class_that_refuses_in_several_lines_is_told_in_one() -> None:
    with pytest.raises(ConfigError, match=r"Talkative: two lines \(at gateway\.policies\[0\]\)"):
        loads(f"{API}[[policies]]\nuse = '{__name__}:Talkative'")


def stored(text: str) -> str:
    return f"{API}[env]\nuse = 'Env'\ncounters = {{ {text} }}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "use = 'RedisCounters', url = 'redis://a'",
            r"RedisCounters\.url: no such argument .*It has redis, prefix, .*: did you mean redis\?$",
        ),
        ("use = 'SQLiteCounters', path = 'a', patient = 1", r"did you mean patience\?$"),
        ("use = 'SQLiteCounters', path = 'a', zzz = 1", r"It has path, .*clock\.$"),
        ("use = 'RedisCounters'", r"RedisCounters\.redis: is missing \(at gateway\.env\.counters\)\. Give redis\.$"),
    ],
)
def test_a_store_tells_what_it_takes(text: str, told: str) -> None:
    """It was a TypeError in words, with "See its documentation"."""
    with pytest.raises(ConfigError, match=told):
        loads(stored(text))


@pytest.mark.parametrize(
    ("use", "ends"),
    [("JWTAut", r"'JWTAut' is no class of this package\. Did you mean JWTAuth\?$"), ("Zzzzz", r"of your own\.$")],
)
def test_a_class_that_is_none_is_told_with_one_cure(use: str, ends: str) -> None:
    """It ended in "JWTAuth?. Name what there is."."""
    with pytest.raises(ConfigError, match=ends):
        loads(f"[[policies]]\nuse = '{use}'")


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("by = 'subscription'", 'Write "by.subscription".'),
        ("by = 'by.subscripton'", 'Write "by.subscription".'),
        ("by = 'header'", "Write 'by.header(\"x-tenant\")'."),
        ("by = 'x-tenant'", '{import = "module:name"}.'),
        ("count_when = 'client'", '{import = "module:name"}.'),
    ],
    ids=["a key", "a misspelt key", "a factory", "no key", "a condition"],
)
def test_a_text_that_names_a_key_is_told_how_it_is_written(text: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"{API}[[policies]]\nuse = 'RateLimit'\ncalls = 1\nper = 1\n{text}")
    assert str(caught.value).endswith(cure)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    """One of 6 GB was read whole, and ended in a MemoryError."""
    file = tmp_path / "gateway.toml"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 28)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="has more than 16 MiB"):
            load(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


@FORMATS
def test_versions_read_back_as_themselves(form: Any) -> None:
    versions = Versions("header", (Version("v1", retired=True), Version("v2", backend="http://b")), default="v2")
    gateway = around(versions=versions)
    assert loads(dumps(gateway, form), form) == gateway


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_any_text_reads_back_as_itself(text: str) -> None:
    api = Api("a", backend="http://a", title=text, description=text)
    gateway = Gateway(apis=(api,), keys=KEYS)
    for form in ("toml", "yaml", "json"):
        assert loads(dumps(gateway, form, names=NAMES), form, names=NAMES).apis[0].title == text


def test_what_has_its_default_is_left_out() -> None:
    text = dumps(around(), "json")
    assert json.loads(text) == {"apis": [{"name": "a", "backend": "http://a", "subscription_required": False}]}


async def test_what_was_read_serves(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(SHOP)
    gateway = load(file, names={"keys": KEYS})
    assert (await call(gateway, path="/orders/7")).status == 401
    assert (await call(gateway, path="/nothing")).status == 404


def test_variables_of_the_environment_stand_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BACKEND", "orders.internal")
    text = (
        '{"apis": [{"name": "a", "backend": "http://${SHOP_BACKEND}", "subscription_required": false, "title": "$$5"}]}'
    )
    api = loads(text, "json").apis[0]
    assert (api.backend, api.title) == ("http://orders.internal", "$5")


LIMIT = "[[policies]]\nuse = 'RateLimit'\n"
WRONG: dict[str, tuple[str, str]] = {
    "no such field": ("[[apis]]\nname = 'a'\npth = '/'", r"Api\.pth.*gateway\.apis\[0\].*Did you mean path"),
    "no such class": ("[[policies]]\nuse = 'RateLimt'\n", r"gateway\.policies\[0\].*\. Did you mean RateLimit\?$"),
    "a table of nothing": ("[[policies]]\ncalls = 1\n", r"gateway\.policies\[0\].*use = "),
    "wrong type": (f"{LIMIT}calls = 'many'\nper = 1\n", r"RateLimit\.calls.*gateway\.policies\[0\]"),
    "nonsense value": (f"{LIMIT}calls = 0\nper = 1\nby = 'by.client'", r"gateway\.policies\[0\]"),
    "no such key": (f"{LIMIT}calls = 1\nper = 1\nby = 'by.clint'", r"policies\[0\]\.by.*by\.clint"),
    "no such object": ("keys = { ref = 'kyes' }", r"gateway\.keys.*names="),
    "no such module": ("keys = { import = 'nowhere:keys' }", r"gateway\.keys.*cannot be imported"),
    "a list for a table": ("[[apis]]\nname = ['a']", r"apis\[0\]\.name.*is a list"),
    "no toml": ("apis = [", "is no TOML"),
    "a variable that is not set": (
        "[[policies]]\nuse = 'SetHeader'\nvalue = ['${SURELY_NOT_SET}']",
        r"^gateway\.policies\[0\]\.value\[0\]: \$\{SURELY_NOT_SET\} is not set",
    ),
    "a secret that is not there": (
        f"{API}[[apis.policies]]\n"
        "use = 'UpstreamAuth'\n[apis.policies.credential]\nuse = 'BearerCredential'\n"
        "token = { use = 'EnvironmentSecret', name = 'SURELY_NOT_SET' }",
        r"EnvironmentSecret\.name: 'SURELY_NOT_SET' .*\(at gateway\.apis\[0\]\.policies\[0\]\.credential\.token\)",
    ),
    "a product of no API": (
        f"keys = {{ use = 'MemoryKeys' }}\n{API}"
        "[[products]]\nname = 'a'\napis = ['a']\n[[products]]\nname = 'b'\napis = ['c']",
        r"Product b\.apis: holds 'c'.*\(at gateway\.products\[1\]\)",
    ),
    "a key that cannot be made": (
        f"{LIMIT}calls = 1\nper = 1\nby = 'by.header(\"\")'",
        r"by\.header: '' .*\(at gateway\.policies\[0\]\.by\)",
    ),
    "an order that cannot work": (
        "[[policies]]\nuse = 'Cache'\n[[policies]]\nuse = 'IPFilter'\ndeny = ['192.0.2.1']\n"
        "[[apis]]\nname = 'a'\nbackend = 'http://a'\nsubscription_required = false",
        "answer from memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_every_mistake_says_where_it_is(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "by.client.__class__",
        "by.header(*['x'])",
        "by.header(**{})",
        "by.header('x', 'y')",
        "by.header(by)",
        "by._combined",
        "by.lru_cache",
        "conditions.routed_path('x')",
        "conditions.holds(1, 2)",
        "lambda exchange: 'x'",
        "by.both(by.client)",
        "by.needs(by.client)",
        "(" * 1000,
        "by.client" + " " * 3000,
        "header('x')",
        "",
    ],
)
def test_functions_are_nothing_but_keys_and_conditions(text: str) -> None:
    document = {"policies": [{"use": "RateLimit", "calls": 1, "per": 1, "by": text}]}
    with pytest.raises(ConfigError):
        loads(json.dumps(document), "json")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a: &a [" + "x," * 1000 + "]\n" + "".join(f"b{n}: &b{n} [" + "*a," * 1000 + "]\n" for n in range(2)), "yaml"),
        ("a: &a [*a]", "yaml"),
        ("apis: [{<<: {name: a}}]", "yaml"),
        ("a: 1\na: 2", "yaml"),
        ("!!python/object/apply:os.system ['true']", "yaml"),
        ("? [a]\n: b", "yaml"),
        ("{", "yaml"),
        ('{"a": 1, "a": 2}', "json"),
        ('{"a": NaN}', "json"),
        ("[]", "json"),
        ("[" * 100_000, "json"),
        ('{"a":' * 100 + "1" + "}" * 100, "json"),
        (b"\xff", "toml"),
        ("a = 1\na = 2", "toml"),
    ],
)
def test_hostile_texts_are_refused(text: Any, form: Any) -> None:
    with pytest.raises(ConfigError):
        loads(text, form)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: RateLimit(calls=1, per=60, by=lambda exchange: "x"),
        lambda: BasicAuth(users=MemoryUsers()),
        lambda: JWTAuth(issuer="https://i.example", audience="a", keys=b"s" * 32, algorithms=("HS256",)),
        lambda: SetHeader(name="authorization", value="ssss"),
    ],
    ids=["lambda", "store", "secret", "header"],
)
def test_what_cannot_be_written_is_refused(layer: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        dumps(around(layer()))
    assert "ssss" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.toml", "apis = = []", r"a\.toml: is no TOML: .*line 1"),
        ("a.yaml", "a: b: c", r"a\.yaml: is no YAML: .*line 1"),
        ("a.yaml", "a: 1\nb: 2\na: 3", r"a\.yaml: is no YAML: .*'a' twice \(at line 3, column 1\)"),
        ("a.json", "{", r"a\.json: is no JSON: .*line 1"),
        ("a.json", "[]", r"a\.json: is no table"),
        ("a.toml", "name = '${SURELY_NOT_SET}'", r"a\.toml: gateway\.name: \$\{SURELY_NOT_SET\} is not set"),
        ("a.toml", "[[apis]]\nname = 'a'\npth = 1", r"a\.toml: Api\.pth: .*\(at gateway\.apis\[0\]\)"),
        ("a.toml", "[[policies]]\ncalls = 1", r"a\.toml: gateway\.policies\[0\]: a table of calls"),
    ],
)
def test_every_mistake_in_a_file_names_the_file(name: str, text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path))}.{told}"):
        load(file)


def test_an_ending_nobody_knows_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ending"):
        load(tmp_path / "gateway.ini")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "gateway.toml")


# YAML

HEADER_IN_YAML = """
apis:
  - name: a
    backend: http://a
    subscription_required: false
    policies:
      - {use: SetHeader, name: x-a, value: %s, on: response}
"""


def test_on_is_a_name_in_yaml() -> None:
    assert loads(HEADER_IN_YAML % "b", "yaml") == around(SetHeader(name="x-a", value="b", on="response"))


@pytest.mark.parametrize("word", ["no", "yes", "off", "12:30:45", "2027-01-01", "1_000"])
def test_what_yaml_1_1_takes_for_something_else_is_a_text(word: str) -> None:
    assert loads(HEADER_IN_YAML % word, "yaml") == around(SetHeader(name="x-a", value=word, on="response"))


def test_a_word_for_a_switch_is_a_mistake_and_never_the_contrary() -> None:
    with pytest.raises(ConfigError, match=r"'no' is not true or false \(at gateway\.apis\[0\]\)"):
        loads("apis: [{name: a, backend: http://a, subscription_required: no}]", "yaml")


@pytest.mark.parametrize("word", ["no", "on", "010", "08", "0o17", "1e5", ".5", "-.5", "~", "<<", ".inf", "1" * 5000])
def test_a_text_that_looks_like_something_else_is_written_as_a_text(word: str) -> None:
    gateway = around(title=word, tags=(word,))
    assert loads(dumps(gateway, "yaml"), "yaml") == gateway


def test_what_an_alias_stands_for_is_read_where_it_stands() -> None:
    text = """
policies: [&limit {use: RateLimit, calls: 10, per: 60}]
apis: [{name: a, backend: http://a, subscription_required: false, policies: [*limit]}]
"""
    limit = RateLimit(calls=10, per=60)
    assert loads(text, "yaml") == Gateway(policies=(limit,), apis=around(limit).apis)


# The schema

VALIDATOR = jsonschema_rs.validator_for(json_schema())


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(json_schema())


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_what_is_written_is_valid(layer: Callable[[], Any]) -> None:
    VALIDATOR.validate(json.loads(dumps(around(layer()), "json", names=NAMES, secrets=True)))
    VALIDATOR.validate(json.loads(dumps(shop(), "json", names=NAMES)))


@pytest.mark.parametrize("name", ["no such field", "no such class", "a table of nothing", "wrong type"])
def test_what_cannot_be_read_is_mostly_invalid(name: str) -> None:
    import tomllib

    assert not VALIDATOR.is_valid(tomllib.loads(WRONG[name][0]))


def test_the_schema_documents_every_field_of_a_policy() -> None:
    properties = json_schema()["$defs"]["use-RateLimit"]["properties"]
    assert all("description" in each for name, each in properties.items() if name != "use")


# What an attacker tried


def _policy(**fields: object) -> str:
    return json.dumps({"name": "a", "apis": [], "policies": [fields]})


@pytest.mark.parametrize("secret", ["hunter2hunter2", "a'b\\c\nhunter2", "x" * 200, "pass"])
@pytest.mark.parametrize(
    "fields",
    [
        {"use": "APIKeyAut", "keys": "${PW}"},
        {"use": "RateLimit", "calls": {"password": "${PW}"}, "per": 1},
        {"use": "RateLimit", "calls": "${PW}", "per": 1},
        {"use": "HTTPSignature", "keys": "${PW}"},
        {"use": "SetHeader", "name": "x", "value": {"import": "os:${PW}"}},
        {"use": "SetHeader", "name": "x", "value": {"ref": "${PW}"}},
        {"use": "TrustedProxies", "trusted": "${PW}"},
        {"use": "TrustedProxies", "trusted": ["10.0.0.0/8", "${PW}"]},
        {"use": "${PW}"},
    ],
)
def test_no_mistake_shows_what_a_variable_holds(
    fields: dict[str, object], secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", secret)
    with pytest.raises(ConfigError) as caught:
        loads(_policy(**fields), "json")
    assert secret[:8] not in str(caught.value).replace("password", "")
    assert repr(secret)[1:9] not in str(caught.value).replace("password", "")


def test_a_table_that_cannot_be_read_shows_its_names_only() -> None:
    with pytest.raises(ConfigError, match="a table of use, password") as caught:
        loads(_policy(use="Nobody", password="hunter2"), "json")
    assert "hunter2" not in str(caught.value)


def test_a_mistake_in_yaml_is_told_without_its_line() -> None:
    with pytest.raises(ConfigError, match=r"at line 2, column \d+") as caught:
        loads("name: a\npassword: hunter2: x\n", "yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["name: !!timestamp x", "name: !!bool x", "\ud800"])
def test_yaml_that_its_library_stumbles_over_is_a_mistake(text: str) -> None:
    with pytest.raises(ConfigError, match="is no YAML"):
        loads(text, "yaml")


@pytest.mark.parametrize(
    "fields",
    [
        {"use": "RateLimit", "calls": 1, "per": 1, "by": "by" + ".a" * 990},
        {"use": "SetHeader", "name": "x", "value": {"ref": ["a"]}},
        {"use": "AnyOf", "layers": 1},
        {"use": "Stack", "layers": None},
        {"use": "MemoryCounters", "clock": "x"},
        {"use": "Env", "hygiene": "x"},
    ],
)
def test_values_that_fit_nowhere_are_mistakes(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        loads(_policy(**fields), "json")
