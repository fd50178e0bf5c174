"""The request as the upstream gets it: what a proxy passes on of a request, and what it says of its own."""

import re
import secrets
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from apim_middleware._config import Configured
from apim_middleware._http import hops
from apim_middleware._http.addresses import parse_address
from apim_middleware._http.headers import header_value, raw_headers
from apim_middleware._http.lines import Checked, are_names, check_values, checked
from apim_middleware._http.paths import BadTarget, canonical_path, is_plain, routed_path
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.protocols import Clock, UpstreamRequest
from apim_middleware.proxy._trouble import Trouble
from apim_middleware.types import RawHeaders, Scope

_USER_INFO = re.compile(r"(?:[^/?#]*//)?[^/?#]*@")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9.])?")
_TARGET = re.compile(rb"\*|/[!-\"$-~]*")
_ENCODED_SLASH = re.compile(rb"%(2[fF]|5[cC])")
_OURS = frozenset((b"content-length", b"expect"))  # framing, and what is settled with the client's server
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


def upstream_of(value: Configured, field: str, url: str, cure: str) -> Upstream:
    """The parts of the URL that a field holds. Raises ConfigError."""
    if _USER_INFO.match(url):  # which no message may show
        own = "Set the Authorization header with SetHeader instead"
        raise ConfigError(type(value).__name__, field, "holds a user name or password", own)
    try:
        return parsed(url)
    except ValueError as error:
        raise value.mistake(field, f"cannot be asked: {error}", cure) from None


def pseudonym_of(via: str) -> bytes:
    """A name for ``Via`` that no other proxy has."""
    return f"{via}-{secrets.token_hex(4)}".encode()


class Writer:
    """Writes requests to one upstream, but for their bodies."""

    def __init__(
        self,
        upstream: Upstream,
        seconds: Seconds,
        *,
        pseudonym: bytes,
        forwarded: Forwarding,
        keep_host: bool,
        direct: bool,
        clock: Clock,
    ) -> None:
        """``pseudonym`` is the name for ``Via``, by which a loop is found.

        ``direct`` is whether requests go straight to a transport of ours, so that nobody changes their lines.
        """
        self.upstream = upstream
        self.trouble = Trouble(upstream.origin, clock)
        """What goes wrong there."""
        self._origin, self._prefix = upstream.origin, upstream.prefix
        self.pseudonym = pseudonym
        self.via = self._via("1.1")
        """What responses are told."""
        self.via_old = self._via("1.0")
        """What those of HTTP/1.0 are told (RFC 9110 §7.6.3)."""
        self._own = lru_cache(maxsize=1024)(self._written_own)
        self._seconds = seconds
        self._forwarded = forwarded
        self._keep_host = keep_host
        self.direct = direct

    def request(
        self, scope: Scope, index: dict[bytes, bytes] | None = None
    ) -> tuple[UpstreamRequest, dict[bytes, bytes]]:
        """The request as the upstream gets it, with the length its client announced, and an index of what it had.

        ``index`` is what request hygiene has found, where it has looked at this scope this very moment: then target and
        names are not looked at again. Raises Refusal.
        What ``Connection`` nominates went at the door, with request hygiene.
        """
        method: str = scope["method"]
        lines: RawHeaders = scope["headers"]
        fresh = index is not None
        try:
            if index is None:
                index = dict(lines)
                if not are_names(index):
                    lines = checked(lines)
                    index = dict(lines)
            if b"via" in index and hops.passed(lines, self.pseudonym):
                raise Refusal(508, "loop-detected", "The request came back to a gateway it had passed.")
            target = self._target(scope, fresh=fresh)
            headers = self._headers(scope, lines, index)
            if method == "OPTIONS":
                headers = hops.one_hop_fewer(headers)
            length = index.get(b"content-length")
            known = None if length is None else int(length)
        except BadTarget as error:
            raise Refusal(400, "bad-target", f"The request target cannot be passed on: {error}.") from None
        except ValueError as error:
            raise Refusal(400, "bad-header", f"The request cannot be passed on: {error}.") from None
        return UpstreamRequest(method, self._origin, target, headers, None, known, *self._seconds), index

    def _headers(self, scope: Scope, lines: RawHeaders, index: dict[bytes, bytes]) -> RawHeaders:
        """The header lines for the upstream. Raises ValueError for lines that cannot be sent."""
        client = scope.get("client")
        own = self._own(
            (client[0] or None) if client else None, scope.get("scheme"), index.get(b"host"), scope.get("http_version")
        )
        if len(index) == len(lines) and b"via" not in index:  # no name on two lines, as nearly always
            check_values(index.values())
            whole = {**own, **index, **own}  # the first place is the host's (RFC 9110 §7.2)
            for name in _STAY_BEHIND.intersection(index):
                del whole[name]
            return Checked(whole.items()) if self.direct else list(whole.items())
        check_values([value for _, value in lines])
        first, *others = own.items()
        told = _STAY_BEHIND.union(own.keys() - {b"via"})
        return [first, *hops.one_cookie([line for line in lines if line[0] not in told]), *others]

    def _written_own(
        self, client: str | None, scheme: str | None, host: bytes | None, version: str | None
    ) -> dict[bytes, bytes]:
        """The lines of the proxy itself, ``Host`` first."""
        told = dict(raw_headers(hops.forwarding_fields(self._forwarded, client, scheme or "http", host)))
        to = host if self._keep_host and host is not None else self.upstream.authority
        return {b"host": to, **told, b"via": self._via(version or "1.1")[1]}

    def _via(self, version: str) -> tuple[bytes, bytes]:
        return b"via", header_value(b"%b %b" % (version.encode("latin-1", "replace"), self.pseudonym))

    def _target(self, scope: Scope, *, fresh: bool) -> bytes:
        """Path and query for the upstream, exactly as the policies in front have judged them. Raises BadTarget."""
        query: bytes | None = scope.get("query_string")
        path: bytes | None = scope.get("raw_path")
        if path is not None and not scope.get("root_path"):
            plain = scope["path"][:1] == "/" if fresh else not query and is_plain(scope["path"], path)
            if plain:  # canonical, as hygiene has left it
                return b"%b%b?%b" % (self._prefix, path, query) if query else self._prefix + path
        path = _written_path(scope)
        target = b"*" if path == b"*" else self._prefix + path or b"/"
        if query:
            target = b"%b?%b" % (target, query)
        if _TARGET.fullmatch(target) is None:
            raise BadTarget("it holds characters that may not stand there")
        return target


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
