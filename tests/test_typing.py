"""What users write passes ``mypy --strict``: this file is such code, and it runs."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from starlette.responses import PlainTextResponse, Response
from typing_extensions import override

from apim_middleware import Env, LimitGuesses, Policy, Quota, RateLimit, SetHeader, When, by, conditions
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Hooks, stated
from apim_middleware.testing import call
from apim_middleware.types import Tap

ROOT = Path(__file__).parents[1]


def told_by_mypy(file: Path) -> str:
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--hide-error-context", str(file)]
    checked = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.stderr == ""
    return checked.stdout


def test_mypy_has_nothing_to_say_of_this_file() -> None:
    assert told_by_mypy(Path(__file__)).startswith("Success")


BEGINNING = """
from collections.abc import Awaitable
from typing_extensions import override
from apim_middleware import Exchange, Policy
from apim_middleware.policy import Hooks

"""


@pytest.mark.parametrize("base", ["Policy", "Hooks"])
def test_a_hook_that_cannot_be_one_is_told_by_mypy(base: str, tmp_path: Path) -> None:
    """They were found by name alone, so that mypy could say nothing of them."""
    wrong = {
        "def on_request(self, exchange: Exchange) -> int: return 3": "[override]",
        "def on_request(self) -> None: ...": "[override]",
        "def on_request(self, exchange: Exchange, more: int) -> None: ...": "[override]",
        "async def on_request(self, exchange: Exchange) -> str: return ''": "[override]",
        "def on_request(self, exchange: str) -> None: ...": "[override]",
        "def on_response(self, exchange: Exchange) -> bytes: return b''": "[override]",
        "async def on_end(self, exchange: Exchange) -> None: ...": "[override]",
        "@override\n    def on_repsonse(self, exchange: Exchange) -> None: ...": "[misc]",
    }
    classes = [f"class Wrong{number}({base}):\n    {line}\n" for number, line in enumerate(wrong)]
    file = tmp_path / "wrong.py"
    file.write_text(BEGINNING + "\n".join(classes), "utf-8")
    errors = [line for line in told_by_mypy(file).splitlines() if ": error: " in line]
    assert [error.split()[-1] for error in errors] == list(wrong.values())


def test_the_hooks_of_what_a_policy_binds_are_held_to_their_shape() -> None:
    class Shouting(Hooks):
        __slots__ = ("ended",)

        def __init__(self) -> None:
            self.ended = 0

        @override
        async def on_request(self, exchange: Exchange) -> Response | None:
            return PlainTextResponse("short") if exchange.path == "/short" else None

        @override
        def on_response(self, exchange: Exchange) -> Tap | None:
            return None

        @override
        async def on_sent(self, exchange: Exchange) -> None: ...

        @override
        def on_end(self, exchange: Exchange) -> None:
            self.ended += 1

    shouting = Shouting()

    @dataclass(frozen=True, kw_only=True)
    class Shout(Policy):
        guards = False

        def bind(self, env: Env) -> Shouting:
            return shouting

    guarded = Shout()(PlainTextResponse("long"))
    assert anyio.run(call, guarded, "GET", "/short").body == b"short"
    assert anyio.run(call, guarded, "GET", "/").body == b"long"
    assert shouting.ended == 1  # the other was not let in


def test_a_hook_that_a_class_does_not_have_is_not_there() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Idle(Policy):
        pass

    assert [name for name in dir(Idle()) if name.startswith("on_")] == []
    assert Idle().guards is False


def test_every_condition_of_ours_says_what_a_limit_counts() -> None:
    told = conditions.any_of(conditions.failed, conditions.status(404))
    assert RateLimit(calls=3, per=60, count_when=conditions.status(401)).count_when is conditions.status(401)
    assert Quota(calls=3, period="day", count_when=told).count_when is told
    assert LimitGuesses(failed=conditions.all_of(conditions.status("4xx"), conditions.not_(told))).failures


def test_conditions_stand_wherever_a_condition_is_wanted() -> None:
    limit = RateLimit(calls=1, per=60, by=by.route(login=conditions.path("/login")))
    assert When(conditions.header("x-beta"), limit).layer == limit


def test_a_condition_of_ones_own_may_be_awaited() -> None:
    async def is_new(exchange: Exchange) -> bool:
        return exchange.method == "PUT"

    header = SetHeader(name="x-new", value="1", on="request")
    assert When(is_new, header).condition is is_new


def test_a_condition_of_ones_own_can_be_joined_with_ours() -> None:
    def is_new(exchange: Exchange) -> bool:
        return exchange.method == "PUT"

    joined: conditions.PlainCondition = conditions.any_of(is_new, conditions.is_websocket)
    assert joined is conditions.any_of(is_new, conditions.is_websocket)


def test_a_policy_of_ones_own_says_what_it_needs_once_and_for_all_or_by_its_fields() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Always(Policy):
        guards = True
        needs = frozenset({"client"})

    @dataclass(frozen=True, kw_only=True)
    class Sometimes(Policy):
        guards = False
        of: str = "principal"

        @stated
        def needs(self) -> frozenset[str]:
            return frozenset({self.of})

    policies: list[Policy] = [Always(), Sometimes(of="subscription")]
    assert [(each.guards, each.needs) for each in policies] == [
        (True, frozenset({"client"})),
        (False, frozenset({"subscription"})),
    ]
