"""One canonical target, or a reason why there is none."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.paths import BadTarget, canonical_path, canonical_query, is_plain


def canonical(raw: str, **options: bool) -> tuple[str, bytes]:
    return canonical_path(unquote(raw), raw.encode("latin-1"), **options)


@pytest.mark.parametrize(
    ("sent", "path", "raw"),
    [
        ("/", "/", b"/"),
        ("/a/b", "/a/b", b"/a/b"),
        ("/a/", "/a/", b"/a/"),
        ("//a", "/a", b"/a"),
        ("/a//b///c", "/a/b/c", b"/a/b/c"),
        ("/caf%C3%A9", "/café", b"/caf%C3%A9"),
        ("/%2561dmin", "/%61dmin", b"/%2561dmin"),
        ("/a%3fadmin=1", "/a?admin=1", b"/a%3fadmin=1"),
        ("/a%20b", "/a b", b"/a%20b"),
        ("/a;x=1/b", "/a;x=1/b", b"/a;x=1/b"),
        ("/.well-known/x", "/.well-known/x", b"/.well-known/x"),
        ("/...", "/...", b"/..."),
        ("/ADMIN", "/ADMIN", b"/ADMIN"),
        ("/a|b", "/a|b", b"/a%7Cb"),
    ],
)
def test_one_form_for_everybody(sent: str, path: str, raw: bytes) -> None:
    assert canonical(sent) == (path, raw)


@pytest.mark.parametrize(
    "sent",
    [
        "/public/../admin", "/public/%2e%2e/admin", "/public/.%2E/admin", "/./admin", "/admin/.", "/admin/..", "/..",
        "/public/..;/admin", "/public/..;x=1/admin", "/public/..%2fadmin", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b",
        "/a%00b", "/a%0d%0aX:1", "/a%7f", "/a%zz", "/a%", "/a%2", "/%c0%ae", "/%ff", "/a#b", "admin", "", "http://evil/adm",
        "*",
    ],
)  # fmt: skip
def test_what_could_be_read_two_ways_is_refused(sent: str) -> None:
    with pytest.raises(BadTarget):
        canonical(sent)


def test_raw_bytes_beyond_ascii_are_encoded_for_the_wire() -> None:
    assert canonical_path("/café", "/café".encode()) == ("/café", b"/caf%C3%A9")


def test_encoded_slashes_stay_encoded_for_policies_and_app_when_kept() -> None:
    assert canonical("/a%2Fb/c", keep_encoded_slashes=True) == ("/a%2Fb/c", b"/a%2Fb/c")


@pytest.mark.parametrize("escape", ["%2f", "%2F", "%5c", "%5C"])
def test_slashes_and_backslashes_are_kept_however_they_were_escaped(escape: str) -> None:
    kept = f"/a{escape}b"
    assert canonical(kept, keep_encoded_slashes=True) == (kept, kept.encode())


@pytest.mark.parametrize(
    "sent", ["/public/..%2fadmin", "/public%2f..%2fadmin", "/public/..%5cadmin", "/x/%2e%2e%2fadmin", "/.%2fadmin"]
)
def test_no_dot_segment_hides_behind_a_kept_slash(sent: str) -> None:
    with pytest.raises(BadTarget):
        canonical(sent, keep_encoded_slashes=True)


def test_kept_slashes_stay_kept_the_second_time() -> None:
    path, raw = canonical("/a%2Fb", keep_encoded_slashes=True)
    assert canonical_path(path, raw, keep_encoded_slashes=True) == (path, raw)


def test_a_path_changed_by_a_layer_wins_over_the_bytes_left_behind() -> None:
    assert canonical_path("/new", b"/old") == ("/new", b"/new")


def test_a_query_in_the_raw_path_is_left_out() -> None:
    assert canonical_path("/a", b"/a?x=1") == ("/a", b"/a")


def test_a_server_without_raw_path_gets_one() -> None:
    assert canonical_path("/a b", None) == ("/a b", b"/a%20b")


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(BadTarget):
        canonical_path("/\udcff", None)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters="\\%"), min_size=1))
def test_canonical_paths_are_fixed_points_and_both_forms_agree(text: str) -> None:
    sent = quote("/" + text, safe="/")
    try:
        path, raw = canonical(sent)
    except BadTarget:
        return
    assert canonical_path(path, raw) == (path, raw)
    assert unquote(raw.decode()) == path


@given(st.binary(max_size=30))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    """No other error, whatever the server let in."""
    try:
        path, raw = canonical_path(data.decode("latin-1"), data)
    except BadTarget:
        return
    assert raw.isascii()
    assert "//" not in path
    assert path.startswith("/")


@given(st.binary(max_size=20).map(lambda tail: b"/" + tail))
def test_the_glance_agrees_with_the_long_look(raw: bytes) -> None:
    path = raw.decode("latin-1")
    if is_plain(path, raw):
        assert canonical_path(path, raw) == (path, raw)


@pytest.mark.parametrize(
    ("path", "raw", "plain"),
    [
        ("/", b"/", True),
        ("/a0Z9z-._~!$&'()*+,;=:@/b", b"/a0Z9z-._~!$&'()*+,;=:@/b", True),
        ("/a", None, False),
        ("a", b"a", False),
        ("", b"", False),
        ("//a", b"//a", False),
        ("/.a", b"/.a", False),
        ("/a", b"/b", False),
        ("/a?b", b"/a?b", False),
        ("/a#b", b"/a#b", False),
        ("/a%41", b"/a%41", False),
        ("/a\\b", b"/a\\b", False),
        ("/a b", b"/a b", False),
        ("/é", "/é".encode(), False),
    ],
)
def test_only_what_everybody_reads_alike_is_plain_at_a_glance(path: str, raw: bytes | None, plain: bool) -> None:
    assert is_plain(path, raw) is plain


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [(b"a=1&b=%20", b"a=1&b=%20"), (b"", b""), (b"a=\xc3\xa9", b"a=%C3%A9"), (b"a=\xff", b"a=%FF"), (b"%zz", b"%zz")],
)
def test_queries_pass_byte_for_byte_but_for_what_needs_encoding(sent: bytes, canonical: bytes) -> None:
    assert canonical_query(sent) == canonical


@pytest.mark.parametrize("sent", [b"a\x00", b"a\r\nb", b"a b", b"a#b", b"\x7f"])
def test_controls_in_a_query_are_refused(sent: bytes) -> None:
    with pytest.raises(BadTarget):
        canonical_query(sent)
