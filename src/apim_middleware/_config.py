"""Configuration is checked while building: names, presence and types of fields, from the annotations themselves."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, Self, TypeVar

from apim_middleware._annotations import arms_of, describe, is_condition, is_key, matches, methods_of
from apim_middleware._spelling import condition_named, key_named, nearest, seconds_in, written
from apim_middleware._synonyms import VALUES, advice
from apim_middleware.errors import ConfigError
from apim_middleware.types import Layer

T = TypeVar("T")

BUILT_IN = {
    "Counters": ("MemoryCounters", "SQLiteCounters", "RedisCounters", "LimitsCounters"),
    "Credential": (
        "BasicCredential",
        "BearerCredential",
        "HeaderCredential",
        "ClientCredentials",
        "ManagedIdentity",
        "TokenExchange",
    ),
    "Entries": ("MemoryEntries", "SQLiteEntries", "RedisEntries"),
    "KeyStore": ("MemoryKeys", "RecordKeys"),
    "Permits": ("MemoryPermits", "SQLitePermits", "RedisPermits"),
    "Records": ("MemoryRecords", "SQLiteRecords", "RedisRecords"),
    "Replays": ("SQLiteEntries", "RedisEntries"),
    "Secret": ("EnvironmentSecret", "FileSecret", "KeyVaultSecret"),
    "Transport": ("Http1Transport", "HttpxTransport", "Httpx2Transport"),
    "UserStore": ("MemoryUsers",),
}
"""For each protocol, what this package has of it."""


_PLAIN = (dict, frozenset, list, set, tuple)
"""Factories of defaults that can be called to see what comes of it."""


class Configured:
    """Base of every frozen dataclass a user writes: wrong names, missing fields and wrong types are a ConfigError."""

    one_by_one: ClassVar[str] = ""
    """The field whose values are given one after the other, without its name, as the layers of ``AnyOf``."""

    def __new__(cls, *args: object, **given: object) -> Self:
        """Check what was given before the dataclass keeps it."""
        if dataclasses.is_dataclass(cls):
            named = {field.name: field for field in dataclasses.fields(cls) if field.init}
            given = {**_positional(cls, named, args), **given}
            _check_names(cls, named, given)
            hints = _hints(cls)
            for name, value in given.items():
                if is_factory(value):
                    raise ConfigError(cls.__name__, name, *uncalled(value))
                if not matches(value, hints[name]):
                    secret = not named[name].repr
                    problem, cure = _misfit(name, value, hints[name], secret=secret)
                    cure = cls.cure_of(name, value) or cure
                    if value is None and not _is_compulsory(named[name]):
                        cure = f"Leave it out, or {cure[0].lower()}{cure[1:]}"
                    raise ConfigError(cls.__name__, name, f"{shown(value, secret=secret)} {problem}", cure)
        return super().__new__(cls)

    def __init_subclass__(cls, **given: object) -> None:
        """Keep dataclasses from writing a repr that says every default."""
        super().__init_subclass__(**given)
        cls.__repr__ = cls.__repr__  # type: ignore[method-assign] # they write none where a class has its own

    def __repr__(self) -> str:
        """The call that would make it again, but for what is secret; what was left to the defaults is left out."""
        if not dataclasses.is_dataclass(self):
            return object.__repr__(self)
        return f"{type(self).__name__}({', '.join(self._said())})"

    def _said(self) -> Iterator[str]:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            named = field.kw_only or bool(self.one_by_one)
            if field.name == self.one_by_one:
                yield from map(written, value)
            elif field.repr and field.init and not (named and _is_default(field, value)):
                yield f"{field.name}={written(value)}" if named else written(value)

    @classmethod
    def cure_of(cls, field: str, value: object) -> str | None:
        """The cure for a value that does not fit, where a class knows more of it than the annotation says."""
        return None

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, object]]:
        """Copying and pickling go through the same checks as building."""
        if not dataclasses.is_dataclass(self):
            return (), {}
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        return given.pop(self.one_by_one, ()), given

    def mistake(self, field: str, problem: str, cure: str) -> ConfigError:
        """A ConfigError about one field, with the value that was given."""
        secret = any(each.name == field and not each.repr for each in dataclasses.fields(self))  # type: ignore[arg-type]
        value = shown(getattr(self, field, None), secret=secret)
        return ConfigError(type(self).__name__, field, f"{value} {problem}", cure)


def _is_default(field: "dataclasses.Field[Any]", value: object) -> bool:
    """Whether a value says no more than the default; what compares in ways of its own says more."""
    default = field.default_factory() if field.default_factory in _PLAIN else field.default
    try:
        return value is default or (type(value) is type(default) and bool(value == default))
    except Exception:
        return False


def _misfit(name: str, value: object, wanted: Any, *, secret: bool) -> tuple[str, str]:  # noqa: ANN401 - an annotation
    """What is wrong with a value that does not fit an annotation, and the cure, which shows no secret."""
    problem = f"is not {describe(wanted)}"
    if cure := _said_elsewhere(name, value, wanted, secret=secret):
        return problem, cure
    arms = arms_of(wanted)
    tuples = [args[0] for arm in arms if (args := typing.get_args(arm))[1:] == (Ellipsis,)]
    if any(map(is_key, (*arms, *tuples))) and (texts := _texts_in(value)):
        return problem, _key_cure(name, texts, alone=isinstance(value, str))
    if tuples and isinstance(value, list | set | frozenset):
        return f"is a {type(value).__name__}", f"Write {name}={_as_tuple(value, secret=secret)}, a tuple"
    if any(matches(value, each) for each in tuples):
        one = '"..."' if isinstance(value, str) else "..."
        return problem, f"Write {name}=({one},), with the comma"
    if any(typing.get_origin(arm) is frozenset for arm in arms) and isinstance(value, str | Collection):
        return problem, f"Write {name}=frozenset({{...}})"
    if isinstance(value, type) and _is_made_by(value, wanted):
        return "is a class, and an object of it is wanted", f"Write {name}={value.__name__}(...)"
    for each in value if isinstance(value, tuple) else ():
        if isinstance(each, type) and any(_is_made_by(each, one) for one in tuples):
            return f"holds the class {each.__name__}, and an object of it is wanted", f"Write {each.__name__}(...)"
    return problem, f"Give {offer(wanted)}"


def _said_elsewhere(name: str, value: object, wanted: Any, *, secret: bool) -> str | None:  # noqa: ANN401
    """The cure for a value as others write it: another word, a duration with a unit, a condition as text."""
    arms = arms_of(wanted)
    if isinstance(value, str) and any(typing.get_origin(arm) is Literal for arm in arms):
        return VALUES.get((name, value.lower()))
    if isinstance(value, str) and float in arms and not secret:
        seconds = seconds_in(value)
        return None if seconds is None else f"Give seconds: {seconds}"
    if any(map(is_condition, arms)) and (condition := condition_named(value)):
        return f"Write {condition}"
    return None


def _key_cure(name: str, texts: Sequence[str], *, alone: bool) -> str:
    """How the keys that texts name are written, one alone or a tuple of them."""
    keys = [key for each in texts if (key := key_named(each))]
    if len(keys) < len(texts):
        return "Give a key such as by.client, or a function of the exchange"
    written = ", ".join(keys) + ("," if len(keys) == 1 else "")
    return f"Write {name}={keys[0] if alone else f'({written})'}"


def _as_tuple(value: Collection[object], *, secret: bool) -> str:
    """A list as the tuple that is meant, where it is short and has an order; the values of a secret are not shown."""
    text = repr(tuple(value)) if isinstance(value, list) and not secret else ""
    return text if text and len(text) <= 80 and "<" not in text else "(..., ...)"


def _texts_in(value: object) -> list[str]:
    """A text, or those of a tuple or list of texts."""
    found = value if isinstance(value, tuple | list) else [value]
    texts = [each for each in found if isinstance(each, str)]
    return texts if len(texts) == len(found) else []


def _is_made_by(kind: type, wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    """Whether a class makes what is wanted."""
    if len(arms := arms_of(wanted)) > 1:
        return any(_is_made_by(kind, arm) for arm in arms)
    if wanted == Layer:
        return issubclass(kind, Configured)
    if not isinstance(wanted, type) or wanted is type or wanted is object:
        return False
    if getattr(wanted, "_is_protocol", False):
        return all(hasattr(kind, name) for name, each in vars(wanted).items() if name[0] != "_" and callable(each))
    return issubclass(kind, wanted)


def offer(wanted: Any) -> str:  # noqa: ANN401 - an annotation
    """What can be given where an annotation stands; of a protocol, what there is."""
    arms = [arm for arm in arms_of(wanted) if arm is not type(None)]
    if not any(getattr(arm, "_is_protocol", False) for arm in arms):
        return describe(wanted)
    return " or ".join(_offer(arm) for arm in arms)


def _offer(wanted: Any) -> str:  # noqa: ANN401 - an annotation
    if not getattr(wanted, "_is_protocol", False):
        return describe(wanted)
    if known := BUILT_IN.get(wanted.__name__):
        return f"{', '.join(known)} or another {wanted.__name__}"
    return f"a {wanted.__name__}, which has {' and '.join(methods_of(wanted))}"


def _positional(cls: type, named: Mapping[str, Any], args: Sequence[object]) -> dict[str, object]:
    places = [name for name, field in named.items() if not field.kw_only]
    if len(args) > len(places):
        allowed = "by name only" if not places else f"at most {len(places)} without a name ({', '.join(places)})"
        if not places and callable(args[0]):  # as in app.add_middleware(RateLimit, calls=10, per=60)
            problem, cure = "the class was given where a policy is wanted", f"Write add_middleware({cls.__name__}(...))"
            raise ConfigError(cls.__name__, "", problem, cure)
        raise ConfigError(cls.__name__, "", f"fields are given {allowed}", f"Write {cls.__name__}(field=value, ...)")
    return dict(zip(places, args, strict=False))


def _check_names(cls: type, named: Mapping[str, Any], given: Mapping[str, object]) -> None:
    check_known(cls.__name__, given, named)
    for name, field in named.items():
        if _is_compulsory(field) and name not in given:
            raise ConfigError(cls.__name__, name, "is missing", f"Write {cls.__name__}({name}=...)")


def _is_compulsory(field: Any) -> bool:  # noqa: ANN401 - of any type
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@lru_cache(maxsize=1024)
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def shown(value: object, *, secret: bool = False) -> str:
    """A value as an error message may show it: short, and never a secret."""
    if secret:
        return f"a value of type {type(value).__name__}"
    text = written(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def in_one_line(error: BaseException) -> str:
    """What an error says, as a message can hold it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def check_known(owner: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse a name that means nothing here, and tell the one that was perhaps meant."""
    names = tuple(known)
    for name, value in given.items():
        if name not in names:
            near = nearest(name, names)
            cure = f"Did you mean {near}?" if near else f"The fields are {', '.join(names)}"
            cure = advice(name, names) or cure
            raise ConfigError(owner, name, f"no such field (given {shown(value, secret=True)})", cure)


def check_named(made: type, given: Mapping[str, object]) -> None:
    """The same for a class that is no dataclass: what it knows is what its ``__init__`` takes by name."""
    if given:
        _, *parameters = inspect.signature(made.__init__).parameters.values()  # type: ignore[misc]
        known = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL]
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            check_known(made.__name__, given, known)


def check_one_by_one(owner: str, field: str, given: Mapping[str, object]) -> None:
    """Refuse as one field what is given one after the other."""
    if field in given:
        raise ConfigError(owner, field, "is not given by name", f"Write {owner}(first, second, ...)")


def check(owner: str, field: str, value: object, wanted: Any, *, cure: str = "", secret: bool = False) -> None:  # noqa: ANN401
    """Raise a ConfigError for what does not fit an annotation, on behalf of a class that is not ``Configured``."""
    if not matches(value, wanted):
        problem, remedy = _misfit(field, value, wanted, secret=secret)
        raise ConfigError(owner, field, f"{shown(value, secret=secret)} {problem}", cure or remedy)


def check_count(owner: str, field: str, count: int, *, least: int = 1) -> None:
    """Raise a ConfigError for what is no whole number, or too few."""
    check(owner, field, count, int)
    if count < least:
        raise ConfigError(owner, field, f"{count} is not at least {least}", f"Give {least} or more")


def several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """What a field holds that takes one thing or a tuple of them."""
    return value if isinstance(value, tuple) else (value,)


def is_text(value: str) -> bool:
    """Whether UTF-8 can carry a text: what the environment has of other bytes becomes half surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def awaits(function: object) -> bool:
    """Whether what a function gives must be awaited, as far as can be seen without calling it."""
    while isinstance(function, partial):
        function = function.func
    return any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None))))  # noqa: B004


def is_factory(value: object) -> bool:
    """Whether this makes keys or conditions, such as ``by.header``, and is none itself."""
    return isinstance(value, types.FunctionType) and getattr(value, "factory", None) is value


def uncalled(factory: object) -> tuple[str, str]:
    """What is wrong with a factory that was given in the place of what it makes, and the cure."""
    name = f"{getattr(factory, '__module__', '').rpartition('.')[2]}.{getattr(factory, '__name__', '')}"
    return f"{name} was not called", f"Call it: {name}(...)"
