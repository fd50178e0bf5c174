"""The targeted field CDN-Cache-Control: a dictionary of structured fields, or nothing (RFC 9213)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.cache_targeted import targeted_directives


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([b"max-age=60"], 60),
        ([b"max-age=60;x=1, no-transform"], 60),
        ([b"max-age=60", b"public"], 60),
        ([b"max-age=1, max-age=60"], 60),
        ([b"a=(1 2);b, max-age=60"], 60),
        ([b'a="b, c", max-age=60'], 60),
        ([b"max-age=-60"], 0),
        ([b'max-age="60"'], None),
        ([b"max-age=6.5"], None),
        ([b"max-age"], None),
        ([b"no-store"], None),
    ],
)
def test_what_it_says_of_time(lines: list[bytes], seconds: int | None) -> None:
    directives = targeted_directives(lines)
    assert directives is not None
    assert directives.seconds(b"max-age") == seconds


@pytest.mark.parametrize(
    "lines",
    [
        [], [b""], [b"  "], [b"max-age = 60"], [b"Max-Age=60"], [b"max-age=60,"], [b"max-age=60 public"], [b"max-age="],
        [b'max-age="'], [b"max-age=60;"], [b"x" * 5000], [b"\xff"], [b",max-age=60"],
    ],
)  # fmt: skip
def test_one_mistake_and_it_is_none(lines: list[bytes]) -> None:
    assert targeted_directives(lines) is None


def test_directives_for_the_whole_and_for_fields() -> None:
    directives = targeted_directives([b'private="a, b", no-cache, no-store=?0'])
    assert directives is not None
    assert directives.fields(b"private") == {b"a", b"b"}
    assert directives.entire(b"no-cache")
    assert b"no-store" not in directives


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_reading_never_fails(lines: list[bytes]) -> None:
    targeted_directives(lines)
