"""What subscription keys look like, so that leak scanners find them and misspelt ones are known without a look-up."""

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Callable

from apim_middleware.errors import ConfigError

PREFIX = "apim"
"""What generated keys begin with, unless another prefix is asked for."""

KEY_PATTERN = r"\b[a-z0-9]+(?:_[a-z0-9]+)*_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}\b"
"""What a leak scanner looks for: every generated key of any prefix. One that knows the prefix writes it instead."""

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM = 43  # of 62 digits: 256 bits
_CHECK = 6  # of 62 digits: more than the 32 bits of a CRC
_prefix = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*").fullmatch
_shape = re.compile(rb"([a-z0-9]+(?:_[a-z0-9]+)*)_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}").fullmatch
_LONGEST_PREFIX = 24


def new_key(prefix: str = PREFIX) -> str:
    """A new subscription key, as ``apim_`` with 43 random letters and digits (256 bits), ``_`` and a checksum of six.

    The checksum is the CRC-32 of all before its underscore, in 62 digits (0-9, A-Z, a-z), the first counting most. It
    shows that a text is a key and whole; that it is a good one only the store can tell. ``prefix`` is of lower-case
    letters and digits, which single underscores may part, 24 at most.
    """
    if not is_prefix(prefix):
        raise ConfigError("new_key", "prefix", f"{prefix!r} cannot begin a key", 'Write one such as "acme_live"')
    text = f"{prefix}_{''.join(secrets.choice(_DIGITS) for _ in range(_RANDOM))}"
    return f"{text}_{_checksum(text.encode())}"


def key_digest(key: str | bytes) -> bytes:
    """What a store keeps of a key: its SHA-256.

    It cannot be turned back while keys are random, as those of ``new_key`` are; one that somebody thought up can be
    guessed.
    """
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def is_prefix(text: str) -> bool:
    """Whether generated keys may begin with this."""
    return _prefix(text) is not None and len(text) <= _LONGEST_PREFIX


def misfit(prefixes: tuple[str, ...]) -> Callable[[bytes], bool]:
    """Whether a text cannot be a key, as far as its looks tell.

    With prefixes, only keys that were generated with one of them can be; without, every text that does not look like
    one of ``apim_`` with a wrong checksum.
    """
    known = frozenset(prefix.encode() for prefix in prefixes or (PREFIX,))
    only_generated = bool(prefixes)

    def cannot_be_a_key(key: bytes) -> bool:
        match = _shape(key)
        if match is None or match[1] not in known:
            return only_generated
        return key[-_CHECK:] != _checksum(key[: -_CHECK - 1]).encode()

    return cannot_be_a_key


def _checksum(text: bytes) -> str:
    rest, digits = zlib.crc32(text), ""
    for _ in range(_CHECK):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
