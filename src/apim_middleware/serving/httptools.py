"""How uvicorn is to read HTTP/1.1: a request ends where it says, and what follows its head is no part of that.

uvicorn gateway:app --http apim_middleware.serving.httptools:HttpToolsProtocol
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _HttpToolsProtocol

_VERSIONS = frozenset(("1.0", "1.1"))


class _Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: however many come, none is kept."""

    def append(self, line: tuple[bytes, bytes], /) -> None:
        """Drop it."""


_NOWHERE = _Nowhere()


class HttpToolsProtocol(_HttpToolsProtocol):
    """uvicorn's reader on httptools, which takes two things differently.

    It puts trailers among the headers, where nobody has judged them: here they end (RFC 9110 §6.5.1). Of a request that
    offers an upgrade it loses the body, and reads the rest of that as the next request: here such a request is
    refused, as is one of another version than HTTP/1 (RFC 9112 §6.3, RFC 9110 §7.8).
    """

    def on_headers_complete(self) -> None:
        """The head is there, and nothing more belongs to it."""
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("this is another version of HTTP")
        upgrades = self.parser.should_upgrade()
        if upgrades and self._announces_a_body():
            raise ValueError("an upgrade is offered with a body")
        super().on_headers_complete()
        if upgrades and self._should_upgrade():  # to a WebSocket, which reads them once more
            return
        self.headers = _NOWHERE  # those of the request are in its scope

    def _announces_a_body(self) -> bool:
        headers = dict(self.headers)
        return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""
