"""Places in a document, as JSON pointers in a URI fragment (RFC 6901 §6), and what is said of one that is wrong."""

from typing import NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from apim_middleware.errors import ConfigError

KINDS: dict[type, str] = {
    type(None): "null",
    dict: "an object",
    list: "an array",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}
"""What values are called."""

_SAFE = "/~!$&'()*+,;=:@-._{}"


class Within(NamedTuple):
    """A place within another; it is written out only when somebody wants to read it."""

    outer: "Place"
    name: str | int

    def __str__(self) -> str:
        """The pointer."""
        names: list[str | int] = []
        place: Place = self
        while isinstance(place, Within):
            names.append(place.name)
            place = place.outer
        return pointer(place, *reversed(names))


Place: TypeAlias = str | Within


def below(place: Place, *names: str | int) -> Within:
    """The place of something within."""
    outermost, *others = names
    found = Within(place, outermost)
    for name in others:
        found = Within(found, name)
    return found


def pointer(place: str, *names: str | int) -> str:
    """The pointer to something within a place."""
    return place + "".join(f"/{quote(str(each).replace('~', '~0').replace('/', '~1'), safe=_SAFE)}" for each in names)


def steps_of(place: str) -> list[str]:
    """The names that lead from the document to a place. Raises ValueError for what is no pointer."""
    if not place.startswith("#"):
        raise ValueError("leads out of the document")
    if place == "#":
        return []
    if not place.startswith("#/"):
        raise ValueError("is no JSON pointer")
    parts = place.removeprefix("#/").split("/")
    return [unquote(each, errors="strict").replace("~1", "/").replace("~0", "~") for each in parts]


def kind_of(value: object) -> str:
    """What a value is, in the words of JSON where it has some."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def mistake(place: Place, problem: str, cure: str) -> ConfigError:
    """What is wrong with a document at a place, and what to do about it."""
    return ConfigError("OpenAPI", _short(str(place)), _short(problem), cure)


def _short(text: str) -> str:
    """A text of the document as a message may show it: of one line, and not for ever."""
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= 300 else f"{text[:297]}..."
