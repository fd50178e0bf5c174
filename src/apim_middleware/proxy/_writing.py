"""The request as the upstream gets it: what a proxy passes on of a request, and what it says of its own."""

import re
import secrets
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from apim_middleware._http import hops
from apim_middleware._http.addresses import parse_address
from apim_middleware._http.headers import header_value, raw_headers, without
from apim_middleware._http.lines import are_names, check_values, checked
from apim_middleware._http.paths import BadTarget, canonical_path, is_plain
from apim_middleware.conditions import routed_path
from apim_middleware.errors import Refusal
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.types import RawHeaders, Scope

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9.])?")
_TARGET = re.compile(rb"\*|/[!-\"$-~]*")
_ENCODED_SLASH = re.compile(rb"%(2[fF]|5[cC])")
_OURS = frozenset((b"content-length", b"expect", b"host"))  # framing, and what is settled with the client's server
_STAY_BEHIND = hops.HOP_BY_HOP | _OURS

Forwarding = Literal["x-forwarded", "forwarded", "both", "none"]


class Upstream(NamedTuple):
    """An upstream's URL in the parts a request needs."""

    origin: str
    authority: bytes
    prefix: bytes


class Seconds(NamedTuple):
    """How long an upstream may take, as ``UpstreamRequest`` has it."""

    connect: float | None
    read: float | None
    tls: float | None
    first_byte: float | None
    write: float | None


def parsed(url: str) -> Upstream:
    """The parts of an upstream's URL; ValueError says why it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("its scheme is neither http nor https")
    if "?" in url or "#" in url:
        raise ValueError("it holds a query or a fragment")
    host, port = parts.hostname or "", parts.port
    if port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it is no URL")
    if ":" in host and parse_address(host) is not None and "%" not in host:
        host = f"[{host}]"
    elif _HOST_NAME.fullmatch(host) is None:
        raise ValueError("it names no host")
    authority = host if port in (None, 443 if parts.scheme == "https" else 80) else f"{host}:{port}"
    prefix = canonical_path(unquote(parts.path), parts.path.encode())[1] if parts.path else b""
    return Upstream(f"{parts.scheme}://{authority}", authority.encode(), prefix.rstrip(b"/"))


class Writer:
    """Writes requests to one upstream, but for their bodies."""

    def __init__(
        self, upstream: Upstream, seconds: Seconds, *, via: str, forwarded: Forwarding, keep_host: bool
    ) -> None:
        """Make a name for ``Via`` that no other proxy has."""
        self.upstream = upstream
        self.pseudonym = f"{via}-{secrets.token_hex(4)}".encode()
        self.via = self._via("1.1")
        """What responses are told."""
        self._vias = {version: self._via(version) for version in ("1.0", "1.1", "2", "3")}
        self._host = (b"host", upstream.authority)
        self._seconds = seconds
        self._forwarded = forwarded
        self._keep_host = keep_host

    def request(self, scope: Scope) -> tuple[UpstreamRequest, dict[bytes, bytes]]:
        """The request as the upstream gets it, with the length its client announced, and an index of what it had.

        Raises Refusal. What ``Connection`` nominates went at the door, with request hygiene.
        """
        lines: RawHeaders = scope["headers"]
        index = dict(lines)
        try:
            if not are_names(index):
                lines = checked(lines)
                index = dict(lines)
            if b"via" in index and hops.passed(lines, self.pseudonym):
                raise Refusal(508, "loop-detected", "The request came back to a gateway it had passed.")
            length = index.get(b"content-length")
            known = None if length is None else int(length)
            raw: bytes = scope.get("raw_path") or b""
            if is_plain(scope["path"], raw) and not (scope.get("query_string") or scope.get("root_path")):
                target = self.upstream.prefix + raw
            else:
                target = self._target(scope)
            headers = self._headers(scope, lines, index)
        except BadTarget as error:
            raise Refusal(400, "bad-target", f"The request target cannot be passed on: {error}.") from None
        except ValueError as error:
            raise Refusal(400, "bad-header", f"The request cannot be passed on: {error}.") from None
        method, origin = scope["method"], self.upstream.origin
        return UpstreamRequest(method, origin, target, headers, None, known, *self._seconds), index

    def _headers(self, scope: Scope, lines: RawHeaders, index: dict[bytes, bytes]) -> RawHeaders:
        """The header lines for the upstream. Raises ValueError for lines that cannot be sent."""
        check_values([value for _, value in lines])
        host = index.get(b"host")
        client = scope.get("client")
        told, names = _told(self._forwarded, client[0] if client else None, scope.get("scheme", "http"), host)
        headers = [line for line in lines if line[0] not in _STAY_BEHIND]
        if not names.isdisjoint(index):
            headers = without(headers, *names)
        if len(index) != len(lines):
            headers = hops.one_cookie(headers)
        if scope["method"] == "OPTIONS":
            headers = hops.one_hop_fewer(headers)
        first = (b"host", host) if self._keep_host and host is not None else self._host
        version = scope.get("http_version", "1.1")
        return [first, *headers, *told, self._vias.get(version) or self._via(version)]

    def _via(self, version: str) -> tuple[bytes, bytes]:
        return b"via", header_value(b"%b %b" % (version.encode("latin-1", "replace"), self.pseudonym))

    def _target(self, scope: Scope) -> bytes:
        """Path and query for the upstream, exactly as the policies in front have judged them. Raises BadTarget."""
        path, query = _written_path(scope), scope.get("query_string")
        target = b"*" if path == b"*" else self.upstream.prefix + path or b"/"
        if query:
            target = b"%b?%b" % (target, query)
        if _TARGET.fullmatch(target) is None:
            raise BadTarget("it holds characters that may not stand there")
        return target


@lru_cache(maxsize=1024)
def _told(form: str, client: str | None, scheme: str, host: bytes | None) -> tuple[RawHeaders, frozenset[bytes]]:
    """What the upstream is told of the client, and under which names."""
    lines = raw_headers(hops.forwarding_fields(form, client, scheme, host))
    return lines, frozenset(name for name, _ in lines)


def _written_path(scope: Scope) -> bytes:
    """The path below the place this app is mounted at, as it stood on the wire unless a policy changed it."""
    path: str
    raw: bytes
    path, raw = scope["path"], scope.get("raw_path") or b""
    if scope.get("root_path"):
        root, path = routed_path(scope)
        raw = _below(raw, root.count("/")) if root else raw
    if is_plain(path, raw) or path == "":
        return raw
    if path == "*" or unquote_to_bytes(_ENCODED_SLASH.sub(rb"%25\1", raw)) == path.encode():
        return raw or path.encode()
    return canonical_path(path, None)[1]


def _below(raw: bytes, segments: int) -> bytes:
    parts = raw.split(b"/", segments + 1)
    return b"/" + parts[-1] if len(parts) == segments + 2 else b""
