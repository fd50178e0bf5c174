"""The gateway of the hostile tests: the upstream learns of each request what the policies saw of it."""

import os

from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.types import ASGIApp


class Witness(Policy):
    """Tells the upstream what it saw."""

    def on_request(self, exchange: Exchange) -> None:
        """Once for each request that gets past hygiene."""
        exchange.set_header("x-seen", f"{exchange.method} {exchange.path[:50]}")


def gateway(origin: str) -> ASGIApp:
    """A stack in front of a proxy."""
    return Stack(Witness())(Proxy(origin))


def made() -> ASGIApp:
    """The same for servers in a process of their own."""
    return gateway(os.environ["APIM_TEST_ORIGIN"])
