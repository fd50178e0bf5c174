"""Values that mean the same: Python has ``1``, ``1.0`` and ``True`` be equal, which claims and limits do not."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import fields, is_dataclass


def alike(one: object, other: object) -> bool:
    """Whether two values are equal and of one type, and so is all they are made of."""
    if one is other:
        return True
    if type(one) is not type(other) or one != other:
        return False
    if is_dataclass(one):
        return all(_alike_in(each.name, one, other) for each in fields(one) if each.compare)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _all_alike(_by_key(one), _by_key(other))
    if isinstance(one, Set) and isinstance(other, Set):
        return _all_alike(_by_value(one), _by_value(other))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return all(map(alike, one, other))
    return _alike_in("layers", one, other)  # a stack, which is no dataclass


class Alike:
    """A value as a key under which only what is alike is found."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        """Of any value that can be hashed."""
        self._value = value

    def __hash__(self) -> int:
        """That of the value."""
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        """Whether the values are alike."""
        return isinstance(other, Alike) and alike(self._value, other._value)


def _alike_in(name: str, one: object, other: object) -> bool:
    return alike(getattr(one, name, None), getattr(other, name, None))


def _all_alike(one: Mapping[object, object], other: Mapping[object, object]) -> bool:
    return all(key in other and alike(value, other[key]) for key, value in one.items())


def _by_key(pairs: Mapping[object, object]) -> dict[object, object]:
    """Each pair under its key, for of two equal keys the types matter, too."""
    return {pair[0]: pair for pair in pairs.items()}


def _by_value(values: Iterable[object]) -> dict[object, object]:
    return {value: value for value in values}
