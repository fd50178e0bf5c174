"""Whether a shared cache may keep a response, row by row of RFC 9111 §3."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.cache_control import (
    Directives,
    parse_directives,
)
from apim_middleware._http.credentials import CREDENTIALS
from apim_middleware._http.keeping import (
    NEVER_KEPT,
    REDIRECTIONS,
    STATUSES,
    UNDERSTOOD,
    Keeping,
    Terms,
    judge,
    kept_fields,
    selecting_fields,
    selection,
    shared_among,
)
from apim_middleware.types import RawHeaders

NOW = 1_800_000_000.0


def at(seconds: float) -> bytes:
    """The moment so many seconds from now, as an HTTP date."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()


def says(*cache_control: bytes) -> Directives:
    return parse_directives(cache_control)


def fields(**named: bytes) -> RawHeaders:
    """Header lines from keywords: ``cache_control=b"..."``."""
    return [(name.replace("_", "-").encode(), value) for name, value in named.items()]


def verdict(*headers: tuple[bytes, bytes], status: int = 200, **more: object) -> Keeping | str:
    terms = Terms(ttl=more.pop("ttl", None))  # type: ignore[arg-type]
    return judge(status, list(headers), received=NOW, terms=terms, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_a_status_that_is_cacheable_by_definition_is_kept_when_it_says_for_how_long(status: int) -> None:
    assert isinstance(verdict((b"cache-control", b"max-age=60"), status=status), Keeping)


@pytest.mark.parametrize("status", [100, 101, 201, 202, 206, 304, 400, 401, 403, 429, 500, 502, 503])
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
    ("status", "kept"), [(200, True), (302, True), (404, True), (403, True), (503, True), (599, False)]
)
def test_a_status_nobody_knows_is_not_kept_by_naming_it_where_it_must_be_understood(status: int, kept: bool) -> None:
    terms = Terms(statuses=frozenset({status}))
    for said in (b"must-understand, max-age=60", b"must-understand, no-store, max-age=60"):
        found = judge(status, [(b"cache-control", said)], received=NOW, terms=terms)
        assert isinstance(found, Keeping) if kept else found == "status"


@pytest.mark.parametrize("status", [206, 304, 428, 429, 431, 511])
def test_no_status_is_understood_that_may_never_be_kept(status: int) -> None:
    assert status not in UNDERSTOOD | STATUSES | REDIRECTIONS
    assert status in NEVER_KEPT


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
    assert isinstance(judge(status, headers, received=NOW, terms=Terms(ttl=60.0)), Keeping | str)


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


# By number, as the standards have them


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501])
def test_statuses_that_the_standards_call_cacheable_are_kept(status: int) -> None:
    """RFC 9110 §15.1, RFC 7725 §3."""
    assert isinstance(verdict((b"cache-control", b"max-age=60"), status=status), Keeping)


@pytest.mark.parametrize("status", [302, 303, 307])
def test_a_redirection_for_now_is_kept_when_it_says_for_how_long(status: int) -> None:
    assert isinstance(verdict((b"cache-control", b"max-age=60"), status=status), Keeping)
    assert verdict(status=status, ttl=60.0) == "no-freshness"


@pytest.mark.parametrize(
    ("status", "known"),
    [
        *((status, True) for status in (200, 205, 300, 303, 305, 307, 308, 400, 417, 421, 422, 426, 500, 505)),
        *((status, False) for status in (199, 206, 304, 306, 309, 399, 418, 420, 423, 425, 427, 499, 506)),
    ],
)
def test_a_status_is_understood_that_the_standard_explains(status: int, known: bool) -> None:
    """RFC 9110 §15, for responses that want their status to be understood (RFC 9111 §5.2.2.3)."""
    terms = Terms(statuses=frozenset({status}))
    found = judge(status, fields(cache_control=b"must-understand, max-age=60"), received=NOW, terms=terms)
    assert isinstance(found, Keeping) if known else found == "status"


def test_a_response_without_a_date_expires_by_the_time_it_was_received() -> None:
    for seconds in (60, 90):  # one after the other: what was said before is not remembered with its time
        kept = verdict((b"expires", at(seconds)))
        assert isinstance(kept, Keeping)
        assert kept.lifetime == seconds


@pytest.mark.parametrize("validator", [(b"etag", b'"1"'), (b"last-modified", at(-1000))])
def test_what_must_be_asked_for_each_time_is_kept_when_it_can_be(validator: tuple[bytes, bytes]) -> None:
    kept = verdict((b"cache-control", b"no-cache, max-age=60"), validator)
    assert isinstance(kept, Keeping)
    assert kept.lifetime == 0.0


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        (b",".join(b"t%d" % number for number in range(64)), True),
        (b",".join(b"t%d" % number for number in range(65)), False),
        (b"t" * 1024, True),
        (b"t" * 1025, False),
    ],
)
def test_what_could_not_be_taken_away_by_each_of_its_tags_is_not_kept(tags: bytes, kept: bool) -> None:
    found = verdict((b"cache-control", b"max-age=60"), (b"cache-tag", tags))
    assert isinstance(found, Keeping) if kept else found == "too-many-tags"


@pytest.mark.parametrize("name", [
    b"proxy-authentication-info", b"proxy-authorization", b"proxy-connection", b"ratelimit", b"ratelimit-policy",
    b"retry-after", b"te", b"trailer",
])  # fmt: skip
def test_no_field_for_one_caller_or_one_connection_is_kept(name: bytes) -> None:
    assert kept_fields([(name, b"1"), (b"etag", b'"1"')], says(b"max-age=60")) == ((b"etag", b'"1"'),)


@pytest.mark.parametrize("names", [16, 17])
def test_a_response_varies_by_so_many_fields_at_most(names: int) -> None:
    vary = [b",".join(b"x%d" % number for number in range(names))]
    assert (selecting_fields(vary) is None) is (names > 16)
