"""Environments: what may be given to one, and what could not work with any request."""

from typing import Any

import pytest

from apim_middleware.env import Env, SystemClock
from apim_middleware.errors import ConfigError
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.testing import FakeClock


@pytest.mark.parametrize(
    ("field", "given", "cure"),
    [
        ("counters", "redis://:hunter2@localhost", "methods of Counters: hit, peek, settle, assign, reset"),
        ("counters", MemoryCounters, r"Write Env\(counters=MemoryCounters\(\.\.\.\)\)"),
        ("counters", MemoryPermits(), "methods of Counters"),
        ("counters", 5, "methods of Counters"),
        ("permits", MemoryCounters(), "methods of Permits: acquire, release"),
        ("entries", MemoryCounters(), "methods of Entries"),
        ("transport", "http://localhost", "methods of Transport"),
        ("clock", 5, "methods of Clock: now, monotonic"),
        ("clock", FakeClock, r"Write Env\(clock=FakeClock\(\.\.\.\)\)"),
        ("hygiene", "strict", "Give Hygiene"),
        ("place", 5, 'place="orders"'),
        ("place", None, 'place="orders"'),
    ],
)
def test_what_cannot_be_used_is_a_mistake(field: str, given: Any, cure: str) -> None:
    """Found by an audit: each was taken, and every request was answered with 500."""
    with pytest.raises(ConfigError, match=rf"Env\.{field}: .*{cure}") as caught:
        Env(**{field: given})
    assert "hunter2" not in str(caught.value)


def test_a_name_that_is_none_is_told_with_the_one_that_is() -> None:
    with pytest.raises(ConfigError, match=r"Env\.clok: no such field .* Did you mean clock\?"):
        Env(clok=FakeClock())  # type: ignore[call-arg]


class _Own(Env):
    def __init__(self, url: str) -> None:
        super().__init__(place=url)


def test_an_environment_of_another_kind_may_be_given_something_else() -> None:
    assert _Own("a").place == _Own(url="a").place == "a"


class _NotCallable(MemoryPermits):
    release = "later"  # type: ignore[assignment]


def test_what_is_no_method_is_none() -> None:
    with pytest.raises(ConfigError, match=r"Env\.permits"):
        Env(permits=_NotCallable())


class _Behind:
    """Hands everything on, as a wrapper that counts or traces would."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    "fields",
    [
        {"counters": _Behind(MemoryCounters())},
        {"permits": _Behind(MemoryPermits()), "entries": _Behind(MemoryEntries())},
        {"clock": SystemClock},  # whose methods are those of the class
        {"clock": None, "counters": None, "place": ""},
    ],
)
def test_what_has_the_methods_can_be_used(fields: dict[str, Any]) -> None:
    assert Env(**fields).clock.now() > 0
