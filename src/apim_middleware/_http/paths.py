"""One canonical form of a request target (RFC 3986 §6.2.2, RFC 9110 §4.2.3), or a reason why there is none.

Policies judge the canonical path, the app routes it and the upstream gets it: never one form for one and another
for the other.
"""

import re
from urllib.parse import quote, unquote, unquote_to_bytes

from apim_middleware.types import Scope

_PCHAR = "/:@!$&'()*+,;=-._~"
_PLAIN = bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)) + _PCHAR.encode()
_QUERY = bytes(code for code in range(0x21, 0x7F) if code != ord("#"))
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%(2[fF]|5[cC])")
_KEPT_SLASH = re.compile(r"%(2f|5c)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOTS = re.compile(r"(?:^|/)\.\.?(?:;[^/]*)?(?=/|$)")
_SLASHES = re.compile(r"/{2,}")
_RAW_SLASHES = re.compile(rb"/{2,}")


class BadTarget(ValueError):
    """This target has no canonical form that everybody would read the same way."""


def is_plain(path: str, raw: bytes | None) -> bool:
    """Whether a path is canonical beyond doubt, at a glance: most are."""
    return (
        raw is not None
        and path[:1] == "/"
        and "//" not in path
        and "/." not in path
        and not raw.lstrip(_PLAIN)  # all of it is stripped: quicker than translate for paths as short as they are
        and raw.decode() == path
    )


def canonical_path(path: str, raw: bytes | None, *, keep_encoded_slashes: bool = False) -> tuple[str, bytes]:
    """The canonical path, decoded once, and the same percent-encoded for the wire.

    Runs of slashes become one; characters that may not stand in a path are encoded.
    Dot segments (also ``..;x``), encoded slashes and backslashes, control characters, broken escapes, bytes that are
    not UTF-8, fragments, and anything not beginning with a slash raise BadTarget.
    """
    raw = _agreed(path, raw)
    if not raw.startswith(b"/"):
        raise BadTarget("the path does not begin with a slash")
    if b"#" in raw:
        raise BadTarget("the target holds a fragment")
    if _ENCODED_SLASH.search(raw) and not keep_encoded_slashes:
        raise BadTarget("the path holds an encoded slash or backslash")
    decoded = _decoded(_ENCODED_SLASH.sub(rb"%25\1", raw))
    if _CONTROL.search(decoded) or "\\" in decoded:
        raise BadTarget("the path holds a control character or a backslash")
    if _DOTS.search(_KEPT_SLASH.sub("/", decoded)):  # whoever decodes them later must find no dot segments either
        raise BadTarget("the path holds a dot segment")
    return _SLASHES.sub("/", decoded), _RAW_SLASHES.sub(b"/", quote(raw, safe=_PCHAR + "%").encode())


def _agreed(path: str, raw: bytes | None) -> bytes:
    """The bytes that stand for ``path``: those sent, unless a layer changed the path and left them behind."""
    if raw is not None:
        raw = raw.partition(b"?")[0]
        if path in (_decoded(raw), _decoded(_ENCODED_SLASH.sub(rb"%25\1", raw))):  # as sent, or canonical already
            return raw
    try:
        return quote(path, safe=_PCHAR).encode()
    except UnicodeEncodeError:
        raise BadTarget("the path is not valid UTF-8") from None


def _decoded(raw: bytes) -> str:
    if _BAD_ESCAPE.search(raw):
        raise BadTarget("the path holds a broken percent-escape")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadTarget("the path is not valid UTF-8") from None


def written_path(text: str) -> str:
    """A path as people write it in configuration, when it is one a canonical path can equal; else BadTarget."""
    if "?" in text or "#" in text:
        raise BadTarget("it holds more than a path")
    if unquote(text) != text:
        raise BadTarget("it holds a percent-escape, which is compared decoded")
    if canonical_path(text, None)[0] != text:
        raise BadTarget("it holds two slashes in a row")
    return text


def canonical_query(query: bytes) -> bytes:
    """The query with bytes beyond ASCII encoded; control characters, spaces and fragments raise BadTarget."""
    if not query.translate(None, _QUERY):
        return query
    if any(code < 0x21 or code in b"#\x7f" for code in query):
        raise BadTarget("the query holds a control character, a space or a fragment")
    return b"".join(b"%%%02X" % code if code > 0x7F else b"%c" % code for code in query)


def routed_path(scope: Scope) -> tuple[str, str]:
    """Where the app behind is mounted, and the canonical path below that: what Starlette and its like route by."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return root, path[len(root) :]
    return "", path
