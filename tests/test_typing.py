"""What users write passes ``mypy --strict``: this file is such code, and it runs."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from apim_middleware import LimitGuesses, Policy, Quota, RateLimit, SetHeader, When, by, conditions
from apim_middleware.exchange import Exchange
from apim_middleware.policy import stated

ROOT = Path(__file__).parents[1]


def test_mypy_has_nothing_to_say_of_this_file() -> None:
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", __file__]
    checked = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


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
