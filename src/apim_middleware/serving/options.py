"""How uvicorn is to be run in front of policies."""

from importlib.util import find_spec
from typing import Any


def uvicorn_options(**others: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever uvicorn takes
    """What to give ``uvicorn.run`` and ``uvicorn.Config``: the reader of this package, and no ideas of its own.

    ``TrustedProxies`` decides whom to believe. Without httptools (``uvicorn[standard]`` has it), and under a version of
    uvicorn that the reader does not fit, h11 reads requests.
    When it is told to end, requests under way have 30 seconds. Idle connections are kept for longer than front servers
    keep theirs, so that none is closed just as a request comes. Options that are given go along, or take the place.
    """
    return {
        "http": "apim_middleware.serving.httptools:HttpToolsProtocol" if find_spec("httptools") else "h11",
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": 30,
        "timeout_keep_alive": 130,  # Caddy keeps them for 120 seconds, nginx and load balancers for 60
        **others,
    }


def dates_what_has_none() -> bool:
    """Whether uvicorn with these options leaves the date of a response that has one; its own readers add another."""
    if find_spec("httptools") is None:
        return False
    from apim_middleware.serving.httptools import HttpToolsProtocol

    return HttpToolsProtocol.__module__ == "apim_middleware.serving._reader"
