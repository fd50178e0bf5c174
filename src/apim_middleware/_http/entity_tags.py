"""Entity tags (RFC 9110 §8.8.3): made of bytes, compared, and told apart by content coding."""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Sequence

_TAG = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_MARK = b"--"
"""Between a tag and the coding its representation has."""


def strong_tag(body: bytes, described: Iterable[bytes | None]) -> bytes:
    """The tag of a representation: equal only for equal bytes that are described in equal words."""
    words = b"".join([b"-\n" if each is None else b"=" + each + b"\n" for each in described])
    digest = hashlib.sha256(words)
    digest.update(body)
    return b'"' + urlsafe_b64encode(digest.digest()[:18]) + b'"'


def is_strong(tag: bytes) -> bool:
    """Whether this is an entity tag, and a strong one."""
    found = _TAG.fullmatch(tag)
    return found is not None and found[1] is None


def matches_strongly(lines: Sequence[bytes], tag: bytes) -> bool:
    """Whether an If-Match names this tag, or any (§13.1.1); a weak one never matches (§8.8.3.2)."""
    asked = b",".join(lines)
    return asked.strip(b" \t") == b"*" or (is_strong(tag) and tag in [found[0] for found in _TAG.finditer(asked)])


def matches_weakly(lines: Sequence[bytes], tag: bytes) -> bool:
    """Whether an If-None-Match names this tag, weak or strong, or any (§13.1.2)."""
    asked, one = b",".join(lines), _TAG.fullmatch(tag)
    return asked.strip(b" \t") == b"*" or (one is not None and one[2] in [found[2] for found in _TAG.finditer(asked)])


# One representation for each coding, each with a tag of its own (§8.8.3.3)


def coded_tag(tag: bytes, coding: bytes) -> bytes:
    """The tag of a representation once it has a content coding; a weak one stands for all of them as it is."""
    return tag[:-1] + _MARK + coding + b'"' if is_strong(tag) else tag


def with_plain_tags(value: bytes, codings: Collection[bytes]) -> bytes:
    """A list of tags, and for each that names one of these codings the tag of the representation without it.

    A weak one stays weak, for If-Match must not find it (§13.1.1).
    """
    found = [(each[1] or b"", _uncoded(each[2], codings)) for each in _TAG.finditer(value)]
    return b", ".join([value, *(b'%b"%b"' % (weak, base) for weak, base in found if base is not None)])


def _uncoded(opaque: bytes, codings: Collection[bytes]) -> bytes | None:
    base, mark, coding = opaque.rpartition(_MARK)
    return base if mark and coding in codings else None
