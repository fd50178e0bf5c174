"""Stored responses, and several that a request selects from."""

from apim_middleware._caching.pages import Stored, Variants
from apim_middleware._http.credentials import CREDENTIALS


def stored(body: bytes = b"body", *, fresh: float = 60.0, **more: object) -> Stored:
    headers = ((b"content-type", b"text/plain"), (b"etag", b'"\xe9"'))
    return Stored(200, headers, body, born=0.0, fresh=fresh, received=5.0, open_to=CREDENTIALS, **more)  # type: ignore[arg-type]


def variants(count: int, body: bytes = b"body") -> Variants:
    return Variants((b"x",), {(b"%d" % number,): stored(body, selecting=(b"x",)) for number in range(count)})


def test_a_request_selects_among_variants() -> None:
    page = Variants((b"x",), {(b"1",): stored(b"one"), (None,): stored(b"none")})
    chosen = [page.choose(headers) for headers in ([(b"x", b"1")], [], [(b"x", b"2")])]
    assert [each and each.body for each in chosen] == [b"one", b"none", None]


def test_too_many_variants_push_out_the_oldest() -> None:
    page = variants(3).joined_by((b"new",), stored(), most=3, max_bytes=1 << 20, now=0.0)
    assert list(page.found) == [(b"1",), (b"2",), (b"new",)]


def test_too_large_variants_push_out_the_oldest_but_not_the_last() -> None:
    room = variants(2, b"x" * 1000).size + 100
    page = variants(2, b"x" * 1000).joined_by((b"n",), stored(b"x" * 1000), most=9, max_bytes=room, now=0.0)
    assert list(page.found) == [(b"1",), (b"n",)]
    page = page.joined_by((b"huge",), stored(b"x" * 5000), most=9, max_bytes=room, now=0.0)
    assert list(page.found) == [(b"huge",)]


def test_stale_variants_leave_when_another_comes() -> None:
    page = Variants((b"x",), {(b"old",): stored(fresh=10.0)}).joined_by(
        (b"new",), stored(), most=9, max_bytes=1 << 20, now=10.0
    )
    assert list(page.found) == [(b"new",)]
