"""Parts of a whole response, row by row of RFC 9110 §14."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.cache_ranges import UNSATISFIABLE, is_same, part_of, partial_fields, unsatisfied_fields


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=2-", (2, 10)),
        (b"bytes=-4", (6, 10)),
        (b"Bytes = 1-2 ", (1, 3)),
        (b"bytes=9-99999999999999999", (9, 10)),
        (b"bytes=10-10", UNSATISFIABLE),
        (b"bytes=-0", UNSATISFIABLE),
        (b"bytes=3-2", None),
        (b"bytes=-", None),
        (b"bytes=", None),
        (b"bytes=1-2,4-5", None),
        (b"items=1-2", None),
        (b"bytes=1-9999999999999999999", None),
        (b"", None),
    ],
)
def test_the_part_that_is_asked_for(asked: bytes, part: tuple[int, int] | None) -> None:
    assert part_of([asked], 10) == part


def test_two_fields_are_none_and_nothing_has_no_part() -> None:
    assert part_of([b"bytes=0-1", b"bytes=0-1"], 10) is None
    assert part_of([b"bytes=0-"], 0) == UNSATISFIABLE
    assert part_of([b"bytes=-5"], 0) == UNSATISFIABLE


@given(st.binary(max_size=30), st.integers(0, 50))
def test_a_part_is_within_the_whole(junk: bytes, size: int) -> None:
    for asked in (junk, b"bytes=" + junk):
        part = part_of([asked], size)
        assert part is None or part == UNSATISFIABLE or 0 <= part[0] < part[1] <= size


LM, DATE = b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT"


@pytest.mark.parametrize(
    ("condition", "headers", "same"),
    [
        (b'"a"', [(b"etag", b'"a"')], True),
        (b'"a"', [(b"etag", b'"b"')], False),
        (b'"a"', [(b"etag", b'W/"a"')], False),
        (b'W/"a"', [(b"etag", b'W/"a"')], False),
        (LM, [(b"last-modified", LM), (b"date", DATE)], True),
        (LM, [(b"last-modified", LM), (b"date", LM)], False),
        (LM, [(b"last-modified", LM)], False),
        (DATE, [(b"last-modified", LM), (b"date", DATE)], False),
        (b"junk", [(b"last-modified", b"junk")], False),
        (b"", [], False),
    ],
)
def test_whether_a_condition_means_what_is_kept(
    condition: bytes, headers: list[tuple[bytes, bytes]], same: bool
) -> None:
    assert is_same(condition, headers, 0.0) is same


def test_the_fields_of_a_part_and_of_none() -> None:
    headers = [(b"content-type", b"a/b"), (b"content-length", b"10"), (b"etag", b'"a"')]
    part = dict(partial_fields(headers, (2, 5), 10))
    assert part == {
        b"content-type": b"a/b", b"etag": b'"a"', b"content-range": b"bytes 2-4/10", b"content-length": b"3",
    }  # fmt: skip
    assert dict(unsatisfied_fields(headers, 10)) == {
        b"etag": b'"a"', b"content-range": b"bytes */10", b"content-length": b"0",
    }  # fmt: skip
