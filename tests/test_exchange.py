"""The exchange as policies read it."""

import pytest

from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.testing import Answer, http_scope

LINES = [(b"x-units", b"2"), (b"x-units", b"3")]


@pytest.mark.parametrize("name", [b"x-units", b"X-Units", "x-units", "X-Units"])
def test_fields_are_found_by_their_name_however_it_is_written(name: bytes | str) -> None:
    """Text and capitals found nothing, in silence: a condition on them held always, or never."""
    exchange, head = Exchange(http_scope(headers=LINES)), ResponseHead(200, LINES)
    answer = Answer([{"type": "http.response.start", "status": 200, "headers": [(b"X-Units", b"2"), LINES[1]]}])
    assert [exchange.header(name), head.get(name), answer.header(name)] == [b"2"] * 3
    assert [exchange.headers(name), head.get_all(name), answer.all(name)] == [[b"2", b"3"]] * 3


@pytest.mark.parametrize("name", ["x units", "", "x-ünits", "x:"])
def test_text_that_can_be_the_name_of_no_field_is_a_mistake(name: str) -> None:
    for ask in (Exchange(http_scope()).header, ResponseHead(200, ()).get):
        with pytest.raises(ValueError, match="not a header name"):
            ask(name)
