"""Cache-Control, row by row of RFC 9111 §5.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.cache_control import (
    FOREVER,
    Directives,
    Wishes,
    delta_seconds,
    parse_directives,
    wishes,
)
from apim_middleware.types import RawHeaders

JUNK = st.lists(st.binary(max_size=60), max_size=4)


def says(*cache_control: bytes) -> Directives:
    return parse_directives(cache_control)


def fields(**named: bytes) -> RawHeaders:
    """Header lines from keywords: ``cache_control=b"..."``."""
    return [(name.replace("_", "-").encode(), value) for name, value in named.items()]


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([b"max-age=60"], 60),
        ([b"MaX-aGe=60"], 60),
        ([b'max-age="60"'], 60),
        ([b'max-age="6\\0"'], 60),
        ([b"max-age=0060"], 60),
        ([b"foobar, max-age=60"], 60),
        ([b"  ,, max-age=60  ,"], 60),
        ([b"no-transform", b"max-age=60"], 60),
        ([b"max-age=60, max-age=60"], 60),
        ([b"max-age=2147483648"], FOREVER),
        ([b"max-age=99999999999"], FOREVER),
        ([b"max-age=" + b"9" * 5000], FOREVER),
        ([b"max-age=" + b"0" * 5000 + b"7"], 7),
        ([b"max-age=0"], 0),
        ([b"max-age"], 0),
        ([b"max-age="], 0),
        ([b'max-age=""'], 0),
        ([b"max-age=-60"], 0),
        ([b"max-age=+60"], 0),
        ([b"max-age=60.0"], 0),
        ([b"max-age=6 0"], 0),
        ([b"max-age=a60"], 0),
        ([b"max-age=60a"], 0),
        ([b"max-age='60'"], 0),
        ([b'max-age="60'], 0),
        ([b"max-age =60"], 0),
        ([b"max-age= 60"], 0),
        ([b"max-age=\xd9\xa6"], 0),
        ([b"max-age=1, max-age=60"], 0),
        ([b"max-age=60", b"max-age=1"], 0),
        ([b'x="max-age=60"'], None),
        ([b'x="a, max-age=60, b"'], None),
        ([b'x="\\", max-age=60", y'], None),
        ([b"s-maxage=60"], None),
        ([b"x-max-age=60"], None),
        ([], None),
    ],
)
def test_a_time_is_read_as_the_rfc_says_and_is_zero_when_it_cannot_be_read(
    lines: list[bytes], seconds: int | None
) -> None:
    assert parse_directives(lines).seconds(b"max-age") == seconds


@pytest.mark.parametrize(
    ("line", "entire", "named"),
    [
        (b"private", True, set()),
        (b"private=", True, set()),
        (b'private=""', True, set()),
        (b'private="a b"', True, set()),
        (b'private="a, , b"', True, set()),
        (b'private="a", private', True, set()),
        (b'private ="a"', True, set()),
        (b'private="Set-Cookie"', False, {b"set-cookie"}),
        (b"private=set-cookie", False, {b"set-cookie"}),
        (b'private="a, B ,c"', False, {b"a", b"b", b"c"}),
        (b'private="a", private="b"', False, {b"a", b"b"}),
        (b"public", False, set()),
    ],
)
def test_a_directive_is_for_the_whole_response_unless_it_names_fields(
    line: bytes, entire: bool, named: set[bytes]
) -> None:
    assert (says(line).entire(b"private"), says(line).fields(b"private")) == (entire, named)


@pytest.mark.parametrize("lines", [[b'x="a, no-store'], [b'x="a\\'], [b'"'], [b'a="x', b'no-store, b="y']])
def test_a_quotation_that_never_ends_breaks_the_field_and_hides_no_directive_on_another_line(
    lines: list[bytes],
) -> None:
    assert parse_directives(lines).broken


def test_no_directive_hides_between_two_quotations_that_never_end() -> None:
    assert b"no-store" in says(b'a="x', b'no-store, b="y')


def test_a_quotation_that_never_ends_is_read_once_however_many_escaped_quotes_follow() -> None:
    directives = says(b'x="' + b'\\"' * 1_000_000 + b", no-store")
    assert directives.broken
    assert b"no-store" in directives


@given(JUNK)
def test_reading_directives_never_fails(lines: list[bytes]) -> None:
    seconds = parse_directives(lines).seconds(b"max-age")
    assert seconds is None or 0 <= seconds <= FOREVER


@given(st.text(alphabet='"\\,= \tamx-ge01no-store', max_size=40))
def test_reading_what_looks_like_directives_never_fails(line: str) -> None:
    directives = says(line.encode())
    assert (b"no-store" in directives) == (directives.entire(b"no-store") or bool(directives.fields(b"no-store")))


@given(st.integers(0, 10**40))
def test_seconds_are_capped_and_otherwise_exact(number: int) -> None:
    assert delta_seconds(b"%d" % number) == min(number, FOREVER)


# What a request asks


@pytest.mark.parametrize(
    ("cache_control", "pragma", "wished"),
    [
        ([], [], Wishes()),
        ([b"no-cache"], [], Wishes(no_cache=True)),
        ([b"no-store"], [], Wishes(no_store=True)),
        ([b"max-age=5, min-fresh=7"], [], Wishes(max_age=5, min_fresh=7)),
        ([b"only-if-cached"], [], Wishes(only_if_cached=True)),
        ([b"max-age=x"], [], Wishes(max_age=0)),
        ([b"max-stale=100"], [], Wishes(max_stale=100)),
        ([b"max-stale"], [], Wishes(max_stale=FOREVER)),
        ([b"max-stale=x"], [], Wishes()),
        ([b"stale-if-error=600"], [], Wishes(stale_if_error=600)),
        ([b"stale-if-error"], [], Wishes()),
        ([], [b"no-cache"], Wishes(no_cache=True)),
        ([], [b"No-Cache"], Wishes(no_cache=True)),
        ([b"max-age=5"], [b"no-cache"], Wishes(max_age=5)),
        ([b""], [b"no-cache"], Wishes()),
        ([b"x" * 500 + b", no-cache"], [], Wishes(no_cache=True)),
    ],
)
def test_what_a_request_asks_of_a_cache(cache_control: list[bytes], pragma: list[bytes], wished: Wishes) -> None:
    assert wishes(cache_control, pragma) == wished


@given(JUNK, JUNK)
def test_reading_wishes_never_fails(cache_control: list[bytes], pragma: list[bytes]) -> None:
    assert isinstance(wishes(cache_control, pragma), Wishes)
