"""What statuses are called (RFC 9110 §15), and how people write several of them."""

import re
from http import HTTPStatus

_NAMED = re.compile("([1-5])xx|([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.IGNORECASE)

_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Python has their former names before 3.13."""


def phrase(status: int) -> str:
    """The phrase of a status, the same with every Python. Raises ValueError for one nobody has named."""
    return _RENAMED.get(status) or HTTPStatus(status).phrase


def statuses_named(text: str) -> range:
    """The statuses that a text names: ``404``, ``5xx`` or ``500-504``; none for what names none."""
    match = _NAMED.fullmatch(text)
    if match is None:
        return range(0)
    if match[1]:
        return range(int(match[1]) * 100, int(match[1]) * 100 + 100)
    return range(int(match[2]), int(match[3] or match[2]) + 1)
