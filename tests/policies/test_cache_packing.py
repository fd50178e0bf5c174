"""Stored responses as bytes, and whatever else bytes can be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._caching.packing import _checksum, fingerprint, pack, unpack
from apim_middleware._caching.pages import Stored, Variants
from apim_middleware._http.credentials import CREDENTIALS


def stored(body: bytes = b"body", *, fresh: float = 60.0, **more: object) -> Stored:
    headers = ((b"content-type", b"text/plain"), (b"etag", b'"\xe9"'))
    return Stored(200, headers, body, born=0.0, fresh=fresh, received=5.0, open_to=CREDENTIALS, **more)  # type: ignore[arg-type]


def test_what_is_packed_is_what_is_unpacked() -> None:
    page = unpack(pack(stored(b"\x00\xff"), b"key"), b"key")
    assert isinstance(page, Stored)
    assert (page.status, page.headers, page.body) == (200, stored().headers, b"\x00\xff")
    assert (page.born, page.fresh, page.received, page.open_to) == (0.0, 60.0, 5.0, CREDENTIALS)


def test_variants_are_unpacked_as_they_were_packed() -> None:
    page = Variants((b"x", b"y"), {(b"\xe9", None): stored(b"one"), (b"", b"2"): stored(b"")})
    again = unpack(pack(page, b"key"), b"key")
    assert isinstance(again, Variants)
    assert {said: each.body for said, each in again.found.items()} == {(b"\xe9", None): b"one", (b"", b"2"): b""}


def test_a_page_of_another_key_is_none() -> None:
    assert unpack(pack(stored(), b"mine"), b"yours") is None


PACKED = pack(stored(b"some body"), b"key")


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(PACKED)
    data[place] ^= change
    assert unpack(bytes(data), b"key") is None


@given(st.integers(0, len(PACKED) - 1))
def test_a_missing_end_is_noticed(length: int) -> None:
    assert unpack(PACKED[:length], b"key") is None


def test_something_more_at_the_end_is_noticed() -> None:
    assert unpack(PACKED + b"x", b"key") is None


@given(st.binary(max_size=200))
def test_garbage_is_none(data: bytes) -> None:
    assert unpack(data, b"key") is None
    assert unpack(PACKED[:5] + data, b"key") is None


def forged(**changes: object) -> bytes:
    """A page whose checksum is right and whose description is not what we write."""
    description = json.loads(PACKED[25:-9])
    description["responses"][0].update(changes)
    text = json.dumps({**description, **{key: changes[key] for key in changes if key in description}}).encode()
    return b"apim\x02" + _checksum(text, b"some body") + len(text).to_bytes(4, "big") + text + b"some body"


def test_a_page_that_is_only_written_differently_is_read() -> None:
    assert isinstance(unpack(forged(), b"key"), Stored)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": [["x", "a\r\nset-cookie: b=c"]]},
        {"headers": [["x y", "a"]]},
        {"headers": [["x", "\u0416"]]},
        {"headers": [["x", 1]]},
        {"headers": [["x"]]},
        {"headers": "abc"},
        {"headers": None},
        {"status": 206},
        {"status": "200"},
        {"status": [200]},
        {"length": -1},
        {"length": 8},
        {"length": 10**30},
        {"length": True},
        {"times": [0, float("nan"), 0, 0]},
        {"times": [0, float("inf"), 0, 0]},
        {"times": [0, 10**400, 0, 0]},
        {"stale": [0, 0]},
        {"stale": [float("inf"), 0, False]},
        {"stale": [0, 0, 1]},
        {"stale": ["a", 0, False]},
        {"tags": None},
        {"tags": [1]},
        {"tags": ["\u0416"]},
        {"status": 304},
        {"status": True},
        {"times": [0, 0]},
        {"open_to": ["everybody"]},
        {"open_to": [[]]},
        {"said": ["x"]},
        {"said": [[]]},
        {"said": None},
        {"selecting": ["x"]},
        {"selecting": 5},
        {"responses": []},
        {"responses": {}},
        {"responses": [5]},
        {"identity": None},
    ],
)
def test_a_forged_page_is_none(changes: dict[str, object]) -> None:
    assert unpack(forged(**changes), b"key") is None


def test_a_page_nested_too_deeply_is_none() -> None:
    text = b"[" * 200_000
    data = b"apim\x02" + _checksum(text, b"") + len(text).to_bytes(4, "big") + text
    assert unpack(data, b"key") is None


PARTS = st.lists(st.none() | st.binary(max_size=4) | st.text(alphabet=":-01é\ud800", max_size=4), max_size=4)


@given(PARTS, PARTS)
def test_different_parts_have_different_fingerprints(
    one: list[str | bytes | None], other: list[str | bytes | None]
) -> None:
    raw = [
        [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts]
        for parts in (one, other)
    ]
    assert (fingerprint(one) == fingerprint(other)) == (raw[0] == raw[1])
