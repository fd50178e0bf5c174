"""A walk through a whole document: everything is what it should be, and every reference leads to what it should."""

from collections.abc import Mapping
from typing import Any

from apim_middleware.errors import ConfigError
from apim_middleware.openapi._grammar import SHAPES, is_reference, members
from apim_middleware.openapi._places import KINDS, Place, below, kind_of, mistake, pointer, steps_of

MOST_REFERENCES = 100_000
"""How many references there may be."""

_LONGEST_CHAIN = 50
_SCHEMES = "#/components/securitySchemes"


def find(root: Mapping[str, Any], place: Place, reference: str) -> Any:  # noqa: ANN401 - whatever is there
    """What a reference leads to. Raises ConfigError, which names the place of the reference."""
    try:
        names = steps_of(reference)
    except ValueError as error:
        cure = "Put what it means into the document; nothing is fetched from elsewhere"
        raise mistake(place, f"refers to {reference!r}, which {error}", cure) from None
    found: Any = root
    for name in names:
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and len(name) < 10 and int(name) < len(found):
            found = found[int(name)]
        else:
            raise mistake(place, f"refers to {reference!r}, which is not there", "Define it, or correct the reference")
    return found


def resolve(root: Mapping[str, Any], place: Place, kind: str, value: Any) -> Any:  # noqa: ANN401 - an object of that kind
    """An object, or what stands behind its references. Raises ConfigError for one that leads in a circle."""
    seen = set[str]()
    while is_reference(kind, value):
        reference: str = value["$ref"]
        if reference in seen:
            raise mistake(place, f"refers to {reference!r}, which leads back to itself", "End it with a definition")
        if len(seen) > _LONGEST_CHAIN:
            raise mistake(place, "refers to what refers on and on", "Refer to the definition itself")
        seen.add(reference)
        value = find(root, place, reference)
    return value


def check(root: dict[str, Any]) -> None:
    """Refuse what is of the wrong type, and references that lead nowhere or to another kind. Raises ConfigError."""
    walk = _Walk(root)
    walk.object("#", "document", root)
    walk.follow()


class _Walk:
    """Every object once, with the kind it is used as; schemas may lead to themselves."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._seen: set[tuple[int, str]] = set()
        self._references = 0
        self._later: list[tuple[Place, str, Any]] = []

    def follow(self) -> None:
        """What was referred to, until nothing new comes."""
        while self._later:
            self.object(*self._later.pop())

    def object(self, place: Place, kind: str, value: Any) -> None:  # noqa: ANN401 - it is to be found out
        if kind == "schema" and isinstance(value, bool):
            return
        if not isinstance(value, dict):
            raise mistake(place, f"is {kind_of(value)}, where an object is wanted", f"Give {_ARTICLE[kind]}")
        if (id(value), kind) in self._seen:
            return
        self._seen.add((id(value), kind))
        if is_reference(kind, value):
            self._reference(place, kind, value)
            if kind != "schema":
                return
        self._check(place, kind, value)
        for names, part, each in members(kind, value):
            self.object(below(place, *names), part, each)

    def _reference(self, place: Place, kind: str, value: dict[str, Any]) -> None:
        self._references += 1
        if self._references > MOST_REFERENCES:
            raise mistake(place, f"is one of more than {MOST_REFERENCES} references", "Import its parts one by one")
        target = find(self._root, place, value["$ref"])
        if kind == "schema":
            self._later.append((value["$ref"], kind, target))  # which may lead back here
        else:
            self._later.append((value["$ref"], kind, resolve(self._root, place, kind, target)))

    def _check(self, place: Place, kind: str, value: dict[str, Any]) -> None:
        shape = SHAPES[kind]
        for names, wanted in ((shape.texts, str), (shape.many, list), (shape.named, dict)):
            for name in names:
                if name in value and not isinstance(value[name], wanted):
                    problem = f"is {kind_of(value[name])}, where {KINDS[wanted]} is wanted"
                    raise mistake(below(place, name), problem, f"Give {KINDS[wanted]}")
        if kind == "schema" and "$id" in value:
            cure = "Leave $id out; references then go by the document"
            raise mistake(below(place, "$id"), "gives the references in this schema another base", cure)
        if kind == "requirement":
            _check_requirement(self._root, place, value)


def _check_requirement(root: dict[str, Any], place: Place, value: dict[str, Any]) -> None:
    for name, scopes in value.items():
        if not isinstance(scopes, list) or not all(isinstance(each, str) for each in scopes):
            raise mistake(below(place, name), "is no array of scopes", "Give an array of texts, empty for none")
        try:
            find(root, place, pointer(_SCHEMES, name))
        except ConfigError:
            problem, cure = "names a security scheme that is not there", f"Define it under {_SCHEMES}"
            raise mistake(below(place, name), problem, cure) from None


_ARTICLE = {
    kind: f"an object as {words} has it"
    for kind, words in {
        **{kind: f"the {kind.capitalize()} Object of OpenAPI" for kind in SHAPES},
        "path": "the Path Item Object of OpenAPI",
        "body": "the Request Body Object of OpenAPI",
        "media": "the Media Type Object of OpenAPI",
        "requirement": "the Security Requirement Object of OpenAPI",
        "scheme": "the Security Scheme Object of OpenAPI",
        "variable": "the Server Variable Object of OpenAPI",
    }.items()
}
