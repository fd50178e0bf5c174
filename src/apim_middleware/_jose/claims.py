"""Claims by their paths: what a policy asks about a caller, wherever in the claims it stands."""

from collections.abc import Mapping, Set
from typing import Any, TypeAlias

from apim_middleware._jose.tokens import Scalar

Path: TypeAlias = str | tuple[str, ...]
"""Where a claim stands.

``"realm_access.roles"`` is the member ``roles`` of ``realm_access``. A name with a colon is a URI and taken whole
(``"https://example.com/roles"``), and a tuple names each step where names hold dots.
"""


_SEVERAL, _SCALARS = (tuple, list, Set), (str, int, float)  # made once: a union is made anew each time it is written


def steps(path: Path) -> tuple[str, ...]:
    """The names that lead to a claim, one within the other."""
    if isinstance(path, tuple):
        return path
    return (path,) if ":" in path else tuple(path.split("."))


def names_a_claim(path: Path) -> bool:
    """Whether a path can lead anywhere."""
    return bool(path) and "" not in steps(path)


def claim(claims: Mapping[str, Any], way: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON
    """What stands at a path of claims, one within the other; None when nothing does."""
    found: Any = claims
    for step in way:
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def members(claims: Mapping[str, Any], way: tuple[str, ...]) -> list[Scalar]:
    """The members of an array, or the one value, at a path; what is no text, number or boolean is left out."""
    found = claim(claims, way)
    several = found if isinstance(found, _SEVERAL) else (found,)
    return [each for each in several if isinstance(each, _SCALARS)]
