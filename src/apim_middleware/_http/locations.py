"""Where responses point: references to an upstream, its cookies' domains and paths, said as the public knows them.

Pure rules of nginx's ``proxy_redirect``, ``proxy_cookie_domain`` and ``proxy_cookie_path``. What points elsewhere, and
what cannot be read, stays byte for byte.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_REFRESH = re.compile(rb"[ \t]*[0-9.]+(?:[ \t]*[;,][ \t]*|[ \t]+)(?:url[ \t]*=[ \t]*)?", re.IGNORECASE)
_HOST_COOKIE = re.compile(rb"[ \t]*__Host-", re.IGNORECASE)


class Base(NamedTuple):
    """Where a tree of paths stands: scheme, host and port in lower case, and its path without a slash at the end.

    Without an origin (a path alone was given) scheme and host are empty.
    """

    scheme: str
    host: str
    port: int | None
    path: bytes

    @property
    def origin(self) -> bytes:
        """``scheme://host[:port]``, the usual port left out; empty without an origin."""
        if not self.host:
            return b""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in (None, _PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{host}{port}".encode()


def base_of(text: str) -> Base:
    """The base a URL names; ValueError when it is none, or holds more than a path."""
    parts = urlsplit(text)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("it is no http or https URL")
    if parts.username is not None or parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("it holds a user, a query or a fragment")
    return Base(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], _path(parts.path))


def path_base_of(path: str) -> Base:
    """The base of a path alone; ValueError when it is none."""
    if not path.startswith("/") or path.startswith("//") or "?" in path or "#" in path:
        raise ValueError("it is no path")
    return Base("", "", None, _path(path))


def _path(path: str) -> bytes:
    return path.rstrip("/").encode("ascii")


def origin_base(scheme: str, host: bytes, path: bytes) -> Base:
    """The base at an origin a client asked for; without an origin when that cannot be read."""
    try:
        parts = urlsplit(f"{scheme}://{host.decode('ascii')}")
        return Base(scheme, parts.hostname or "", parts.port or _PORTS.get(scheme), path)
    except ValueError:
        return Base("", "", None, path)


# References


def rewritten(reference: bytes, upstream: Base, public: Base) -> bytes | None:
    """A reference to something below the upstream's base as the public knows it; None when it is to anything else.

    A path of the upstream (``/api/x``) becomes a path, a whole URL a whole one as far as the public origin is known.
    """
    if reference[:1] == b"/" and reference[1:2] not in (b"/", b"\\"):
        rest = _below(reference, upstream.path)
        return None if rest is None else _at(public.path, rest)
    found = _told_apart(reference)
    if found is None:
        return None
    scheme, host, port, target = found
    if (host, port or _PORTS.get(scheme or upstream.scheme)) != (upstream.host, upstream.port):
        return None
    if scheme not in ("", upstream.scheme):
        return None
    rest = _below(target, upstream.path)
    return None if rest is None else public.origin + _at(public.path, rest)


def _told_apart(reference: bytes) -> tuple[str, str, int | None, bytes] | None:
    """Scheme, host, port and the rest of a reference that names a host; None for any other."""
    try:
        parts = urlsplit(reference.decode("latin-1"))  # some servers write other bytes as they are
        if not parts.hostname:
            return None
        query = f"?{parts.query}" if parts.query else ""
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return parts.scheme, parts.hostname, parts.port, f"{parts.path}{query}{fragment}".encode("latin-1")
    except ValueError:
        return None


def _below(target: bytes, base: bytes) -> bytes | None:
    """What follows the base in a path with its query; None when it does not stand below it."""
    if not target.startswith(base):
        return None
    rest = target[len(base) :]
    return rest if rest[:1] in (b"", b"/", b"?", b"#") else None


def _at(path: bytes, rest: bytes) -> bytes:
    """The rest of a target below another path; it never begins with two slashes, which would name a host.

    A tab between them is none for browsers, which take it out.
    """
    if rest[:1] == b"/":
        return path + b"/" + rest.lstrip(b"/\\\t")
    return (path or b"/") + rest


def rewritten_refresh(value: bytes, upstream: Base, public: Base) -> bytes | None:
    """The same for the URL in a Refresh field, as browsers read it: ``5; url=http://upstream/``, ``5 http://upstream/``.

    One in quotes ends with them, whatever follows.
    """
    match = _REFRESH.match(value)
    if match is None:
        return None
    front, text = match[0], value[match.end() :]
    if text[:1] in (b"'", b'"'):
        front, (text, *after) = front + text[:1], text[1:].partition(text[:1])
    else:
        after = []
    there = rewritten(text.strip(b" \t"), upstream, public)
    return None if there is None else b"".join((front, there, *after))


# Cookies (RFC 6265 §5.2)


def rewritten_cookie(value: bytes, upstreams: Sequence[Base], public: Base, domain: bytes | None) -> bytes:
    """A Set-Cookie line whose Domain and Path are those of the public.

    A Domain that covers an upstream's host and not the public one becomes ``domain``, or goes when that is None. A Path
    below the first base it is below moves below the public one, but for ``__Host-`` cookies, whose Path is ``/``.
    """
    pair, *attributes = value.split(b";")
    bases = () if _HOST_COOKIE.match(pair) else upstreams
    kept = [pair]
    for attribute in attributes:
        name, equals, text = attribute.partition(b"=")
        said: bytes | None = text.strip(b" \t")
        match name.strip(b" \t").lower():
            case b"domain" if _is_of(text.strip(b" \t"), upstreams, public):
                said = domain
            case b"path":
                said = _moved(text.strip(b" \t"), bases, public.path)
        if said is not None:
            kept.append(attribute if said == text.strip(b" \t") else name + equals + said)
    return b";".join(kept)


def _is_of(domain: bytes, upstreams: Sequence[Base], public: Base) -> bool:
    return any(_covers(domain, base.host) for base in upstreams) and not _covers(domain, public.host)


def _moved(path: bytes, bases: Sequence[Base], public: bytes) -> bytes:
    for base in bases:
        rest = _below(path, base.path) if path[:1] == b"/" else None
        if rest is not None:
            return (public if rest == b"/" else public + rest) or b"/"
    return path


def _covers(domain: bytes, host: str) -> bool:
    """Whether a Domain attribute is about a host: the host itself, or a domain it is in (RFC 6265 §5.1.3)."""
    text = domain.decode("latin-1").lower().removeprefix(".")
    return bool(text) and (host == text or host.endswith(f".{text}"))
