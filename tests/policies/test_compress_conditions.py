"""Conditions on representations with a coding: weak tags stay weak, and a 304 varies as the 200 does."""

import pytest

from apim_middleware.policies.compress import Compress
from apim_middleware.testing import call
from apim_middleware.types import RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio

TAG = (b"etag", b'"7"')


class Unchanged:
    """An app that says that the client has what it wants."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers: RawHeaders = list(headers)
        self.seen: list[bytes | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(dict(scope["headers"]).get(b"if-match"))
        await send({"type": "http.response.start", "status": 304, "headers": self.headers})
        await send({"type": "http.response.body", "body": b""})


async def test_a_weak_tag_does_not_become_strong_without_its_coding() -> None:
    app = Unchanged()
    await call(Compress()(app), "PUT", headers=[(b"if-match", b'W/"7--gzip"')])
    assert app.seen == [b'W/"7--gzip", W/"7"']


@pytest.mark.parametrize("headers", [[TAG], [TAG, (b"content-type", b"text/plain")], []])
async def test_a_304_varies_as_the_200_does(headers: RawHeaders) -> None:
    answer = await call(Compress()(Unchanged(*headers)), headers=[(b"if-none-match", b'"7"')])
    assert answer.header(b"vary") == b"Accept-Encoding"


@pytest.mark.parametrize(
    "field", [(b"content-type", b"image/png"), (b"cache-control", b"no-transform"), (b"content-encoding", b"br")]
)
async def test_a_304_for_what_is_never_encoded_does_not(field: tuple[bytes, bytes]) -> None:
    answer = await call(Compress()(Unchanged(TAG, field)), headers=[(b"if-none-match", b'"7"')])
    assert answer.header(b"vary") is None
