"""Texts as numbers, the same in every process: for what is spread evenly, never for secrets."""

from hashlib import blake2b


def digest(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
