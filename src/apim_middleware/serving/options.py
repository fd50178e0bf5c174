"""How uvicorn is to be run in front of policies."""

from importlib.util import find_spec
from typing import Any


def uvicorn_options(**others: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever uvicorn takes
    """What to give ``uvicorn.run`` and ``uvicorn.Config``: the reader of this package, and no ideas of its own.

    ``TrustedProxies`` decides whom to believe. Without httptools (``uvicorn[standard]`` has it) h11 reads requests.
    When it is told to end, requests under way have 30 seconds. Options that are given go along, or take the place.
    """
    return {
        "http": "apim_middleware.serving.httptools:HttpToolsProtocol" if find_spec("httptools") else "h11",
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": 30,
        **others,
    }
