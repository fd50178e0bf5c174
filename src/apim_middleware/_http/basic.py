"""Basic credentials as they come in a header (RFC 7617): read in one way only, or not at all."""

import base64
import re
import unicodedata

_LONGEST = 2048
_BASIC = re.compile(rb"basic(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)
_TOKEN68 = re.compile(rb" +([A-Za-z0-9+/]+={0,2})")
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


class BadCredentials(Exception):
    """These are Basic credentials, but nobody's."""


def read(value: bytes) -> tuple[str, str] | None:
    """The name and the password in the value of ``Authorization``; None for another scheme. Raises BadCredentials.

    They are UTF-8 in base64 with its padding; the first colon parts them; control characters are in neither.
    """
    if _BASIC.match(value) is None:
        return None
    match = _TOKEN68.fullmatch(value, 5)
    if match is None or len(match[1]) > _LONGEST:
        raise BadCredentials
    name, colon, password = _text(match[1]).partition(":")
    if not (name and colon and password) or _control(name) or _control(password):
        raise BadCredentials
    return normal(name), normal(password)


def normal(text: str) -> str:
    """A text as it is compared: composed, for keyboards differ in how they write an umlaut (RFC 8265 §3.3, §4.2)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _text(encoded: bytes) -> str:
    try:
        data = base64.b64decode(encoded, validate=True)
        if base64.b64encode(data) == encoded:  # one text has one spelling
            return data.decode()
    except ValueError:
        pass
    raise BadCredentials


def is_sendable(text: str) -> bool:
    """Whether a caller could send this as a name or password at all: not empty, no control characters."""
    return bool(text) and _control(text) is None
