"""The example as a newcomer would run it, tried with the very lines it prints."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import PATIENCE, Running, free_port, program

EXAMPLE = Path(__file__).parents[2] / "examples" / "app_of_apps" / "main.py"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What it prints, once it serves and the remote app is there."""
    log, port = tmp_path_factory.mktemp("app_of_apps") / "log", free_port()
    ports = ["--port", str(port), "--stock-port", str(free_port())]
    with program([sys.executable, "-W", "error", str(EXAMPLE), *ports], port, log=log) as running:
        wait_for_stock(running)
        yield log.read_text()


def wait_for_stock(running: Running) -> None:
    give_up = time.monotonic() + PATIENCE
    while b"/stock/articles/{name}" not in running.talk(
        b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    ):
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_every_line_it_prints_shows_what_it_says(printed: str) -> None:
    blocks = re.findall(r"^# (\d{3}): (.*)\n(curl .*)$", printed, re.MULTILINE)
    variables = "\n".join(re.findall(r"^[A-Z]+='.*'$", printed, re.MULTILINE))
    assert len(blocks) == 8
    seen = {}
    for status, what, command in blocks:
        done = subprocess.run(
            ["bash", "-c", f"{variables}\n{command}"], capture_output=True, text=True, check=True, timeout=60
        )
        seen[what] = done.stdout
        told = re.findall(r"^(?:HTTP/1.1 )?(\d{3})\b", done.stdout, re.MULTILINE)
        assert told[-1] == status, (what, done.stdout)
    assert '"article":"paper"' in seen["an app of this process, which has started with it"]
    assert '"asked_by":"acme"' in seen["another, which is told who calls"]
    assert '"asked_by":"acme"' in seen["the remote one (503 until its document is there)"]
    everything, visitors = (json.loads(seen[what].rpartition("\n200")[0]) for what in list(seen)[-2:])
    assert set(everything["paths"]) == {
        "/orders", "/orders/{number}", "/customers/{name}", "/stock/articles/{name}",
    }  # fmt: skip
    assert set(visitors["paths"]) == {"/stock/articles/{name}"}
    assert {"200", "401", "429", "502"} <= set(everything["paths"]["/stock/articles/{name}"]["get"]["responses"])
