"""Tags of entries, by which many are forgotten at once."""

from collections.abc import Collection

MOST_TAGS = 128
"""Tags of one entry at most."""

LONGEST_TAG = 1024
"""Bytes of one tag at most."""


def checked(tags: Collection[bytes]) -> list[bytes]:
    """The tags, each once. Raises ValueError when they are too many, too long, or empty."""
    once = list(dict.fromkeys(tags))
    if len(once) > MOST_TAGS:
        raise ValueError(f"an entry can have {MOST_TAGS} tags, not {len(once)}")
    for tag in once:
        if not 0 < len(tag) <= LONGEST_TAG:
            raise ValueError(f"a tag has 1 to {LONGEST_TAG} bytes, not {len(tag)}")
    return once
