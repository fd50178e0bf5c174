"""What stands in front of an app is told as it stands there: layer by layer, the outer one outside."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from apim_middleware import (
    Authorize,
    BasicAuth,
    Choose,
    Fragment,
    JWTAuth,
    LimitBody,
    MemoryUsers,
    RateLimit,
    RequireHeader,
    Stack,
    When,
    conditions,
)
from apim_middleware.documentation import (
    Answer,
    Asked,
    Documentation,
    Scheme,
    Told,
    api_key,
    documentation_of,
    either,
    together,
)

JWT = JWTAuth(issuer="i", audience="a", keys=b"s" * 32, algorithms=("HS256",), scopes="read")
BASIC = BasicAuth(users=MemoryUsers())
BEARER = Scheme("JWTAuth", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}, ("read",))
NAMES = st.sampled_from("abc")
METHODS = st.sampled_from([(), ("GET",), ("GET", "HEAD")])
SCHEMES = st.builds(Scheme, NAMES, st.sampled_from([{"type": "http"}, {"type": "apiKey"}]), st.tuples(NAMES))
DOCUMENTATIONS = st.builds(
    Documentation,
    security=st.lists(st.lists(SCHEMES, max_size=2).map(tuple), min_size=1, max_size=2, unique_by=repr).map(tuple),
    answers=st.lists(
        st.builds(Answer, st.sampled_from([401, 429]), st.tuples(NAMES), st.just(()), METHODS), max_size=3
    ).map(tuple),
    headers=st.lists(st.builds(Told, NAMES, METHODS), unique=True, max_size=3).map(tuple),
    asks=st.lists(st.builds(Asked, NAMES), unique=True, max_size=3).map(tuple),
)


@settings(max_examples=50)
@given(DOCUMENTATIONS, DOCUMENTATIONS, DOCUMENTATIONS)
def test_stacks_of_stacks_tell_what_one_stack_tells(a: Documentation, b: Documentation, c: Documentation) -> None:
    left, right = a.before(b).before(c), a.before(b.before(c))
    assert [unordered(each) for each in left.answers] == [unordered(each) for each in right.answers]
    assert (left.headers, left.asks) == (right.headers, right.asks)
    assert [as_sets(each) for each in left.security] == [as_sets(each) for each in right.security]


def unordered(answer: Answer) -> tuple[object, ...]:
    return answer.status, answer.codes, set(answer.headers), answer.methods


def as_sets(way: tuple[Scheme, ...]) -> dict[str, set[str]]:
    return {f"{each.name} {each.definition}": set(each.scopes) for each in way}


@given(DOCUMENTATIONS)
def test_what_says_nothing_changes_nothing(a: Documentation) -> None:
    nothing = Documentation()
    assert nothing.before(a).answers == a.before(nothing).answers == a.answers
    assert nothing.before(a).headers == a.headers


def test_a_stack_tells_what_its_policies_tell() -> None:
    limit = RateLimit(calls=1, per=1)
    told = Stack(limit, Stack(JWT)).documentation
    assert told == limit.documentation.before(JWT.documentation)
    assert "ratelimit" in next(each.headers for each in told.answers if each.status == 401)


def test_scopes_are_wanted_of_whoever_was_let_in_further_out() -> None:
    (way,) = Stack(JWT, Authorize(scopes="write")).documentation.security
    assert way == (replace_scopes(BEARER, "read", "write"),)
    (way,) = Stack(BASIC, Authorize(scopes="write")).documentation.security
    assert way[0].scopes == ()


def replace_scopes(scheme: Scheme, *scopes: str) -> Scheme:
    return scheme._replace(scopes=scopes)


def test_credentials_that_are_optional_leave_the_door_open() -> None:
    told = replace(JWT, optional=True).documentation
    assert told.security == ((BEARER,), ())
    assert "token-missing" not in told.answers[0].codes


def test_what_only_some_requests_meet_is_optional() -> None:
    asked = RequireHeader(name="x-a")
    told = When(conditions.path("/a"), Stack(JWT, asked)).documentation
    assert told.security == ((BEARER,), ())
    assert told.asks == (Asked("x-a"),)


def test_of_a_choice_every_branch_is_told() -> None:
    told = Choose((conditions.path("/a"), JWT), otherwise=BASIC).documentation
    assert [way[0].name for way in told.security] == ["JWTAuth", "BasicAuth"]


def test_layers_that_tell_nothing_tell_nothing() -> None:
    assert documentation_of(lambda app: app) == documentation_of(None) == Documentation()
    assert together([]) == either([]) == Documentation()


def test_what_is_for_some_methods_is_for_no_others() -> None:
    told = LimitBody(max_bytes=1).documentation.only("POST")
    assert told.of("POST").answers == told.answers
    assert told.of("GET").answers == ()


def test_a_key_names_its_place() -> None:
    assert api_key("k", "cookie", "sid", "words").definition == {
        "type": "apiKey",
        "in": "cookie",
        "name": "sid",
        "description": "words",
    }


def test_fragments_tell_what_is_in_them() -> None:
    assert documentation_of(Fragment("f", (JWT,))) == JWT.documentation
