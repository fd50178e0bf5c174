"""How fresh and how old a response is, and when it may answer, row by row of RFC 9111 §4."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.cache_control import (
    ANYTHING,
    FOREVER,
    Wishes,
    parse_directives,
)
from apim_middleware._http.freshness import (
    age_value,
    freshness_lifetime,
    heuristic_lifetime,
    initial_age,
    not_modified,
    not_modified_fields,
    unfit,
)
from apim_middleware.types import RawHeaders

NOW = 1_800_000_000.0
JUNK = st.lists(st.binary(max_size=60), max_size=4)


def at(seconds: float) -> bytes:
    """The moment so many seconds from now, as an HTTP date."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()


def fields(**named: bytes) -> RawHeaders:
    """Header lines from keywords: ``cache_control=b"..."``."""
    return [(name.replace("_", "-").encode(), value) for name, value in named.items()]


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        (fields(cache_control=b"max-age=60"), 60),
        (fields(cache_control=b"s-maxage=60"), 60),
        (fields(cache_control=b"max-age=3600, s-maxage=1"), 1),
        (fields(cache_control=b"s-maxage=3600, max-age=1"), 3600),
        (fields(cache_control=b"s-maxage=x, max-age=60"), 0),
        (fields(cache_control=b"max-age=60", expires=b"0"), 60),
        (fields(cache_control=b"max-age=0", expires=at(60)), 0),
        (fields(cache_control=b"max-age=x", expires=at(60)), 0),
        (fields(cache_control=b"public"), None),
        (fields(expires=at(60)), 60),
        (fields(expires=at(60), date=at(0)), 60),
        (fields(expires=at(60), date=at(-40)), 100),
        (fields(expires=at(60), date=at(40)), 20),
        (fields(expires=at(60), date=b"yesterday"), 60),
        (fields(expires=at(300), date=at(400)), 0),
        (fields(expires=at(0), date=at(0)), 0),
        (fields(expires=at(-60)), 0),
        (fields(expires=b"0"), 0),
        (fields(expires=b""), 0),
        (fields(expires=b"Thu, 18 Aug 2050 02:01:18 UTC"), 0),
        (fields(expires=b"Fri, 31 Dec 9999 23:59:59 GMT"), FOREVER),
        ([(b"expires", at(60)), (b"expires", at(60))], 60),
        ([(b"expires", at(60)), (b"expires", at(90))], 0),
        ([], None),
    ],
)
def test_how_long_a_shared_cache_may_call_a_response_fresh(headers: RawHeaders, lifetime: float | None) -> None:
    directives = parse_directives([value for name, value in headers if name == b"cache-control"])
    assert freshness_lifetime(directives, headers, NOW) == lifetime


@pytest.mark.parametrize(
    ("lines", "age"),
    [
        ([b"30"], 30),
        ([b"0"], 0),
        ([b" 30 "], 30),
        ([b"7200, 0"], 7200),
        ([b"0, 7200"], 0),
        ([b"7200", b"0"], 7200),
        ([b"99999999999999999999"], FOREVER),
        ([b"-7200"], 0),
        ([b"7200.0"], 0),
        ([b"abc"], 0),
        ([b""], 0),
        ([], 0),
    ],
)
def test_the_first_member_of_age_counts_and_junk_does_not(lines: list[bytes], age: int) -> None:
    assert age_value(lines) == age


@pytest.mark.parametrize(
    ("headers", "delay", "age"),
    [
        ([], 0.0, 0),
        ([], 2.0, 2),
        (fields(age=b"10"), 0.0, 10),
        (fields(age=b"10"), 2.0, 12),
        (fields(date=at(-20)), 0.0, 20),
        (fields(date=at(-20), age=b"10"), 2.0, 20),
        (fields(date=at(-20), age=b"30"), 2.0, 32),
        (fields(date=at(500)), 0.0, 0),
        (fields(date=b"junk", age=b"junk"), 1.0, 1),
    ],
)
def test_how_old_a_response_is_when_it_comes(headers: RawHeaders, delay: float, age: float) -> None:
    assert initial_age(headers, NOW, delay) == age


# Whether it may answer a request


@pytest.mark.parametrize(
    ("wished", "age", "lifetime", "why"),
    [
        (ANYTHING, 0, 60, None),
        (ANYTHING, 59.9, 60, None),
        (ANYTHING, 60, 60, "stale"),
        (ANYTHING, 0, 0, "stale"),
        (Wishes(no_cache=True), 0, 60, "request"),
        (Wishes(no_cache=True), 61, 60, "stale"),
        (Wishes(max_age=10), 10, 60, None),
        (Wishes(max_age=10), 10.1, 60, "request"),
        (Wishes(max_age=0), 0.1, 60, "request"),
        (Wishes(min_fresh=20), 40, 60, None),
        (Wishes(min_fresh=20), 41, 60, "request"),
        (Wishes(no_store=True), 10, 60, None),
        (Wishes(only_if_cached=True), 10, 60, None),
    ],
)
def test_whether_a_stored_response_may_answer(wished: Wishes, age: float, lifetime: float, why: str | None) -> None:
    assert unfit(wished, age, lifetime) == why


# Conditional requests

STORED = fields(etag=b'"a,b"', last_modified=at(-100), date=at(-50), content_type=b"text/plain")


@pytest.mark.parametrize(
    ("none_match", "since", "matches"),
    [
        ([b'"a,b"'], None, True),
        ([b'W/"a,b"'], None, True),
        ([b'"x", "a,b"'], None, True),
        ([b'"x"', b'"a,b"'], None, True),
        ([b"*"], None, True),
        ([b'"a"'], None, False),
        ([b"a,b"], None, False),
        ([b'"A,B"'], None, False),
        ([b'"'], None, False),
        ([b'"a,b" "x"'], None, True),
        ([b""], None, False),
        ([b'"x"'], at(0), False),
        ([b'"a,b"'], at(-1000), True),
        ([], at(-100), True),
        ([], at(-99), True),
        ([], at(-101), False),
        ([], b"yesterday", False),
        ([], at(0) + b", " + at(0), False),
    ],
)
def test_whether_304_answers(none_match: list[bytes], since: bytes | None, matches: bool) -> None:
    assert not_modified(none_match, since, STORED, NOW) is matches


def test_what_is_no_tag_matches_nothing() -> None:
    """ETag and the cache read them alike (RFC 9110 §8.8.3)."""
    assert not not_modified([b'"a b"'], None, fields(etag=b'"a b"'), NOW)


def test_a_weak_tag_matches_its_strong_form() -> None:
    assert not_modified([b'"x"'], None, fields(etag=b'W/"x"'), NOW)


@pytest.mark.parametrize(
    ("headers", "since", "matches"),
    [
        (fields(date=at(-50)), -50, True),
        (fields(date=at(-50)), -51, False),
        ([], 0, True),
        ([], -1, False),
        (fields(last_modified=b"junk", date=at(-50)), -50, True),
    ],
)
def test_without_last_modified_the_date_counts_or_when_it_came(headers: RawHeaders, since: int, matches: bool) -> None:
    assert not_modified([], at(since), headers, NOW) is matches


def test_a_304_says_nothing_of_content_it_does_not_have() -> None:
    headers = fields(etag=b'"x"', content_type=b"a/b", content_length=b"5", content_location=b"/x", vary=b"a")
    assert [name for name, _ in not_modified_fields(headers)] == [b"etag", b"content-location", b"vary"]


@given(JUNK, st.binary(max_size=40), st.binary(max_size=20))
def test_comparing_validators_never_fails(none_match: list[bytes], since: bytes, etag: bytes) -> None:
    assert not_modified(none_match, since, [(b"etag", etag)], NOW) in (True, False)


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        (fields(last_modified=at(-1000)), 100.0),
        (fields(last_modified=at(-1000), date=at(-200)), 80.0),
        (fields(last_modified=at(0)), 0.0),
        (fields(last_modified=at(1000)), 0.0),
        (fields(last_modified=at(-100_000_000)), 86_400.0),
        (fields(last_modified=b"yesterday"), None),
        (fields(date=at(-200)), None),
    ],
)
def test_a_lifetime_is_guessed_from_the_last_change(headers: RawHeaders, lifetime: float | None) -> None:
    """§4.2.2, a tenth of the time since then, a day at most."""
    assert heuristic_lifetime(headers, NOW, 0.1) == lifetime
