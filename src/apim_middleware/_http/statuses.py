"""What statuses are called (RFC 9110 §15)."""

from http import HTTPStatus

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
