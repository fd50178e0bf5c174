"""Gateways on the servers people run them on: in a thread of the tests, or in a process of its own."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers import Running, free_port, program, serving

from apim_middleware.exchange import Exchange
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.types import ASGIApp


class Witness(Policy):
    """Tells the upstream what it saw."""

    def on_request(self, exchange: Exchange) -> None:
        """Once for each request that gets past hygiene."""
        exchange.set_header("x-seen", f"{exchange.method} {exchange.path[:50]}")


def witnessed(origin: str) -> ASGIApp:
    """The upstream learns of each request what the policies saw of it."""
    return Stack(Witness())(Proxy(origin))


def one_at_a_time(origin: str) -> ASGIApp:
    """Requests are let in one after the other."""
    return Stack(LimitConcurrency(at_once=1))(Proxy(origin))


READER = "apim_middleware.serving.httptools:HttpToolsProtocol"
SERVERS = (READER, "httptools", "h11", "granian")
GATEWAYS = {"witnessed": witnessed, "one_at_a_time": one_at_a_time}
_GRANIAN = (sys.executable, "-m", "granian", "--interface", "asgi", "--no-log", "--loop", "asyncio", "--http", "1")


@contextlib.contextmanager
def fronted(server: str, gateway: str, origin: str, folder: Path) -> Iterator[Running]:
    """A gateway on uvicorn with one of its readers, or on granian."""
    if server != "granian":
        with serving(GATEWAYS[gateway](origin), http=server) as front:
            yield front
        return
    port, environment = free_port(), {**os.environ, "APIM_TEST_GATEWAY": gateway, "APIM_TEST_ORIGIN": origin}
    where = ("--factory", "--port", str(port), "--working-dir", str(Path(__file__).parents[2]))
    command = [*_GRANIAN, *where, "tests.proxy.gateways:made"]
    with program(command, port, log=folder / f"granian-{port}", environment=environment) as front:
        yield front


def made() -> ASGIApp:
    """What granian serves."""
    return GATEWAYS[os.environ["APIM_TEST_GATEWAY"]](os.environ["APIM_TEST_ORIGIN"])
