"""Asking whether a stored response still holds, row by row of RFC 9111 §4.3."""

import pytest

from apim_middleware._http.cache_validation import conditions_on, freshened, has_validator, is_of

TAG, DATE = (b"etag", b'"a"'), (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT")


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ([TAG], [(b"if-none-match", b'"a"')]),
        ([DATE], [(b"if-modified-since", DATE[1])]),
        ([DATE, TAG], [(b"if-none-match", b'"a"'), (b"if-modified-since", DATE[1])]),
        ([], []),
    ],
)
def test_the_conditions_that_are_asked(stored: list[tuple[bytes, bytes]], asked: list[tuple[bytes, bytes]]) -> None:
    assert conditions_on(stored) == asked
    assert has_validator(stored) is bool(asked)


@pytest.mark.parametrize(
    ("said", "stored", "same"),
    [
        ([], [TAG], True),
        ([TAG], [TAG], True),
        ([(b"etag", b'W/"a"')], [TAG], True),
        ([(b"etag", b'"b"')], [TAG], False),
        ([TAG, (b"etag", b'"b"')], [TAG], False),
        ([DATE], [DATE], True),
        ([DATE], [(b"last-modified", b"Sun, 06 Nov 1994 08:49:38 GMT")], False),
        ([TAG], [DATE], False),
    ],
)
def test_whether_a_304_tells_of_what_is_kept(
    said: list[tuple[bytes, bytes]], stored: list[tuple[bytes, bytes]], same: bool
) -> None:
    assert is_of(said, stored) is same


def test_what_it_says_takes_the_place_of_what_was_kept_but_not_what_belongs_to_the_body() -> None:
    stored = [(b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"1"), (b"content-length", b"9"), (b"content-type", b"a/b")]
    said = [(b"x-a", b"3"), (b"content-length", b"0"), (b"content-type", b"c/d"), (b"x-c", b"1")]
    assert freshened(stored, said) == [
        (b"x-b", b"1"), (b"content-length", b"9"), (b"content-type", b"a/b"), (b"x-a", b"3"), (b"x-c", b"1"),
    ]  # fmt: skip
