"""What the fields of a transport may hold: mistakes are found while building, and named."""

from functools import partial

import pytest

from apim_middleware.errors import ConfigError
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.transports.http1 import Http1Transport
from apim_middleware.transports.httpx import HttpxTransport
from apim_middleware.transports.httpx2 import Httpx2Transport

NAN, INF = float("nan"), float("inf")


async def later(address):
    return False


class Later:
    async def __call__(self, address):
        return False


COUNTS = [None, True, False, -1, 1.5, NAN, INF, "5", b"5", (), [5]]
SECONDS = [None, True, -1, -0.5, NAN, -INF, 10**400, "4", b"4", ()]
TEXTS = [0, 5, True, "", b"x", (), ["x"]]
JUDGES = [True, 5, "x", (), lambda: True, lambda address, port: True, later, Later(), partial(later)]

ODD = {
    "max_connections": [*COUNTS, 0],
    "max_idle": COUNTS,
    "idle": SECONDS,
    "uds": TEXTS,
    "admits": JUDGES,
}
ODD_HTTP1 = {
    **ODD,
    "max_waiting": COUNTS,
    "ca": [*TEXTS, "a\0b"],
    "cert": [*TEXTS, "a\0b", ("a",), ("a", 5), ("a", "b", "c")],
    "server_name": [*TEXTS, ".a", "a..b", "a\0b", "a" * 300],
}
ODD_HTTPX = {**ODD, "http2": [None, 0, 1, "", "yes", ()]}


@pytest.mark.parametrize(
    ("kind", "field", "odd"),
    [
        (kind, field, odd)
        for kind, fields in (
            (Http1Transport, ODD_HTTP1),
            (HttpxTransport, ODD_HTTPX),
            (Httpx2Transport, ODD_HTTPX),
            (DefaultTransport, {"admits": JUDGES}),
        )
        for field, values in fields.items()
        for odd in values
    ],
)
def test_a_mistake_names_class_and_field(kind, field, odd):
    with pytest.raises(ConfigError, match=rf"^{kind.__name__}\.{field}: "):
        kind(**{field: odd})


@pytest.mark.parametrize("kind", [Http1Transport, HttpxTransport, Httpx2Transport])
@pytest.mark.parametrize("idle", [0, 4, 0.5, INF])
def test_connections_may_be_kept_for_any_time_there_is(kind, idle):
    kind(idle=idle)
