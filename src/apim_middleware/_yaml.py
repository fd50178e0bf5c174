"""YAML 1.2 with its core schema, read from the parser's events: ``no`` and ``on`` are texts, and there are no dates.

Nothing is constructed but dicts, lists, texts, numbers, booleans and null; there are no tags of Python's and no merge
keys. Events need no recursion, and aliases are counted as often as they are used.
"""

import re
from dataclasses import dataclass, field
from typing import Any

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = frozenset(("true", "True", "TRUE")), frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CORE = "tag:yaml.org,2002:"


class NotYAML(ValueError):
    """What cannot be read, and where."""


@dataclass(eq=False)
class _Open:
    """A list or an object that is being read."""

    value: Any
    anchor: str | None
    size: int = 1
    name: str | None = None
    """Of an object: the name whose value comes next."""

    names: set[str] = field(default_factory=set)


class _Building:
    """Puts values where they belong, one event after the other."""

    def __init__(self, deepest: int, most: int) -> None:
        self.result: Any = None
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._deepest, self._left = deepest, most

    def begin(self, value: Any, anchor: str | None) -> None:  # noqa: ANN401 - a list or a dict
        if len(self._open) > self._deepest:
            raise NotYAML(f"it is nested more than {self._deepest} deep")
        if anchor is not None:
            self._anchors.pop(anchor, None)  # a name may be given again; until its end it means nothing
        self._open.append(_Open(value, anchor))

    def end(self) -> None:
        done = self._open.pop()
        self.put(done.value, done.anchor, done.size)

    def alias(self, anchor: str | None) -> None:
        if anchor is None or anchor not in self._anchors:
            raise NotYAML(f"*{str(anchor)[:40]} stands for nothing, or for what it is in")
        value, size = self._anchors[anchor]
        self.put(value, None, size)

    def put(self, value: Any, anchor: str | None, size: int = 1, event: Any = None) -> None:  # noqa: ANN401
        self._left -= 1
        if anchor is not None:
            self._anchors[anchor] = value, size
        if not self._open:
            self.result = value
            return
        parent = self._open[-1]
        parent.size += size
        if parent.size > self._left:
            raise NotYAML("it holds too many values")
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.name is None:
            parent.name = _name(event, parent)
        else:
            parent.value[parent.name], parent.name = value, None


def _name(event: Any, parent: _Open) -> str:  # noqa: ANN401 - an event of the parser, or None
    """A name as it is written: 200 under responses is ``"200"``."""
    if event is None:
        raise NotYAML("an object has a name that is no text")
    name: str = event.value
    if name == "<<" and event.implicit[0]:
        raise NotYAML("it merges objects with <<, which YAML 1.2 has no more")
    if name in parent.names:
        raise NotYAML(f"an object holds {name[:40]!r} twice")
    parent.names.add(name)
    return name


def parse(text: str, deepest: int, most: int) -> object:
    """The values of a text with one document. Raises NotYAML, and ImportError where there is no parser.

    They are nested no deeper than ``deepest``, and no more than ``most``.
    """
    import yaml  # an extra, for who needs it

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    building, documents = _Building(deepest, most), 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                building.put(_scalar(event), event.anchor, event=event)
            elif isinstance(event, yaml.AliasEvent):
                building.alias(event.anchor)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                named = isinstance(event, yaml.MappingStartEvent)
                _check_tag(event.tag, "map" if named else "seq")
                building.begin({} if named else [], event.anchor)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                building.end()
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise NotYAML("it holds several documents")
    except NotYAML as error:
        raise NotYAML(f"{error} {_place(event.start_mark)}") from None
    except yaml.YAMLError as error:
        raise NotYAML(_told(error)) from None
    except RecursionError:
        raise NotYAML(f"it is nested more than {deepest} deep") from None
    return building.result


def _told(error: Exception) -> str:
    """What is wrong, and where, without the line itself, which may hold a secret."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return type(error).__name__
    return f"{problem} {_place(mark)}"


def _place(mark: Any) -> str:  # noqa: ANN401 - a mark of the parser
    return f"(at line {mark.line + 1}, column {mark.column + 1})"


def _check_tag(tag: str | None, wanted: str) -> None:
    if tag not in (None, "!", _CORE + wanted):
        raise NotYAML(f"it holds the tag {tag}, which JSON does not have"[:120])


def _scalar(event: Any) -> object:  # noqa: ANN401 - an event of the parser
    plain, quoted = event.implicit
    text: str = event.value
    if event.tag in ("!", _CORE + "str") or (quoted and not plain):
        return text
    if not plain:
        _check_tag(event.tag, "str")
    return _plain(text)


def is_plain(text: str) -> bool:
    """Whether a text means itself where it stands without quotes."""
    try:
        return isinstance(_plain(text), str)
    except NotYAML:
        return False


def _plain(text: str) -> object:
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    return _number(text)


def _number(text: str) -> object:
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _NOT_FINITE.fullmatch(text):
            return float(text.replace(".", ""))
    except ValueError:
        raise NotYAML("a number has too many digits") from None
    return text
