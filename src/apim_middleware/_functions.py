"""What keys and conditions tell of themselves: what they rely on, what they ask for, what they are called."""

from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])


def made_once(make: Callable[P, F]) -> Callable[P, F]:
    """Have equal arguments make one function, so that policies that are written alike are equal."""
    remembered = lru_cache(maxsize=1024, typed=True)(make)

    @wraps(make)
    def made(*args: P.args, **given: P.kwargs) -> F:
        try:
            return remembered(*args, **given)  # type: ignore[arg-type]
        except TypeError:  # something that cannot be looked up is a mistake, of which ``make`` knows more
            return make(*args, **given)

    vars(made)["factory"] = made  # so that one that was not called is told from what it makes
    return made


def annotated(function: F, *, needs: Iterable[str] = (), reads: Iterable[str] = (), paths: Iterable[str] = ()) -> F:
    """The function itself, made to tell what it relies on, which headers it asks for, and which paths it compares."""
    vars(function).update(needs=frozenset(needs), reads=frozenset(reads), paths=frozenset(paths))
    return function


def needs(function: Callable[..., object]) -> frozenset[str]:
    """What a key or condition relies on: ``client``, ``principal``, ``subscription``, or nothing known."""
    found: frozenset[str] = getattr(function, "needs", frozenset())
    return found


def reads(function: object) -> frozenset[str]:
    """The request headers that a key or condition asks for, as far as it says so."""
    found = getattr(function, "reads", None)
    return found if isinstance(found, frozenset) else frozenset()  # stores and doubles have other things of that name


def paths_of(condition: object) -> frozenset[str]:
    """The patterns of paths that a condition compares, as far as it says so."""
    found = getattr(condition, "paths", None)
    return found if isinstance(found, frozenset) else frozenset()


def parts_of(key: object) -> tuple[str, tuple[Callable[..., object], ...]]:
    """How a key is made of others, ``both``, ``either`` or ``route``, and of which; nothing for one that is not."""
    found = getattr(key, "parts", None)
    return found if isinstance(found, tuple) else ("", ())


def name_of(function: Callable[..., object]) -> str:
    """A name for a function that is the same in every process; a lambda's says where it is written."""
    name = getattr(function, "__name__", type(function).__qualname__)
    if name == "<lambda>":  # all have one name; the line tells them apart
        name = f"{function.__qualname__}:{function.__code__.co_firstlineno}"
    return f"{getattr(function, '__module__', '')}.{name}"
