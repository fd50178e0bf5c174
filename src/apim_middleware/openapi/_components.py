"""The components of a document that is being made: what several documents bring, each under a name of its own."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from apim_middleware.openapi._checking import find
from apim_middleware.openapi._grammar import SECTIONS, SHAPES, is_reference, members
from apim_middleware.openapi._places import pointer, steps_of
from apim_middleware.openapi._upgrade import upgraded

_UNCLEAN = re.compile(r"[^A-Za-z0-9._-]+")
_SCHEMES = "#/components/securitySchemes"


class Components:
    """Components by section and name. What means the same is one; another thing of the same name gets another name."""

    def __init__(self, present: Mapping[str, Any] | None = None) -> None:
        """``present``: those of the document that is added to."""
        self.sections: dict[str, dict[str, Any]] = {
            section: dict(named) for section, named in (present or {}).items() if isinstance(named, Mapping)
        }
        self._sources: dict[tuple[str, str], tuple[Source, str]] = {}

    def put(self, section: str, wished: str, definition: object) -> str:
        """Add one, and say what it is called."""
        named = self.sections.setdefault(section, {})
        name = next(each for each in _names(wished) if named.get(each, definition) == definition)
        named[name] = definition
        return name

    def claim(self, source: "Source", section: str, reference: str) -> tuple[str, bool]:
        """The name for what a reference of a source leads to, and whether it is still to be added."""
        wished = _UNCLEAN.sub("-", steps_of(reference)[-1] if reference != "#" else "").strip("-") or section
        named = self.sections.setdefault(section, {})
        others = itertools.islice(_names(f"{source.owner}.{wished}"), len(named) + 1)
        for name in itertools.chain((wished,), others):
            known = self._sources.get((section, name))
            if known is not None and known[0].closure(known[1]) == source.closure(reference):
                return name, False
            if name not in named:
                self._sources[section, name] = source, reference
                named[name] = {}
                return name, True
        raise AssertionError  # pragma: no cover - one more name was tried than there are

    def written(self) -> dict[str, Any]:
        """The ``components`` object of the document; sections that hold nothing are left out."""
        return {section: named for section, named in self.sections.items() if named}


class Source:
    """One imported document, whose objects are copied into another; references follow what they lead to."""

    def __init__(self, root: Mapping[str, Any], owner: str, into: Components) -> None:
        """``owner`` is put in front of names that others have already."""
        self.root = dict(root)
        self.owner = owner
        self.ids: dict[str, str] = {}
        """The operation ids of this document, as they are now."""

        self._into = into
        self._old = str(root.get("openapi", "")).startswith("3.0")
        self._names: dict[str, str] = {}
        self._closures: dict[str, str] = {}
        self._later: list[tuple[str, str, str]] = []

    def taken(self, kind: str, value: Any) -> Any:  # noqa: ANN401 - an object of this kind
        """A copy of an object, everything it refers to added to the components."""
        copied = self._copy(kind, value)
        self._finish()
        return copied

    def security(self, requirements: Iterable[Mapping[str, list[str]]]) -> list[dict[str, list[str]]]:
        """Security requirements, their schemes added to the components."""
        found = [
            {self._name("securitySchemes", pointer(_SCHEMES, name)): list(scopes) for name, scopes in each.items()}
            for each in requirements
        ]
        self._finish()
        return found

    def _finish(self) -> None:
        while self._later:
            section, name, reference = self._later.pop()
            kind = SHAPES["components"].named[section]
            self._into.sections[section][name] = self._copy(kind, find(self.root, "#", reference))

    def _copy(self, kind: str, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return value
        if is_reference(kind, value):
            value = {**self._beside(kind, value), "$ref": self._reference(kind, value["$ref"])}
        copied = {name: _shallow(each) for name, each in value.items()}
        for names, part, each in members(kind, value):
            holder: Any = copied
            for name in names[:-1]:
                holder = holder[name]
            holder[names[-1]] = self._copy(part, each)
        return self._adapted(kind, copied)

    def _beside(self, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        """What counts beside a reference: in OpenAPI 3.0 nothing does."""
        if self._old:
            return {}
        return (
            value if kind == "schema" else {name: value[name] for name in ("summary", "description") if name in value}
        )

    def _adapted(self, kind: str, copied: dict[str, Any]) -> dict[str, Any]:
        """What the new document says otherwise: names of other things, and what OpenAPI 3.1 has other words for."""
        if kind == "link":
            for hidden in ("server", "operationRef"):  # the backend's, and paths that are others now
                copied.pop(hidden, None)
            if "operationId" in copied:
                copied["operationId"] = self.ids.get(copied["operationId"], copied["operationId"])
        if kind != "schema":
            return copied
        choice = copied.get("discriminator")
        if isinstance(choice, dict) and isinstance(choice.get("mapping"), dict):
            mapping = {name: self._mapped(target) for name, target in choice["mapping"].items()}
            copied["discriminator"] = {**choice, "mapping": mapping}
        return upgraded(copied) if self._old else copied

    def _mapped(self, target: object) -> object:
        """What a discriminator maps to: a reference, or the name of a schema."""
        if not isinstance(target, str):
            return target
        reference = target if target.startswith("#") else pointer("#/components/schemas", target)
        try:
            find(self.root, "#", reference)
        except ValueError:
            return target
        return self._reference("schema", reference)

    def _reference(self, kind: str, reference: str) -> str:
        """Where that is now to which a reference leads; what is no component becomes one."""
        steps = steps_of(reference)
        section = steps[1] if len(steps) > 2 and steps[0] == "components" else ""
        if section in SHAPES["components"].named:
            name = self._name(section, pointer("#/components", *steps[1:3]))
            return pointer("#/components", section, name, *steps[3:])
        return pointer("#/components", SECTIONS[kind], self._name(SECTIONS[kind], reference))

    def _name(self, section: str, reference: str) -> str:
        name = self._names.get(reference)
        if name is None:
            name, new = self._into.claim(self, section, reference)
            self._names[reference] = name
            if new:
                self._later.append((section, name, reference))
        return name

    def closure(self, reference: str) -> str:
        """Everything a reference leads to, as one text: equal for what means the same."""
        if reference not in self._closures:
            found: dict[str, Any] = {}
            waiting = [reference]
            while waiting:
                each = waiting.pop()
                if each not in found:
                    found[each] = _found(self.root, each)
                    waiting += _references(found[each])
            self._closures[reference] = json.dumps([self._old, found], sort_keys=True)
        return self._closures[reference]


def _names(wished: str) -> Iterator[str]:
    yield wished
    yield from (f"{wished}-{number}" for number in itertools.count(2))


def _found(root: dict[str, Any], reference: str) -> Any:  # noqa: ANN401 - whatever is there
    try:
        return find(root, "#", reference)
    except ValueError:
        return None  # of an example, which may look like anything


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            yield reference
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _shallow(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, list) else value
