"""URL templates of operations: ``/orders/{id}``, ``/files/*``, ``/report.{format}``, ``/search?q={text}``.

A template is compared segment by segment with the canonical, decoded path, and never by a regular expression.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias
from urllib.parse import unquote

from apim_middleware._http import queries
from apim_middleware._http.paths import BadTarget, canonical_path

_MOST_SEGMENTS = 64


@dataclass(frozen=True)
class Mixed:
    """A segment of text and parameters: ``report.{format}``. The shortest text that fits stands for each parameter."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[str, ...]:
        """What tells it from others: all but the names."""
        return self.texts

    def read(self, segment: str) -> list[str] | None:
        """What its parameters stand for in a segment, none of them nothing; None when it is of another shape."""
        first, *others = self.texts
        if not segment.startswith(first):
            return None
        at, found = len(first), list[str]()
        for number, text in enumerate(others, 1):
            last = number == len(others)
            end = len(segment) - len(text) if last else segment.find(text, at + 1)
            if end <= at or not segment.startswith(text, end):
                return None
            found.append(segment[at:end])
            at = end + len(text)
        return found


Segment: TypeAlias = str | Mixed | None
"""Text, a mixture, or None for a parameter that is the whole segment."""


@dataclass(frozen=True)
class UrlTemplate:
    """A template taken apart."""

    text: str
    segments: tuple[Segment, ...]
    names: tuple[str, ...]
    """Of the parameters that are whole segments, in order."""

    rest: str | None = None
    """What the wildcard at the end is called, when there is one."""

    query: tuple[tuple[str, str | None, str], ...] = ()
    """Parameters the query must have: name, the text it must be or None, and what it is called then."""

    @cached_property
    def shape(self) -> tuple[object, ...]:
        """Equal for templates that nobody could choose between."""
        segments = tuple(each.shape if isinstance(each, Mixed) else each for each in self.segments)
        return segments, self.rest is not None, frozenset((name, text) for name, text, _ in self.query)

    @cached_property
    def place(self) -> tuple[object, ...]:
        """Equal for templates that only the query tells apart."""
        return self.shape[:2]

    @cached_property
    def told_by(self) -> tuple[str, ...]:
        """The parameters of the query that must have one value, so that nobody can say what two of them mean."""
        return tuple(name for name, text, _ in self.query if text is not None)

    def asks(self, query: bytes) -> bool:
        """Whether a query has what the template says it must have."""
        for name, text, _ in self.query:
            found = queries.values(query, name)
            if not found or (text is not None and found != [text]):
                return False
        return True

    def values(self, segments: Sequence[str], query: bytes) -> dict[str, str]:
        """What the parameters stand for in the segments of a path that matches; of several in a query, the first.

        One that is in the query no more, for a policy took it away, is left out.
        """
        names, found = iter(self.names), dict[str, str]()
        for template, segment in zip(self.segments, segments, strict=False):
            if template is None:
                found[next(names)] = segment
            elif isinstance(template, Mixed):
                found.update(zip(template.names, template.read(segment) or (), strict=False))
        if self.rest is not None:
            found[self.rest] = "/".join(segments[len(self.segments) :])
        for name, text, called in self.query:
            if text is None and (asked := queries.values(query, name)):
                found[called] = asked[0]
        return found


def parsed(text: str) -> UrlTemplate:
    """Take a template apart. Raises ValueError, which says what no path could match."""
    path, _, query = text.partition("?")
    if not path.startswith("/"):
        raise ValueError("it does not begin with a slash")
    parts = path.split("/")[1:]
    if len(parts) > _MOST_SEGMENTS:
        raise ValueError(f"it has more than {_MOST_SEGMENTS} segments")
    rest = _wildcard(parts[-1])
    if rest is not None:
        parts.pop()
    elif parts == [""]:
        parts = []
    if "" in parts[:-1]:
        raise ValueError("it holds an empty segment")
    segments = tuple(map(_segment, parts))
    names = [part[1:-1] for part, segment in zip(parts, segments, strict=True) if segment is None]
    asked = tuple(_asked(pair) for pair in query.split("&")) if query else ()
    _check_names([*names, *_mixed_names(segments), *([rest] if rest else []), *(each[2] for each in asked if each[2])])
    return UrlTemplate(text, segments, tuple(names), rest, asked)


def _wildcard(part: str) -> str | None:
    """The name of the rest of the path, when this last segment stands for it."""
    if part == "*":
        return "*"
    if part.startswith("{*") and part.endswith("}"):
        return part[2:-1]
    return part[1:-6] if part.startswith("{") and part.endswith(":path}") else None


def _segment(part: str) -> Segment:
    if "*" in part or ":path}" in part:
        raise ValueError("a wildcard can only be the whole last segment")
    if "{" not in part and "}" not in part:
        _check_text(part)
        return sys.intern(part)  # thousands of operations share their texts
    texts, names = _cut(part)
    if texts == ["", ""]:
        return None
    if "" in texts[1:-1]:
        raise ValueError(f"nothing tells where a parameter of {part} ends")
    _check_text("x".join(texts))
    return Mixed(tuple(texts), tuple(names))


def _cut(part: str) -> tuple[list[str], list[str]]:
    """The texts before, between and behind the parameters, and the names of those."""
    texts, names = [""], list[str]()
    for piece in part.replace("}", "}\0").replace("{", "\0{").split("\0"):
        if piece.startswith("{") and piece.endswith("}"):
            names.append(piece[1:-1])
            texts.append("")
        elif "{" in piece or "}" in piece:
            raise ValueError(f"the braces of {part} do not match")
        else:
            texts[-1] += piece
    return texts, names


def _check_text(text: str) -> None:
    if unquote(text) != text:
        raise ValueError("it holds a percent-escape, which is compared decoded")
    try:
        plain = not text or canonical_path(f"/{text}", None)[0] == f"/{text}"
    except BadTarget as error:
        raise ValueError(str(error)) from None
    if not plain or "#" in text or "\0" in text:
        raise ValueError("it holds what no canonical path can")


def _mixed_names(segments: Sequence[Segment]) -> list[str]:
    return [name for each in segments if isinstance(each, Mixed) for name in each.names]


def _asked(pair: str) -> tuple[str, str | None, str]:
    name, _, value = pair.partition("=")
    if not name or "{" in name:
        raise ValueError("its query holds a parameter without a name")
    if value.startswith("{") and value.endswith("}"):
        return name, None, value[1:-1]
    if "{" in value or "}" in value or unquote(pair) != pair:
        raise ValueError("a query holds name=text or name={parameter}, both decoded")
    return name, value, ""


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not name or "{" in name or "}" in name or "/" in name:
            raise ValueError("it holds a parameter without a name")
        if names.count(name) > 1:
            raise ValueError(f"it holds {{{name}}} twice")
