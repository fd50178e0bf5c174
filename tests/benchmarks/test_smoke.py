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
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


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


@pytest.mark.parametrize("count", ["1 limit", "3 limits"])
def test_counters_in_redis_are_compared(redis: str, count: str) -> None:
    assert f"| {count} " in redis
    assert "| RedisCounters, sliding " in redis


@pytest.fixture(scope="module")
def redis() -> str:
    return printed("redis")


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "log", "bucket", "calendar"])
def test_counters_in_a_file_are_compared(algorithm: str, sqlite: str) -> None:
    assert f"| SQLiteCounters, {algorithm} " in sqlite


@pytest.fixture(scope="module")
def sqlite() -> str:
    return printed("sqlite")


@pytest.mark.parametrize("title", ["1,000 units may pass", "The busiest stretch"])
def test_what_passes_is_compared(exactness: str, title: str) -> None:
    assert f"\n{title}" in exactness


@pytest.mark.parametrize("counted", ["SQLiteCounters, fixed", "RedisCounters, fixed", "LimitsCounters on Redis, fixed"])
def test_processes_at_once_let_pass_exactly_the_limit(exactness: str, counted: str) -> None:
    [line] = [line for line in exactness.partition("The busiest")[0].splitlines() if line.startswith(f"| {counted} ")]
    assert [cell.strip() for cell in line.split("|")[2:4]] == ["1,000", "+0"]


@pytest.fixture(scope="module")
def exactness() -> str:
    return printed("exactness")


@pytest.mark.parametrize("title", ["A limit hit in memory", "The longest hit"])
def test_the_limiters_are_compared(limits: str, title: str) -> None:
    assert f"\n{title}" in limits


@pytest.mark.parametrize(
    "limiter", ["a bare dict", "MemoryCounters, fixed", "MemoryCounters, log", "limits FixedWindow"]
)
def test_every_limiter_bears_the_fewest_keys(limits: str, limiter: str) -> None:
    row = next(line for line in limits.splitlines() if line.startswith(f"| {limiter}"))
    assert float(row.split("|")[2]) > 0


@pytest.fixture(scope="module")
def limits() -> str:
    return printed("limits")


@pytest.mark.parametrize("title", ["Hit ratio on Zipf traffic", "Microseconds of CPU"])
def test_what_shelves_find_is_compared(eviction: str, title: str) -> None:
    assert f"\n{title}" in eviction


@pytest.fixture(scope="module")
def eviction() -> str:
    return printed("eviction")


@pytest.mark.parametrize("title", ["A hit in process", "Cold: 50 requests at once", "Served: a cached route"])
def test_caches_are_compared(cache: str, title: str) -> None:
    assert f"\n{title}" in cache
    assert "| Cache " in cache


@pytest.fixture(scope="module")
def cache() -> str:
    return printed("cache")


def test_limits_on_a_route_are_compared() -> None:
    assert "\n| RateLimit, sliding" in printed("guarded")


@pytest.mark.parametrize("row", ["JWTAuth, seen before", "JWTAuth, first time", "PyJWT, decode", "50 tokens"])
def test_tokens_are_compared(tokens: str, row: str) -> None:
    assert f"| {row} " in tokens


@pytest.fixture(scope="module")
def tokens() -> str:
    return printed("tokens")


@pytest.mark.parametrize(
    "title", ["Proxies, one core each", "Proxies at half load", "Proxies as connections grow", "Proxies, bodies"]
)
def test_the_proxies_are_compared(proxy: str, title: str) -> None:
    assert f"\n{title}" in proxy


@pytest.mark.parametrize("server", ["nginx", "Apache httpd", "Caddy", "Proxy on uvicorn", "... behind seven policies"])
def test_every_proxy_answers(proxy: str, server: str) -> None:
    row = next(line for line in proxy.splitlines() if line.startswith(f"| {server} "))
    assert float(row.split("|")[2].replace(",", "")) > 0


@pytest.fixture(scope="module")
def proxy() -> str:
    return printed("proxy")


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


@pytest.mark.parametrize("row", ["match and identify", "Starlette's router alone", "100 operations, 10 products"])
def test_what_a_gateway_costs_is_told(gateway: str, row: str) -> None:
    assert f"| {row} " in gateway


@pytest.fixture(scope="module")
def gateway() -> str:
    return printed("gateway")
