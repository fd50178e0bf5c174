"""The rules of RFC 9111, row by row."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.freshness import (
    ANYTHING,
    CREDENTIALS,
    FOREVER,
    STATUSES,
    Directives,
    Keeping,
    Wishes,
    age_value,
    carried_in,
    delta_seconds,
    freshness_lifetime,
    http_date,
    initial_age,
    judge,
    kept_fields,
    not_modified,
    not_modified_fields,
    parse_directives,
    selecting_fields,
    selection,
    shared_among,
    unfit,
    wishes,
)
from apim_middleware.types import RawHeaders

NOW = 1_800_000_000.0
JUNK = st.lists(st.binary(max_size=60), max_size=4)


def at(seconds: float) -> bytes:
    """The moment so many seconds from now, as an HTTP date."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()


def says(*cache_control: bytes) -> Directives:
    return parse_directives(cache_control)


def fields(**named: bytes) -> RawHeaders:
    """Header lines from keywords: ``cache_control=b"..."``."""
    return [(name.replace("_", "-").encode(), value) for name, value in named.items()]


def verdict(*headers: tuple[bytes, bytes], status: int = 200, **more: object) -> Keeping | str:
    return judge(status, list(headers), received=NOW, **more)  # type: ignore[arg-type]


# Cache-Control


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


# Dates


@pytest.mark.parametrize(
    "text",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"SUN, 06 NOV 1994 08:49:37 gmt",
        b"sunday, 06-nov-94 08:49:37 gMT",
    ],
)
def test_each_form_of_a_date_is_understood_in_any_case(text: bytes) -> None:
    assert http_date(text, NOW) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        b"-1",
        b"now",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov  1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:00 GMT",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
    ],
)
def test_what_is_no_date_is_none(text: bytes) -> None:
    assert http_date(text, NOW) is None


def test_a_leap_second_is_the_last_of_its_minute() -> None:
    assert http_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == http_date(b"Sat, 31 Dec 2016 23:59:59 GMT", NOW)


@pytest.mark.parametrize(("digits", "year"), [(94, 1994), (27, 2027), (77, 2077), (78, 1978)])
def test_a_year_of_two_digits_is_at_most_fifty_years_ahead(digits: int, year: int) -> None:
    text = b"Sunday, 06-Nov-%d 08:49:37 GMT" % digits
    assert http_date(text, NOW) == datetime(year, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()


@given(st.binary(max_size=40))
def test_reading_a_date_never_fails(text: bytes) -> None:
    assert isinstance(http_date(text, NOW), float | None)


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - made aware below
def test_a_date_written_is_the_date_read(when: datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    text = f"Mon, {when:%d %b} {when.year:04d} {when:%H:%M:%S} GMT"
    assert http_date(text.encode(), NOW) == when.timestamp()


# Freshness and age


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
        ([b"max-stale=100"], [], Wishes()),
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


# Which requests get the same response


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ([], ()),
        ([b""], ()),
        ([b"Accept-Encoding"], (b"accept-encoding",)),
        ([b"b, A", b"a,,b"], (b"a", b"b")),
        ([b"*"], None),
        ([b"*, *"], None),
        ([b"", b"*"], None),
        ([b"Foo, *"], None),
        ([b"a b"], None),
        ([b"a\xff"], None),
        ([b",".join(b"x%d" % number for number in range(17))], None),
    ],
)
def test_the_fields_a_response_varies_by(vary: list[bytes], names: tuple[bytes, ...] | None) -> None:
    assert selecting_fields(vary) == names


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([(b"foo", b"1")], [(b"foo", b"1")], True),
        ([(b"foo", b"1")], [(b"foo", b"2")], False),
        ([(b"foo", b"1")], [(b"foo", b"A")], False),
        ([(b"foo", b"")], [], False),
        ([], [(b"bar", b"1")], True),
        ([(b"foo", b"1, 2")], [(b"foo", b"1"), (b"foo", b"2")], True),
        ([(b"foo", b" 1 ")], [(b"foo", b"1")], True),
        ([(b"foo", b'"a,b"')], [(b"foo", b'"a, b"')], False),
        ([(b"accept-language", b"en, de")], [(b"accept-language", b"EN,de")], True),
        ([(b"accept-language", b"en, de")], [(b"accept-language", b"de, en")], False),
        ([(b"accept-encoding", b"gzip, br")], [(b"accept-encoding", b"br,gzip")], True),
        ([(b"accept-encoding", b"gzip; q=1.0")], [(b"accept-encoding", b"gzip;q=1.0")], True),
        ([(b"accept", b'text/html;x="a, B"')], [(b"accept", b'text/html;x="a,b"')], False),
    ],
)
def test_selecting_fields_are_compared_as_their_syntax_allows(one: RawHeaders, other: RawHeaders, same: bool) -> None:
    names = (b"accept", b"accept-encoding", b"accept-language", b"foo")
    assert (selection(names, one) == selection(names, other)) is same


# Whether a response may be kept


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_a_status_that_is_cacheable_by_definition_is_kept_when_it_says_for_how_long(status: int) -> None:
    assert isinstance(verdict((b"cache-control", b"max-age=60"), status=status), Keeping)


@pytest.mark.parametrize("status", [100, 101, 201, 202, 206, 302, 303, 304, 307, 400, 401, 403, 429, 500, 502, 503])
def test_other_statuses_are_not_kept(status: int) -> None:
    assert verdict((b"cache-control", b"public, max-age=60"), status=status) == "status"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (fields(cache_control=b"no-store, max-age=60"), "no-store"),
        (fields(cache_control=b"No-StOrE, max-age=60"), "no-store"),
        (fields(cache_control=b'no-store="x", max-age=60'), "no-store"),
        (fields(cache_control=b"private, max-age=60"), "private"),
        (fields(cache_control=b"private, public, max-age=60"), "private"),
        (fields(cache_control=b"no-cache, max-age=60"), "no-cache"),
        (fields(cache_control=b'max-age=60, x="'), "bad-cache-control"),
        (fields(cache_control=b"max-age=60", set_cookie=b"a=b"), "set-cookie"),
        (fields(cache_control=b"public, max-age=60", set_cookie=b"a=b"), "set-cookie"),
        (fields(cache_control=b'no-cache="set-cookie", max-age=60', set_cookie=b"a=b"), "set-cookie"),
        (fields(cache_control=b"max-age=60", vary=b"*"), "vary"),
        (fields(cache_control=b"max-age=60", content_type=b"text/event-stream"), "event-stream"),
        (fields(cache_control=b"max-age=60", content_type=b"Text/Event-Stream; charset=utf-8"), "event-stream"),
        (fields(cache_control=b"public"), "no-freshness"),
        (fields(etag=b'"x"', last_modified=at(-1000)), "no-freshness"),
        (fields(cache_control=b"max-age=0"), "stale"),
        (fields(cache_control=b"max-age=nonsense"), "stale"),
        (fields(expires=b"0"), "stale"),
        (fields(cache_control=b"max-age=10", age=b"15"), "stale"),
        (fields(cache_control=b"max-age=10", date=at(-15)), "stale"),
        (fields(date=at(-10), expires=at(10), age=b"25"), "stale"),
        (fields(date=at(10), expires=at(20), age=b"15"), "stale"),
    ],
)
def test_why_a_response_is_not_kept(headers: RawHeaders, reason: str) -> None:
    assert verdict(*headers) == reason


def test_a_status_whose_rules_are_understood_may_be_kept_despite_no_store() -> None:
    assert isinstance(verdict((b"cache-control", b"must-understand, no-store, max-age=60")), Keeping)
    assert verdict((b"cache-control", b"must-understand, no-store, max-age=60"), status=206) == "status"


@pytest.mark.parametrize(
    ("status", "headers", "lifetime"),
    [
        (200, [], 30),
        (200, fields(cache_control=b"public"), 30),
        (200, fields(cache_control=b"max-age=5"), 5),
        (200, fields(pragma=b"x"), 30),
    ],
)
def test_a_configured_time_is_for_what_does_not_say(status: int, headers: RawHeaders, lifetime: float) -> None:
    kept = verdict(*headers, status=status, ttl=30.0)
    assert isinstance(kept, Keeping)
    assert kept.lifetime == lifetime


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (404, [], "no-freshness"),
        (301, [], "no-freshness"),
        (200, fields(expires=b"0"), "stale"),
        (200, fields(cache_control=b"max-age=x"), "stale"),
        (200, fields(pragma=b"no-cache"), "no-cache"),
        (200, fields(cache_control=b"no-store"), "no-store"),
        (200, fields(set_cookie=b"a=b"), "set-cookie"),
    ],
)
def test_a_configured_time_is_for_nothing_else(status: int, headers: RawHeaders, reason: str) -> None:
    assert verdict(*headers, status=status, ttl=30.0) == reason


@pytest.mark.parametrize(
    ("cache_control", "selecting", "shared"),
    [
        (b"max-age=60", (), set()),
        (b"max-age=60, public", (), CREDENTIALS),
        (b"s-maxage=60", (), CREDENTIALS),
        (b"max-age=60, must-revalidate", (), {"authorization"}),
        (b"max-age=60, proxy-revalidate", (), set()),
        (b"max-age=60", (b"cookie",), {"cookie"}),
        (b"max-age=60", (b"authorization",), set()),
    ],
)
def test_what_a_response_says_of_sharing(cache_control: bytes, selecting: tuple[bytes, ...], shared: set[str]) -> None:
    assert shared_among(says(cache_control), selecting) == shared


@pytest.mark.parametrize("credential", sorted(CREDENTIALS))
def test_what_came_with_a_credential_is_not_kept_unless_it_is_for_all(credential: str) -> None:
    carried = frozenset({credential})
    assert verdict((b"cache-control", b"max-age=60"), carried=carried) == credential
    assert verdict(carried=carried, ttl=60.0) == credential
    assert isinstance(verdict((b"cache-control", b"public, max-age=60"), carried=carried), Keeping)


def test_what_says_how_long_it_is_fresh_is_for_every_request_and_what_does_not_for_those_without_credentials() -> None:
    explicit, assumed = verdict((b"cache-control", b"max-age=60")), verdict(ttl=60.0)
    assert isinstance(explicit, Keeping)
    assert isinstance(assumed, Keeping)
    assert (explicit.open_to, assumed.open_to) == (CREDENTIALS, frozenset())


@pytest.mark.parametrize(
    ("names", "carried"),
    [
        ([b"host", b"accept"], set()),
        ([b"authorization"], {"authorization"}),
        ([b"proxy-authorization"], {"authorization"}),
        ([b"cookie", b"x-api-key"], {"cookie", "key"}),
    ],
)
def test_the_credentials_in_a_request(names: list[bytes], carried: set[str]) -> None:
    assert carried_in(names) == carried


def test_fields_of_the_connection_and_those_a_directive_names_are_not_kept() -> None:
    headers = [
        (b"connection", b"a, close"), (b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4"), (b"age", b"5"),
        (b"keep-alive", b"x"), (b"transfer-encoding", b"chunked"), (b"proxy-authenticate", b"x"), (b"upgrade", b"x"),
    ]  # fmt: skip
    assert kept_fields(headers, says(b'no-cache="b", private="c"')) == ((b"d", b"4"),)


@given(st.integers(100, 599), st.lists(st.tuples(st.sampled_from(
    [b"cache-control", b"expires", b"date", b"age", b"vary", b"pragma", b"connection", b"content-type"]
), st.binary(max_size=40))))  # fmt: skip
def test_judging_never_fails(status: int, headers: RawHeaders) -> None:
    assert isinstance(judge(status, headers, received=NOW, ttl=60.0), Keeping | str)


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
