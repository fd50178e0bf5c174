"""The example does what its first lines promise."""

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.testing import call

EXAMPLE = Path(__file__).parents[2] / "examples" / "overload.py"


@pytest.fixture
def app() -> Any:
    return runpy.run_path(str(EXAMPLE))["app"]


async def statuses(app: Any, paths: list[str]) -> dict[str, Counter[int]]:
    """Ask for all these at once, in this order; which status each kind of path got how often."""
    found: dict[str, Counter[int]] = {path: Counter() for path in paths}

    async def ask(path: str) -> None:
        found[path][(await call(app, path=path)).status] += 1

    async with anyio.create_task_group() as tasks:
        for path in paths:
            tasks.start_soon(ask, path)
    return found


def test_of_many_at_once_some_are_done_and_the_others_turned_away(app: Any) -> None:
    seen = anyio.run(statuses, app, ["/suggestions/1"] * 100)["/suggestions/1"]
    assert set(seen) == {200, 503}
    assert seen[200] >= 10, "half of the first limit, which is 20"


def test_payments_pass_while_suggestions_are_turned_away(app: Any) -> None:
    seen = anyio.run(statuses, app, ["/suggestions/1"] * 100 + ["/payments/1"] * 5)
    assert seen["/payments/1"] == {200: 5}
    assert seen["/suggestions/1"][503] > 0


def test_of_reports_two_are_made_at_once_and_four_wait(app: Any) -> None:
    seen = anyio.run(statuses, app, ["/reports/2026"] * 20)["/reports/2026"]
    assert set(seen) == {200, 429}
    assert seen[200] >= 6
