"""What statuses are called does not depend on the Python."""

from http import HTTPStatus

import pytest

from apim_middleware._http.statuses import phrase
from apim_middleware.errors import Refusal

NAMED = [
    (400, "Bad Request"), (404, "Not Found"), (429, "Too Many Requests"), (503, "Service Unavailable"),
    (413, "Content Too Large"), (414, "URI Too Long"), (416, "Range Not Satisfiable"), (422, "Unprocessable Content"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "words"), NAMED)
def test_a_status_has_the_phrase_of_the_standard(status: int, words: str) -> None:
    assert phrase(status) == words
    assert Refusal(status, "some-code").title == words


def test_every_status_python_knows_has_a_phrase() -> None:
    assert all(map(phrase, HTTPStatus))


def test_a_status_nobody_has_named_has_none() -> None:
    with pytest.raises(ValueError, match="499"):
        phrase(499)
