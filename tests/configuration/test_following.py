"""Files that are read again: what is equal to itself alone stays where tables say the same."""

import gc
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.houses import Backend
from tests.transports.conformance_tls import authority  # noqa: F401 - a fixture

from apim_middleware import Gateway, IPFilter, MemoryKeys, Policy, RateLimit, Reloadable
from apim_middleware.configuration import loads
from apim_middleware.errors import ConfigError
from apim_middleware.testing import call

pytestmark = pytest.mark.anyio

ENV = '{ use = "Env", place = "shop", entries = { use = "MemoryEntries" } }'
KEYS = '{ use = "APIKeyAuth", keys = { use = "MemoryKeys" } }'
NAMES = {"app": Backend()}


def text(env: str = ENV, keys: str = KEYS, layers: str = "") -> str:
    return f"""
    env = {env}
    keys = {keys}
    policies = [{layers}]

    [[apis]]
    name = "orders"
    path = "/orders"
    backend = {{ ref = "app" }}
    subscription_required = false
    """


def read(given: str, after: Gateway | None = None, names: Any = None) -> Gateway:
    return loads(given, names=names or NAMES, after=after)


def entries(gateway: Gateway) -> object:
    assert gateway.env is not None
    return gateway.env.given["entries"]


def test_a_text_that_says_the_same_is_an_equal_gateway() -> None:
    """Each reading made stores of its own, so that counts, caches and breakers began anew with every reload."""
    first = read(text())
    assert read(text(), first) == first


def test_a_text_that_follows_nothing_makes_objects_of_its_own() -> None:
    assert read(text()).env is not read(text()).env


def test_what_stands_beside_a_change_stays() -> None:
    first = read(text())
    second = read(text(layers='{ use = "IPFilter", deny = ["192.0.2.1"] }'), first)
    assert (second.env, second.policies) == (first.env, (IPFilter(deny=("192.0.2.1",)),))


def test_what_stands_within_a_change_stays() -> None:
    first = read(text())
    second = read(text(env=ENV.replace("shop", "stall")), first)
    assert second.env is not first.env
    assert entries(second) is entries(first)


def test_what_stayed_with_all_around_it_stays_within_a_later_change() -> None:
    first = read(text())
    third = read(text(env=ENV.replace("shop", "stall")), read(text(), first))
    assert entries(third) is entries(first)


def test_what_changed_is_made_anew() -> None:
    first = read(text())
    second = read(text(env=ENV.replace('"MemoryEntries"', '"MemoryEntries", max_bytes = 4096')), first)
    assert entries(second) is not entries(first)


def test_what_went_is_not_kept() -> None:
    first = read(text())
    without = read(text(keys='{ ref = "keys" }'), first, {**NAMES, "keys": MemoryKeys()})
    assert read(text(), without).keys != first.keys


def test_tables_that_say_the_same_are_told_apart_by_their_order() -> None:
    other = f'{{ use = "Stack", layers = [{{ use = "Tracing" }}], env = {ENV} }}'
    first = read(text(layers=other))
    second = read(text(layers=other), first)
    assert second.policies[0] == first.policies[0]
    assert second.env is first.env is not first.policies[0].env  # type: ignore[attr-defined]


def asking(*names: str) -> str:
    """APIs that each have keys of their own, of which the tables say the same."""
    auth = '{ use = "APIKeyAuth", keys = { use = "MemoryKeys" } }'
    api = """
    [[apis]]
    name = "{0}"
    path = "/{0}"
    backend = {{ ref = "app" }}
    subscription_required = false
    policies = [{1}]
    """
    return "".join(api.format(name, auth) for name in names)


def keys_of(gateway: Gateway, name: str) -> Any:
    return next(api for api in gateway.apis if api.name == name).policies[0].keys  # type: ignore[attr-defined]


@pytest.mark.parametrize("later", [("shop",), ("shop", "admin"), ("new", "admin", "shop")])
def test_no_api_is_given_the_keys_of_another(later: tuple[str, ...]) -> None:
    """Tables were told apart by their order alone: who had a key of the one was let in by the other."""
    first = read(asking("admin", "shop"))
    second = read(asking(*later), first)
    assert keys_of(second, "shop") is keys_of(first, "shop")


def test_a_table_that_stands_in_the_place_of_others_is_none_of_them() -> None:
    one, two = (f'{{ use = "APIKeyAuth", header = "{each}", keys = {{ use = "MemoryKeys" }} }}' for each in "ab")
    first = read(text(layers=f"{one}, {two}"))
    second = read(text(layers=two), first)
    assert second.policies[0].keys not in [each.keys for each in first.policies]  # type: ignore[attr-defined]


def test_of_tables_that_change_places_none_is_the_other() -> None:
    one, two = (f'{{ use = "APIKeyAuth", header = "{each}", keys = {{ use = "MemoryKeys" }} }}' for each in "ab")
    first = read(text(layers=f"{one}, {two}"))
    second = read(text(layers=f"{two}, {one}"), first)
    kept = [each.keys for each in first.policies]  # type: ignore[attr-defined]
    assert not any(each.keys in kept for each in second.policies)  # type: ignore[attr-defined]


def test_of_a_table_that_stands_in_several_places_none_is_the_other() -> None:
    """An anchor of YAML: one table, and an object for each place."""
    yaml = """
    policies: [&auth {use: APIKeyAuth, keys: {use: MemoryKeys}}]
    apis:
      - {name: shop, path: /, backend: {ref: app}, subscription_required: false, policies: [*auth]}
    """
    first = loads(yaml, "yaml", names=NAMES)
    second = loads(yaml, "yaml", names=NAMES, after=first)
    assert second == first
    assert keys_of(second, "shop") is not first.policies[0].keys  # type: ignore[attr-defined]


def test_what_went_is_let_go_of() -> None:
    """It was held for as long as the next gateway served, a whole cache perhaps."""
    first = read(text())
    gone = weakref.ref(entries(first))
    second = read(text(env='{ use = "Env" }'), first)
    del first
    gc.collect()
    assert (gone(), second.env is None) == (None, False)


def test_a_transport_is_made_anew_when_its_authorities_are_others(authority: Path) -> None:  # noqa: F811
    """Files it names are read when it is made: renewed certificates were not taken over."""
    given = text(env=f'{{ use = "Env", transport = {{ use = "Http1Transport", ca = "{authority}" }} }}')
    first = read(given)
    same = read(given, first)
    authority.write_text(f"{authority.read_text()}\n# renewed\n")
    assert (same.env is first.env, read(given, first).env is first.env) == (True, False)


def test_another_object_of_the_same_name_is_a_change() -> None:
    given, clocks = text(env='{ use = "Env", clock = { ref = "clock" } }'), [_Clock(), _Clock()]
    first = read(given, names={**NAMES, "clock": clocks[0]})
    second = read(given, first, {**NAMES, "clock": clocks[1]})
    assert second.env is not None
    assert second.env.clock is clocks[1]


class _Clock:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0


async def test_a_limit_goes_on_when_a_file_with_an_environment_is_read_again() -> None:
    limit = '{ use = "RateLimit", calls = 1, per = 60 }'
    served = Reloadable(read(text(layers=limit)))
    assert (await call(served, path="/orders")).status == 200
    await served.reload(read(text(layers=limit), served.gateway))
    assert (await call(served, path="/orders")).status == 429


async def test_what_could_not_be_read_changes_nothing_of_what_is_kept() -> None:
    first = read(text())
    with pytest.raises(ConfigError):
        read(text(layers='{ use = "IPFilter", deni = [] }'), first)
    assert read(text(), first).env is first.env


@dataclass(frozen=True, kw_only=True)
class Peculiar(Policy):
    """One that checks what it is given in its own way."""

    size: int

    def __post_init__(self) -> None:
        raise {1: RuntimeError, 2: KeyError}[self.size]("large")


@pytest.mark.parametrize(("size", "told"), [(1, "RuntimeError: large"), (2, "KeyError: 'large'")])
def test_whatever_a_class_raises_is_a_mistake_with_its_place(size: int, told: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.policies\[0\]") as caught:
        read(text(layers=f'{{ use = "{__name__}:Peculiar", size = {size} }}'))
    assert told in str(caught.value)


def test_a_gateway_that_was_written_in_python_can_be_followed() -> None:
    before = Gateway(apis=read(text()).apis, policies=(RateLimit(calls=1, per=60),))
    assert read(text(), before).env is not None
