"""Request hygiene: what every request goes through before any policy, whatever the server let in.

One canonical target, one Host, one Authorization, names and values within the grammar, sizes within bounds, and no
field that speaks for a trusted neighbour (RFC 9110 §5, RFC 9112 §3 and §6, RFC 3986 §6).
"""

import re
from dataclasses import dataclass
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http.headers import is_token, without
from apim_middleware._http.hops import nominated
from apim_middleware._http.paths import BadTarget, canonical_path, canonical_query, is_plain
from apim_middleware.errors import Refusal
from apim_middleware.types import RawHeaders, Scope

FORWARDING = frozenset(
    b"forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-forwarded-prefix x-forwarded-by "
    b"x-forwarded-server x-forwarded-scheme x-forwarded-ssl x-forwarded-client-cert x-original-forwarded-for x-real-ip "
    b"x-client-ip x-cluster-client-ip true-client-ip cf-connecting-ip fastly-client-ip x-envoy-external-address".split()
)
"""Fields that tell of the client in a proxy's words; kept aside until ``TrustedProxies`` has judged the peer."""

_OVERRIDES = (
    "front-end-https", "remote-user", "x-azure-clientip", "x-client-cert", "x-ms-client-principal",
    "x-ms-client-principal-id", "x-ms-client-principal-name", "x-real-port", "x-remote-user", "x-scheme",
    "x-ssl-client-cert", "x-url-scheme",
    "x-original-url", "x-rewrite-url", "x-original-host", "x-original-uri", "x-original-method", "x-host",
    "x-http-method-override", "x-http-method", "x-method-override", "proxy",
)  # fmt: skip

_SINGLE = frozenset(
    b"host authorization proxy-authorization content-length content-type transfer-encoding max-forwards date from "
    b"referer user-agent if-modified-since if-unmodified-since if-range range expect origin".split()
)

_KNOWN = frozenset(
    b"accept accept-charset accept-encoding accept-language access-control-request-headers baggage cookie date dnt "
    b"access-control-request-method authorization cache-control connection content-encoding content-language expect "
    b"content-length content-type host idempotency-key if-match if-modified-since if-none-match if-range keep-alive "
    b"if-unmodified-since max-forwards ocp-apim-subscription-key origin pragma priority range referer sec-ch-ua te "
    b"sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user traceparent "
    b"sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version tracestate upgrade via "
    b"transfer-encoding upgrade-insecure-requests user-agent x-api-key x-correlation-id x-request-id".split()
)

_PLAIN_NAME = re.compile(rb"[a-z0-9-]+")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_UNSUPPORTED = frozenset(("CONNECT", "TRACE", "PRI"))
_METHOD = re.compile(r"[A-Z][A-Z0-9!#$%&'*+\-.^_`|~]{0,31}")
_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]{1,255}|\[[0-9A-Fa-f:.]{2,45}(?:%25[A-Za-z0-9._~-]{1,32})?\])(?::(\d{0,5}))?"
)
_USUAL_CONNECTION = frozenset((b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"Upgrade", b"keep-alive, Upgrade"))
_WITHOUT_CODINGS = frozenset(("1.0", "1", "0.9"))  # "1" is how granian says 1.0
_LAST = {"connection": "close"}  # when nobody can tell where the next request on this connection begins
_NUL, _LF, _CR = b"\0\n\r"
_REMEMBERED = 2048


@dataclass(frozen=True, kw_only=True)
class Hygiene(Configured):
    """What a request may look like at all.

    Give another one as ``Env(hygiene=Hygiene(...))``; it cannot be switched off.
    Refusals: 400 ``bad-target``, ``bad-method``, ``bad-header``, ``bad-host``, ``bad-framing``, ``duplicate-header``;
    414 ``target-too-long``; 431 ``headers-too-large``; 501 ``method-not-implemented``.
    """

    max_target_bytes: int = 8192
    """Longest path and query together, in bytes."""

    max_fields: int = 128
    """Most header lines."""

    max_field_bytes: int = 16384
    """Longest value of one header line, in bytes."""

    max_header_bytes: int = 65536
    """Most bytes of all header values together."""

    odd_names: Literal["drop", "refuse", "keep"] = "drop"
    """What happens to names with other characters than letters, digits and hyphens (``x_user`` beside ``x-user``)."""

    encoded_slashes: Literal["refuse", "keep"] = "refuse"
    """Whether ``%2F`` and ``%5C`` may stand in a path; kept, they stay encoded for policies, app and upstream alike."""

    matrix_parameters: Literal["refuse", "keep"] = "keep"
    """Whether ``;`` may stand in a path, encoded or not. Refuse it in front of backends that take ``/admin;x=1`` for
    ``/admin``, as those written in Java do: policies do not."""

    strip: tuple[str, ...] = _OVERRIDES
    """Request headers taken away, for a client could speak through them as somebody else."""

    def __post_init__(self) -> None:
        """Bounds must leave room for a request, and names must be names."""
        for name in ("max_target_bytes", "max_fields", "max_field_bytes", "max_header_bytes"):
            if getattr(self, name) < 1:
                raise self.mistake(name, "is no bound", "Give a number of at least 1")
        if not all(is_token(name.encode("latin-1", "replace")) for name in self.strip):
            raise self.mistake("strip", "holds what is no name of a header", 'Give names such as "x-debug"')

    def compiled(self) -> "Scrub":
        """The function that cleans a scope, with its memory of names and hosts seen."""
        return Scrub(self)


class Scrub:
    """Cleans one scope after another by the rules of a Hygiene."""

    def __init__(self, rules: Hygiene) -> None:
        """Precompute what the rules say."""
        self._rules = rules
        self._strip = frozenset(name.lower().encode("latin-1", "replace") for name in rules.strip)
        self._names = set(_KNOWN - self._strip)
        self._hosts: set[bytes] = set()
        self._longest_plain = rules.max_target_bytes  # a plain path is as long in bytes as in characters
        self._longest_value, self._most_lines = rules.max_field_bytes, rules.max_fields
        self._keep_slashes = rules.encoded_slashes == "keep"
        self._keep_semicolons = rules.matrix_parameters == "keep"

    def __call__(self, scope: Scope) -> tuple[dict[bytes, bytes], RawHeaders]:
        """Clean the scope in place; gives an index of its headers and the forwarding fields. Raises Refusal."""
        if scope.get("method") not in _METHODS and scope["type"] == "http":
            _method(scope["method"])
        path = scope["path"]
        if scope.get("query_string") or len(path) > self._longest_plain or not is_plain(path, scope.get("raw_path")):
            self._target(scope)
        if not self._keep_semicolons and ";" in scope["path"]:
            raise _bad_target("the path holds a semicolon")
        headers = scope["headers"] = [*scope["headers"]]  # a server may go on with its own: trailers are not for here
        index, lines = dict(headers), len(headers)
        aside: RawHeaders = []
        if len(index) == lines and self._names.issuperset(index):
            values = b"".join([*index.values()])
        else:
            headers, aside = self._fields(headers)
            index, lines = dict(reversed(headers)), len(headers)
            if len(index) != lines:
                _refuse_doubles(headers)
            scope["headers"] = headers  # not before: whoever looks again at what was refused must find the same
            values = b"".join([*index.values()] if len(index) == lines else [value for _, value in headers])
        if len(values) > self._longest_value or lines > self._most_lines:
            self._sizes(headers, len(values))
        if _LF in values or _CR in values or _NUL in values:
            raise Refusal(400, "bad-header", "A header value holds a line break or a null byte.")
        host = index.get(b"host")
        if host not in self._hosts:
            self._host(scope, host)
        if b"content-length" in index or b"transfer-encoding" in index:
            _framing(index, scope.get("http_version", "1.1"))
        if b"connection" in index and (index[b"connection"] not in _USUAL_CONNECTION or len(index) != lines):
            index = _without_nominated(scope, index)
        return index, aside

    def passes(self, name: bytes) -> bool:
        """Whether a policy can ever see a field of this lower-case name, if only among those set aside."""
        plain = self._rules.odd_names == "keep" or _PLAIN_NAME.fullmatch(name) is not None
        return plain and name not in self._strip

    def _target(self, scope: Scope) -> None:
        path, raw, query = scope["path"], scope.get("raw_path"), scope.get("query_string", b"")
        if len(path) + len(query) > self._rules.max_target_bytes or len(raw or b"") > self._rules.max_target_bytes:
            raise Refusal(414, "target-too-long", "The path and query are longer than allowed.")
        if path == "*" and scope.get("method") == "OPTIONS":
            return
        try:
            if not is_plain(path, raw):
                scope["path"], scope["raw_path"] = canonical_path(path, raw, keep_encoded_slashes=self._keep_slashes)
            if query:
                scope["query_string"] = canonical_query(query)
        except BadTarget as error:
            raise _bad_target(str(error)) from None

    def _fields(self, headers: RawHeaders) -> tuple[RawHeaders, RawHeaders]:
        """The ordinary fields, and those set aside; what is neither is dropped or refused."""
        if len(headers) > self._most_lines:
            raise _too_large()
        kept: RawHeaders = []
        aside: RawHeaders = []
        names = self._names
        for line in headers:
            if line[0] in names:
                kept.append(line)
                continue
            name, value = line[0].lower(), line[1]
            if name in FORWARDING or name.startswith(b"x-forwarded"):
                aside.append((name, value))
            elif name not in self._strip and (name in names or self._admit(name)):
                kept.append((name, value))
        if sum([len(value) for _, value in aside]) > self._longest_value:
            raise _too_large()
        return kept, aside

    def _admit(self, name: bytes) -> bool:
        if len(name) <= 256 and _PLAIN_NAME.fullmatch(name):
            if len(self._names) >= _REMEMBERED:  # callers invent names; those of the others are back at once
                self._names &= _KNOWN
            self._names.add(name)
            return True
        if len(name) > 256 or not is_token(name) or self._rules.odd_names == "refuse":
            raise Refusal(400, "bad-header", "A header name cannot be accepted.")
        return self._rules.odd_names == "keep"

    def _sizes(self, headers: RawHeaders, total: int) -> None:
        rules = self._rules
        longest = max((len(value) for _, value in headers), default=0)
        if len(headers) > rules.max_fields or total > rules.max_header_bytes or longest > rules.max_field_bytes:
            raise _too_large()

    def _host(self, scope: Scope, host: bytes | None) -> None:
        if host is None:
            if scope.get("http_version", "1.1") == "1.1":
                raise Refusal(400, "bad-host", "The request names no host.")
            return
        match = _HOST.fullmatch(host)
        if match is None or int(match[1] or 0) > 65535:
            raise Refusal(400, "bad-host", "The Host header is not a host and port.")
        if len(self._hosts) >= _REMEMBERED:
            self._hosts.clear()
        self._hosts.add(host)


def _without_nominated(scope: Scope, index: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Take away what ``Connection`` nominates (RFC 9110 §7.6.1), here where only the client's fields can be meant."""
    names = nominated(scope["headers"])
    if names.isdisjoint(index):
        return index
    scope["headers"] = without(scope["headers"], *names)
    return {name: value for name, value in index.items() if name not in names}


def _refuse_doubles(headers: RawHeaders) -> None:
    """Refuse a second line of what must stand alone."""
    seen: set[bytes] = set()
    for name in [name for name, _ in headers if name in _SINGLE]:
        if name in seen and name == b"content-length":
            raise _bad_framing("Content-Length was sent more than once.")
        if name in seen:
            last = _LAST if name == b"transfer-encoding" else {}
            raise Refusal(400, "duplicate-header", f"{name.decode()} was sent more than once.", headers=last)
        seen.add(name)


def _method(method: str) -> None:
    if _METHOD.fullmatch(method) is None:
        raise Refusal(400, "bad-method", "The method is not one.")
    if method in _UNSUPPORTED:
        raise Refusal(501, "method-not-implemented", f"{method} is not supported.")


def _framing(index: dict[bytes, bytes], version: str) -> None:
    """Message framing that a neighbour could read differently (RFC 9112 §6.1, §6.3)."""
    length, coding = index.get(b"content-length"), index.get(b"transfer-encoding")
    if coding is not None and version in _WITHOUT_CODINGS:
        raise _bad_framing("HTTP/1.0 has no Transfer-Encoding.")
    if coding is not None and (length is not None or coding.strip(b" \t").lower() != b"chunked"):
        raise _bad_framing("Transfer-Encoding may only be chunked, and never beside Content-Length.")
    if length is not None and not (length.isdigit() and len(length) <= 19):
        raise _bad_framing("Content-Length is not a number.")


def _bad_target(problem: str) -> Refusal:
    return Refusal(400, "bad-target", f"The request target cannot be accepted: {problem}.")


def _bad_framing(detail: str) -> Refusal:
    return Refusal(400, "bad-framing", detail, headers=_LAST)


def _too_large() -> Refusal:
    return Refusal(431, "headers-too-large", "The request headers are larger than allowed.")
