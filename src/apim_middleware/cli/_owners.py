"""Advice on a cache that keeps nothing, because it cannot tell whose its answers are."""

from collections.abc import Iterable, Sequence

from apim_middleware import by
from apim_middleware._caching.ownership import COVERED
from apim_middleware._functions import name_of, needs
from apim_middleware.by import Key
from apim_middleware.cli._known import is_known, ways
from apim_middleware.guarding.coverage import called
from apim_middleware.policies.cache import Cache
from apim_middleware.types import Layer

_NOTHING = frozenset[str]()
_OWNERS: tuple[tuple[Key, ...], ...] = ((), (by.subscription,), (by.principal,), (by.principal, by.subscription))
"""What can be added to ``private_to``, the least first."""


def owner_missing(cache: Cache, before: Sequence[Layer]) -> str:
    """That behind these layers it keeps nothing, or nothing of some callers, and the cure; empty where it keeps all."""
    found = ways(before)
    left = _left(cache, (), found)
    if not left:
        return ""
    front = " and ".join(called(layer) for layer in before if any(ways([layer])))
    some = "" if all(_left(cache, (), [way]) for way in found) else "of some callers "
    return (
        f"Cache stands behind {front}, so {some}it keeps nothing but what says public or s-maxage. "
        f"Write {_cure(cache, found)}{_regardless(cache, left)} where that makes no difference to the answer."
    )


def _cure(cache: Cache, found: Sequence[frozenset[str]]) -> str:
    """The keys that tell callers apart, and an "or"; nothing where no key would help."""
    added = min(_OWNERS, key=lambda keys: (len(_left(cache, keys, found)), len(keys)))
    if not added:
        return ""
    given = cache.private_to if isinstance(cache.private_to, tuple) else (cache.private_to,)
    names = [name_of(key).removeprefix("apim_middleware.") for key in (*given, *added) if key is not None]
    private = names[0] if len(names) == 1 else f"({', '.join(names)})"
    rest = _left(cache, added, found)
    return f"Cache(private_to={private}{', ' if rest else ''}{_regardless(cache, rest) if rest else ''}), or "


def _regardless(cache: Cache, left: Iterable[str]) -> str:
    names = [f'"{each}"' for each in (*cache.regardless_of, *sorted(left))]
    return f"regardless_of=({', '.join(names)}{',' if len(names) == 1 else ''})"


def _left(cache: Cache, added: Sequence[Key], found: Sequence[frozenset[str]]) -> frozenset[str]:
    """What tells callers apart that came in one of these ways, and the keys do not."""
    keys = (*cache.keys, *added)
    return _NOTHING.union(*(way - _covered(keys, way) for way in found)).difference(cache.regardless_of)


def _covered(keys: Sequence[Key], way: frozenset[str]) -> frozenset[str]:
    known = [key for key in keys if is_known(key, way)]
    covered = _NOTHING.union(*(COVERED.get(need, _NOTHING) for key in known for need in needs(key)))
    is_key = "subscription" in way and "principal" not in way  # who is nobody but the holder of the key
    return covered | COVERED["subscription"] if is_key and "principal" in covered else covered
