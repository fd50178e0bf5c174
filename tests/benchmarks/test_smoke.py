"""The benchmarks run, in small: what they print has every table, and every case in it."""

import asyncio
import contextlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def printed(*arguments: str) -> str:
    """What a run in small prints; warnings are a person's to see there, not errors."""
    command = [sys.executable, "-W", "default", str(RUN), *arguments, "--smoke"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("job", ["pass through", "add a request header", "add a request and a response header"])
def test_the_layers_are_compared(layers: str, job: str) -> None:
    assert f"To {job}: microseconds for each request" in layers


@pytest.fixture(scope="module")
def layers() -> str:
    return printed("layers")


@pytest.mark.parametrize("title", ["In process", "The stack as it grows", "Served", "IPFilter", "Tracing", "Imported"])
def test_the_stack_is_compared(stack: str, title: str) -> None:
    assert f"\n{title}" in stack


def test_every_rate_is_one(stack: str) -> None:
    assert "nan" not in stack
    assert "| seven policies on FastAPI " in stack


@pytest.fixture(scope="module")
def stack() -> str:
    return printed("stack")


def test_rates_are_counted_without_wrk(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(RUN.with_name("load.py")))["main"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        writer.close()

    async def measured() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await main(2, 0.02, f"http://127.0.0.1:{port}/", [])

    asyncio.run(measured())
    failed, rate = capsys.readouterr().out.splitlines()
    assert int(failed.removeprefix("Non-2xx or 3xx responses: ")) > 0
    assert float(rate.removeprefix("Requests/sec: ")) > 0
