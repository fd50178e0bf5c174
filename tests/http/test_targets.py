"""Where the references of a response lead, seen from the resource that was asked for."""

import pytest

from apim_middleware._http.targets import Resource, neighbour


def resource(path: str, raw: bytes | None) -> Resource:
    return b"a.example", ("http", "", path, raw, b"")


@pytest.mark.parametrize(
    ("path", "raw", "reference", "found"),
    [
        ("/a/b", b"/%61/b", b"c", ("/a/c", b"/%61/c")),
        ("/a/b", None, b"c", ("/a/c", b"/a/c")),
        ("/a/b", b"/a/b", b"/d", ("/d", b"/d")),
        ("/a/b", b"/a/b", b"../d", ("/d", b"/d")),
        ("/a/b", b"/a/b", b"http://A.example", ("/", b"/")),
        ("/a/b", b"/a/b", b"//a.example/d", ("/d", b"/d")),
    ],
)
def test_a_reference_is_read_from_where_the_request_went(
    path: str, raw: bytes | None, reference: bytes, found: tuple[str, bytes]
) -> None:
    assert neighbour(resource(path, raw), reference) == (b"a.example", ("http", "", *found, b""))


@pytest.mark.parametrize(
    "reference", [b"http://b.example/", b"https://a.example/", b"//b.example/", b"/a%2fb", b"/%ff"]
)
def test_what_is_elsewhere_or_cannot_be_read_is_no_neighbour(reference: bytes) -> None:
    assert neighbour(resource("/a/b", b"/a/b"), reference) is None
