"""Mistakes in what users write: each message says what was wrong, and a cure that works."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import apim_middleware as apim
from apim_middleware import Api, Cache, Gateway, IPFilter, JWTAuth, Operation, Proxy, Quota, RateLimit, SetHeader
from apim_middleware._config import BUILT_IN, _is_made_by
from apim_middleware._limits.rates import UNITS
from apim_middleware._spelling import KEYS
from apim_middleware._synonyms import ADVICE, POLICIES, SYNONYMS
from apim_middleware.configuration import loads
from apim_middleware.configuration._catalogue import named, names
from apim_middleware.configuration._functions import function_of
from apim_middleware.configuration._reading import parameters_of
from apim_middleware.errors import ConfigError

LIMIT = RateLimit(calls=1, per=60)


def told(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


# Types


def test_a_list_in_the_place_of_a_tuple_is_told_to_be_one() -> None:
    assert told(lambda: Gateway(apis=(), policies=[])) == (  # type: ignore[arg-type]
        "Gateway.policies: [] is a list. Write policies=(), a tuple."
    )


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: IPFilter(allow=["10.0.0.0/8"]), "Write allow=('10.0.0.0/8',), a tuple."),
        (lambda: JWTAuth(issuer="a", audience=["a", "b"]), "Write audience=('a', 'b'), a tuple."),
        (lambda: Gateway(apis=(), policies=[lambda app: app]), "Write policies=(..., ...), a tuple."),
        (lambda: IPFilter(allow={"10.0.0.0/8"}), "Write allow=(..., ...), a tuple."),
        (lambda: Cache(ttl=1, private_to=["subscription"]), "Write private_to=(by.subscription,)."),
    ],
)
def test_the_tuple_that_is_meant_is_shown(make: Callable[[], object], cure: str) -> None:
    assert told(make).endswith(cure)


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: apim.Api("a", hosts="a.example"), 'Write hosts=("...",), with the comma.'),
        (lambda: apim.Retry(statuses=503), "Write statuses=(...,), with the comma."),
        (lambda: Cache(ttl=60, regardless_of="cookie"), 'Write regardless_of=("...",), with the comma.'),
        (lambda: apim.SignatureKey(id="a", key=b"a" * 32, algorithm="hmac-sha256", scopes="read"), "frozenset({...})."),
    ],
)
def test_one_thing_in_the_place_of_several_is_told_how_it_is_written(make: Callable[[], object], cure: str) -> None:
    assert told(make).endswith(cure)


def test_a_list_of_secrets_is_not_shown() -> None:
    assert "hunter2" not in told(lambda: apim.HMACSignature(secrets=["hunter2"]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: RateLimit(calls=1, per=1, by="subscription"), "Write by=by.subscription."),
        (lambda: RateLimit(calls=1, per=1, by="by.client"), "Write by=by.client."),
        (lambda: RateLimit(calls=1, per=1, by="subscripton"), "Write by=by.subscription."),
        (lambda: RateLimit(calls=1, per=1, by="header"), 'Write by=by.header("x-tenant").'),
        (lambda: RateLimit(calls=1, per=1, by="by.header('x-a')"), "Write by=by.header('x-a')."),
        (
            lambda: RateLimit(calls=1, per=1, by="x-tenant"),
            "Give a key such as by.client, or a function of the exchange.",
        ),
        (lambda: Cache(ttl=1, private_to="principal"), "Write private_to=by.principal."),
        (lambda: Cache(ttl=1, private_to=("principal", "api")), "Write private_to=(by.principal, by.api)."),
        (lambda: Cache(ttl=1, vary_by=("api",)), "Write vary_by=(by.api,)."),
    ],
)
def test_a_text_in_the_place_of_a_key_is_told_how_the_key_is_written(make: Callable[[], object], cure: str) -> None:
    """Was: give a function of 1 argument."""
    assert told(make).endswith(cure)


def test_every_key_is_known_to_who_writes_its_name() -> None:
    assert {name for name in apim.by.__all__ if name != "Key"} == set(KEYS)


@pytest.mark.parametrize("written", KEYS.values())
def test_every_key_is_written_so_that_it_is_one(written: str) -> None:
    assert callable(function_of(written))


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: apim.APIKeyAuth(keys={}), "Give MemoryKeys, RecordKeys or another KeyStore."),
        (lambda: apim.BasicAuth(users={}), "Give MemoryUsers or another UserStore."),
        (lambda: apim.DPoP(replays=5), "Give SQLiteEntries, RedisEntries or another Replays."),
        (
            lambda: apim.BearerCredential(token=5),
            "Give str or EnvironmentSecret, FileSecret, KeyVaultSecret or another Secret.",
        ),
        (lambda: apim.APIKeyAuth(keys=apim.MemoryKeys), "Write keys=MemoryKeys(...)."),
        (lambda: apim.BasicAuth(users=apim.MemoryUsers), "Write users=MemoryUsers(...)."),
        (lambda: apim.When(lambda exchange: True, RateLimit), "Write layer=RateLimit(...)."),
        (lambda: Gateway(apis=(), policies=(RateLimit,)), "Write RateLimit(...)."),
    ],
)
def test_where_a_store_or_a_layer_is_wanted_those_there_are_are_named(make: Callable[[], object], cure: str) -> None:
    """Was: give KeyStore."""
    assert told(make).endswith(cure)


def test_an_env_names_the_stores_there_are() -> None:
    cure = "Give MemoryPermits, SQLitePermits, RedisPermits or an object with the methods of Permits: acquire, release."
    assert told(lambda: apim.Env(permits=5)).endswith(cure)  # type: ignore[arg-type]


def protocols() -> dict[str, type]:
    """Those that are named where something of ours is offered."""
    homes = (
        "protocols",
        "stores.keyrings",
        "stores.users",
        "_jose.proofs",
        "credentials.credential",
        "credentials.secret",
    )
    modules = [importlib.import_module(f"apim_middleware.{home}") for home in homes]
    return {name: vars(module)[name] for module in modules for name in BUILT_IN if name in vars(module)}


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_offered_for_a_protocol_makes_such_a_thing(name: str) -> None:
    protocol = protocols()[name]
    offered = [getattr(apim, each, None) or named(each) for each in BUILT_IN[name]]
    assert [each for each in offered if not _is_made_by(each, protocol)] == []


def test_none_is_told_to_be_left_out_where_there_is_a_default() -> None:
    versions = (apim.Version("v1"),)
    message = told(lambda: apim.Versions("path", versions, default=None))  # type: ignore[arg-type]
    assert message == "Versions.default: None is not str. Leave it out, or give str."


# Stacks


def test_a_list_of_layers_is_told_to_be_unpacked() -> None:
    assert told(lambda: apim.Stack([LIMIT])).endswith("Write Stack(*layers).")  # type: ignore[arg-type]


def test_a_class_of_policies_in_a_stack_is_refused_at_once() -> None:
    """It was said when the stack was put in front of an app."""
    message = told(lambda: apim.Stack(RateLimit))  # type: ignore[arg-type]
    assert (
        message
        == "Stack.layers: number 1 is the class RateLimit, and an object of it is wanted. Write Stack(RateLimit(...))."
    )


def test_a_middleware_that_is_a_class_is_a_layer() -> None:
    class Plain:
        def __init__(self, app: object) -> None:
            """Take the app."""

    assert apim.Stack(Plain).layers == (Plain,)  # type: ignore[arg-type]


# Subscriptions


def test_a_subscription_is_given_by_name() -> None:
    """It was a plain TypeError."""
    assert told(lambda: apim.Subscription("acme")).startswith("Subscription: fields are given by name only")  # type: ignore[misc]


def test_a_misspelt_field_of_a_subscription_is_told_with_what_is_meant() -> None:
    assert told(lambda: apim.Subscription(id="a", produkt="b")).endswith("Did you mean product?")  # type: ignore[call-arg]


def test_a_text_in_the_place_of_a_subscription_is_told_to_be_its_id() -> None:
    """It was an AttributeError."""
    message = told(lambda: apim.MemoryKeys().add("acme"))  # type: ignore[arg-type]
    assert message.endswith("'acme' is not Subscription. Write Subscription(id=\"acme\").")


def test_a_new_subscription_is_a_subscription_too() -> None:
    message = told(lambda: apim.MemoryKeys().begin("acme"))  # type: ignore[arg-type]
    assert message.endswith('Write Subscription(id="acme").')


# Rates


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateLimit(rate="100/min"),
        lambda: RateLimit(calls=1, per=1, tier=apim.by.product, tiers={"gold": "100/min"}),
        lambda: apim.Overrides().set("acme", "100/min"),
    ],
    ids=["rate", "tiers", "overrides"],
)
def test_a_rate_that_cannot_be_read_is_told_the_units(make: Callable[[], object]) -> None:
    assert told(make).endswith("a unit is second, minute, hour, day or month.")


@pytest.mark.parametrize("unit", UNITS.replace(" or", ",").split(", "))
def test_each_of_these_units_is_one(unit: str) -> None:
    assert RateLimit(rate=f"100/{unit}").rates()[0][0] == 100


def test_one_layer_in_the_place_of_several_needs_a_comma() -> None:
    message = told(lambda: Gateway(apis=(), policies=LIMIT))  # type: ignore[arg-type]
    assert message.endswith("is not a tuple of layers. Write policies=(...,), with the comma.")


def test_what_is_no_layer_is_told_so() -> None:
    message = told(lambda: Gateway(apis=(), policies=(1,)))  # type: ignore[arg-type]
    assert message == "Gateway.policies: (1,) is not a tuple of layers. Give a tuple of layers."


def test_none_is_no_advice_where_something_else_is_wanted() -> None:
    assert told(lambda: RateLimit(calls="100", per=60)) == (  # type: ignore[arg-type]
        "RateLimit.calls: '100' is not int. Give int."
    )


class Later:
    """An object that must be awaited when it is called."""

    async def __call__(self, *asked: object) -> str:
        return ""


@pytest.mark.parametrize(
    "make",
    [
        lambda later: apim.AccessLog(write=later),
        lambda later: apim.Authorize(when=later),
        lambda later: apim.Faults(fail=0.1, when=later),
        lambda later: apim.LimitConcurrency(at_once=1, by=later),
        lambda later: apim.LimitGuesses(failed=later),
        lambda later: apim.Mirror(Proxy("http://a"), when=later),
        lambda later: apim.Pool("http://a", balance="consistent-hash", key=later),
        lambda later: apim.RateLimit(calls=1, per=1, by=later),
        lambda later: apim.ReturnResponse(body=later),
        lambda later: apim.SetHeader(name="x-a", value=later, on="request"),
        lambda later: apim.SetQuery(name="a", value=later),
        lambda later: apim.Split(Proxy("http://a"), share=0.1, by=later),
        lambda later: apim.conditions.not_(later),
    ],
)
def test_an_object_that_must_be_awaited_is_told_where_nobody_awaits_it(make: Callable[[object], object]) -> None:
    """Functions were; of objects nobody took the answer, so they did nothing, or were true for all."""
    with pytest.raises(ConfigError, match=r"is async|must be awaited|are no plain conditions"):
        make(Later())


# Names


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: RateLimit(calls=1, renewal_period=60), "per"),
        (lambda: RateLimit(calls=1, per=1, counter_key=None), "by"),
        (lambda: RateLimit(limit=1, per=1), "calls"),
        (lambda: Quota(calls=1, per=1, first_period_start=None), "starts"),
        (lambda: apim.LimitConcurrency(max_count=1), "at_once"),
        (lambda: apim.Cache(duration=1), "ttl"),
        (lambda: apim.Cache(ttl=1, vary_by_header="accept"), "vary_by"),
        (lambda: apim.Cache(ttl=1, vary_by_query_parameter="page"), "only_query"),
        (lambda: apim.Retry(count=1), "attempts"),
        (lambda: apim.Retry(interval=1), "backoff"),
        (lambda: Proxy("http://a", timeout=3), "read_timeout"),
        (lambda: apim.MockResponse(status_code=404), "status"),
        (lambda: apim.RewritePath(match="/a", template="/b"), "to"),
        (lambda: SetHeader(name="x-a", value="b", on="request", exists_action="skip"), "exists"),
    ],
)
def test_a_name_from_elsewhere_finds_the_field_that_is_meant(make: Callable[[], object], meant: str) -> None:
    assert told(make).endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: RateLimit(calls=1, per=1, increment_condition=None), 'count_when=..., and increment="afterwards"'),
        (lambda: Quota(calls=1, per=1, increment_count=2), "Write used=..."),
        (lambda: JWTAuth(audience="a", openid_config="https://i/.well-known/openid-configuration"), "issuer itself"),
        (lambda: JWTAuth(issuer="a", audience="a", require_scheme="Bearer"), "the scheme is always Bearer"),
        (lambda: JWTAuth(issuer="a", audience="a", token_value="b"), "Write token_from="),
        (lambda: JWTAuth(issuer="a", audience="a", failed_validation_httpcode=403), "on_response"),
        (lambda: JWTAuth(issuer="a", audience="a", failed_validation_error_message="no"), "on_response"),
        (lambda: JWTAuth(issuer="a", audience="a", require_expiration_time=True), "always refused"),
        (lambda: JWTAuth(issuer="a", audience="a", output_token_variable_name="jwt"), "exchange.principal"),
        (lambda: Cache(ttl=1, downstream_caching_type="private"), "SetHeader of Cache-Control before Cache"),
        (lambda: apim.Product("p", apis=(), state="published"), "Write published=True"),
        (lambda: IPFilter(action="allow", addresses=()), "write allow=(...) or deny=(...)"),
        (lambda: IPFilter(forbid=()), "Did you mean deny?"),
    ],
)
def test_a_name_from_elsewhere_that_is_no_one_field_is_told_what_to_do(make: Callable[[], object], cure: str) -> None:
    """Was: a field that happens to have a similar name, or a list of all fields."""
    assert cure in told(make)


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: JWTAuth(issuer="a", audience="a", remember=10), "max_remembered"),
        (lambda: JWTAuth(issuer="a", audience="a", jwks_keep=10), "jwks_stale_if_error"),
        (lambda: apim.DPoP(remember=10), "max_remembered"),
        (lambda: apim.BasicAuth(users=apim.MemoryUsers(), remember=10), "max_remembered"),
        (lambda: apim.OAuth2Introspection(remember=10), "max_remembered"),
        (lambda: apim.OAuth2Introspection(keep=10), "remember_for"),
        (lambda: apim.OAuth2Introspection(keep_refused=10), "remember_refused_for"),
        (lambda: apim.TokenExchange(remember=10), "max_remembered"),
        (lambda: apim.KeyVaultSecret(keep=10), "stale_if_error"),
        (lambda: Cache(collapse=5), "collapse_wait"),
        (lambda: Cache(lock_timeout=5), "collapse_wait"),
        (lambda: Cache(keep=5), "keep_stale"),
        (lambda: apim.Faults(seconds=5), "delay"),
        (lambda: apim.Faults(fixed_delay=5), "delay"),
        (lambda: apim.Ejection(seconds=5), "out_for"),
        (lambda: apim.Ejection(base_ejection_time=5), "out_for"),
        (lambda: apim.Ejection(max_ejection_time=5), "longest"),
        (lambda: apim.Ejection(max_ejection_percent=5), "at_most"),
    ],
)
def test_a_word_for_how_many_or_how_long_leads_to_the_field(make: Callable[[], object], meant: str) -> None:
    assert f"Did you mean {meant}?" in told(make)


def test_the_issuer_that_is_told_in_the_place_of_its_metadata_is_one() -> None:
    message = told(lambda: JWTAuth(issuer="https://i.example/t/.well-known/openid-configuration", audience="a"))
    assert 'Write "https://i.example/t"' in message
    assert JWTAuth(issuer="https://i.example/t", audience="a")


def test_the_issuer_of_metadata_at_the_root_of_a_host_is_told_with_its_path() -> None:
    message = told(lambda: apim.Issuer("https://i.example/.well-known/oauth-authorization-server/t"))
    assert 'Write "https://i.example/t"' in message


@pytest.mark.parametrize(
    ("written", "seconds"), [("60s", 60), ("1m", 60), ("PT1M", 60), ("2 hours", 7200), ("P1D", 86400)]
)
def test_a_duration_with_a_unit_is_told_in_seconds(written: str, seconds: int) -> None:
    """Was: give float."""
    assert told(lambda: RateLimit(calls=1, per=written)).endswith(f"Give seconds: {seconds}.")  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["P", "PT", "soon", "1 fortnight", "60"])
def test_what_is_no_duration_with_a_unit_is_not_told_in_seconds(written: str) -> None:
    assert told(lambda: RateLimit(calls=1, per=written)).endswith("Give float.")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: Quota(calls=100, period=604_800), "Write per=604800."),
        (lambda: Quota(calls=100, per="week"), 'Write period="week".'),
        (lambda: Quota(calls=100), 'Give per, in seconds, or period="month" with calls, or rate.'),
        (lambda: RateLimit(calls=1, per=1, count_when="5xx"), 'Write conditions.status("5xx").'),
        (lambda: RateLimit(calls=1, per=1, count_when=500), "Write conditions.status(500)."),
        (lambda: RateLimit(calls=1, per=1, count_when="failed"), "Write conditions.failed."),
        (lambda: apim.When("/admin", LIMIT), 'Write conditions.path("/admin").'),
        (lambda: SetHeader(name="x-a", value="b", on="request", exists="delete"), "Use RemoveHeader, or RemoveQuery"),
        (lambda: SetHeader(name="x-a", value="b", on="outbound"), 'Write on="response".'),
        (lambda: apim.Versions("segment", (apim.Version("v1"),)), 'Write by="path".'),
        (lambda: apim.Choose((apim.conditions.failed,)), "Write Choose((condition, layer), ...)."),
    ],
)
def test_a_value_as_others_write_it_is_told_as_it_is_written_here(make: Callable[[], object], cure: str) -> None:
    assert cure in told(make)


def test_a_function_is_shown_by_its_name() -> None:
    """Was: where in memory it is, too."""
    message = told(lambda: apim.Choose((apim.conditions.path("/a"),)))  # type: ignore[arg-type]
    assert message.startswith("Choose.branches: ((conditions.path('/a'),),) is not")


def test_a_condition_in_a_file_is_told_in_the_quotes_of_a_file() -> None:
    text = "[[policies]]\nuse = 'RateLimit'\ncalls = 1\nper = 60\ncount_when = '5xx'"
    assert told(lambda: loads(text)).endswith("Write \"conditions.status('5xx')\".")


def test_every_name_that_needs_advice_is_beside_a_field_of_something() -> None:
    known = {field for name in names() for field in parameters_of(named(name))[0]}
    assert {field for field, _ in ADVICE.values()} <= known


# Policies


@pytest.mark.parametrize("name", ["check-header", "CheckHeader", "check_header"])
def test_a_policy_of_azure_in_a_file_is_told_what_it_is_here(name: str) -> None:
    """Was: did you mean SetHeader."""
    message = told(lambda: loads(f"[[policies]]\nuse = '{name}'\nname = 'x-a'"))
    assert message.endswith("Azure's check-header is RequireHeader here.")


def test_a_policy_of_azure_without_a_counterpart_is_told_to_have_none() -> None:
    message = told(lambda: loads("[[policies]]\nuse = 'validate-content'"))
    assert message.endswith("Azure's validate-content has no counterpart here.")


def test_what_policies_of_azure_are_here_are_names_of_ours() -> None:
    said = {word for text in POLICIES.values() for word in re.findall(r"\b[A-Z]\w+", text)}
    assert said - {"CORSMiddleware", "Starlette", "HTTP", "TLS"} <= set(apim.__all__)


def test_the_table_for_who_comes_from_azure_has_the_same_policies() -> None:
    page = (Path(__file__).parents[1] / "docs/coming-from-azure.md").read_text("utf-8")
    first = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([a-z-]+)`", " ".join(first))) - {"context"} == set(POLICIES)


def test_a_name_from_elsewhere_may_have_hyphens_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean per\?"):
        loads("[[policies]]\nuse = 'RateLimit'\ncalls = 1\nrenewal-period = 60")


def test_every_name_from_elsewhere_means_a_field_of_something() -> None:
    known = {field for name in names() for field in parameters_of(named(name))[0]}
    assert {field for fields in SYNONYMS.values() for field in fields} <= known


# URLs


def test_keys_that_may_come_by_plain_http_are_said_how() -> None:
    message = told(lambda: JWTAuth(issuer="a", audience="a", jwks_url="http://keys.example/jwks"))
    assert "Use https, or say allow_http=True" in message


# Templates


@pytest.mark.parametrize("template", ["/items/:id", "/items/<id>", "/items/<int:id>/parts", "/:id"])
def test_a_parameter_in_the_spelling_of_others_is_refused(template: str) -> None:
    assert 'Write "{id}"' in told(lambda: Operation("GET", template))


@pytest.mark.parametrize("template", ["/items:batch", "/{id}:cancel", "/10:30", "/a<b", "/:"])
def test_colons_and_brackets_that_begin_no_parameter_are_text(template: str) -> None:
    assert Operation("GET", template).template == template


def test_the_refusal_of_a_template_stands_in_its_api() -> None:
    message = told(lambda: Api("a", backend="http://a", operations=(Operation("GET", "/:id"),)))
    assert message.startswith("Operation.template")
