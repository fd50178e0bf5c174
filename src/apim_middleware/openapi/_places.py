"""Places in a document, as JSON pointers in a URI fragment (RFC 6901 §6), and what is said of one that is wrong."""

from urllib.parse import quote, unquote

from apim_middleware.errors import ConfigError

_SAFE = "/~!$&'()*+,;=:@-._{}"


def below(place: str, *names: str | int) -> str:
    """The place of something within."""
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


def mistake(place: str, problem: str, cure: str) -> ConfigError:
    """What is wrong with a document at a place, and what to do about it."""
    return ConfigError("OpenAPI", _short(place), _short(problem), cure)


def _short(text: str) -> str:
    """A text of the document as a message may show it: of one line, and not for ever."""
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= 300 else f"{text[:297]}..."
