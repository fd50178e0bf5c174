"""The mistakes that several values of the model can have."""

import re
from collections.abc import Sequence
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?")

MOST_REVISIONS = 999_999
"""The highest number of one, so that callers cannot have anything larger looked for."""


def check_name(value: Any) -> None:  # noqa: ANN401 - any of the values here
    """Refuse a name that cannot stand in places and labels."""
    if not _NAME.fullmatch(value.name):
        cure = "Use letters, digits, dots, hyphens and underscores, 80 at most"
        raise value.mistake("name", "cannot be a name", cure)


def check_unique(value: Any, field: str, names: Sequence[str]) -> None:  # noqa: ANN401 - any of the values here
    """Refuse a name that stands twice."""
    seen = set[str]()
    for name in names:
        if name in seen:
            raise value.mistake(field, f"holds {name!r} twice", "Give each a name of its own")
        seen.add(name)


def check_revisions(owner: Any) -> None:  # noqa: ANN401 - an Api or a Version
    """Refuse revisions with one number, and a current one that is not there."""
    numbers = [each.number for each in owner.revisions]
    check_unique(owner, "revisions", [str(number) for number in numbers])
    if numbers and owner.revision not in numbers:
        raise owner.mistake("revision", "is none of the revisions", f"Give one of {sorted(numbers)}")
    if not numbers and owner.revision < 1:
        raise owner.mistake("revision", "is no revision", "Count from 1")
