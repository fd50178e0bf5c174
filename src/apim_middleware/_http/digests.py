"""Digests of content (RFC 9530): what ``Content-Digest`` says, and whether a body is what it says."""

import hashlib
import hmac
from collections.abc import Callable, Mapping

from apim_middleware._http.dictionaries import InnerList, parse_dictionary
from apim_middleware._http.fields import item

_HASHES: dict[str, Callable[[bytes], bytes]] = {
    "sha-256": lambda content: hashlib.sha256(content).digest(),
    "sha-512": lambda content: hashlib.sha512(content).digest(),
}
"""The algorithms that are not broken (RFC 9530 §5)."""

WANTED = "sha-256=10, sha-512=9"
"""What a caller is told in ``Want-Content-Digest`` (RFC 9530 §4)."""


def parse_digests(text: str) -> dict[str, bytes]:
    """The digests of algorithms known here; ValueError when the field cannot be read or holds none of them."""
    found: dict[str, bytes] = {}
    for algorithm, member in parse_dictionary(text).items():
        if isinstance(member, InnerList) or not isinstance(member[0], bytes):
            raise ValueError(f"the digest under {algorithm} is no byte sequence")
        if algorithm in _HASHES:
            found[algorithm] = member[0]
    if not found:
        raise ValueError("no digest of an algorithm that is known and sound")
    return found


def digest_matches(digests: Mapping[str, bytes], content: bytes) -> bool:
    """Whether content is what every one of these digests says."""
    return all(hmac.compare_digest(_HASHES[algorithm](content), said) for algorithm, said in digests.items())


def content_digest(content: bytes, algorithm: str = "sha-256") -> str:
    """The ``Content-Digest`` of content."""
    return f"{algorithm}={item(_HASHES[algorithm](content))}"
