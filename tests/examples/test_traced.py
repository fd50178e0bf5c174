"""The example prints what its first lines promise."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "traced.py"
ASK = """
import runpy, sys
from starlette.testclient import TestClient
client = TestClient(runpy.run_path(sys.argv[1])["app"])
headers = {"traceparent": sys.argv[3]} if sys.argv[3:] else {}
print(client.get(sys.argv[2], headers=headers).status_code)
"""
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def console(path: str, *traceparent: str) -> list[str]:
    """What stands on the console after one request: a line for each span, then the status."""
    command = [sys.executable, "-c", ASK, str(EXAMPLE), path, *traceparent]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_request_is_one_span_with_the_work_of_the_app_within():
    inner, outer, status = console("/orders/7?access_token=secret")
    assert status == "200"
    assert "'look up'" in inner
    assert "'GET /orders/{number}'" in outer
    assert inner.split()[0] == outer.split()[0]
    assert "url.query=access_token=REDACTED" in outer
    assert "secret" not in inner + outer


@pytest.mark.parametrize(("path", "name"), [("/orders/0", "'GET /orders/{number}'"), ("/elsewhere", "'GET'")])
def test_what_is_not_found_is_named_by_its_route_or_not_at_all(path: str, name: str):
    *_, outer, status = console(path)
    assert status == "404"
    assert name in outer


def test_the_health_check_leaves_no_line():
    assert console("/health") == ["200"]


def test_the_trace_of_a_caller_goes_on():
    *spans, status = console("/orders/7", CALLER)
    assert status == "200"
    assert [span.split()[0] for span in spans] == ["4bf92f3577b34da6a3ce929d0e0e4736"] * 2
