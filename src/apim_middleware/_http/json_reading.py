"""JSON that everybody reads in the same way (RFC 8259, RFC 7493), and places in it (RFC 6901)."""

import json
import math
import re
from typing import Any

JSON = Any
"""Whatever JSON can say, as Python has it."""

_DEEPEST = 128
_LONGEST_INTEGER = 20
"""Digits that fit into 64 bits: beyond, some round, some fail and some do not end."""

_SAFE_INTEGER = 2**53 - 1
"""The largest that a double tells apart from its neighbours (RFC 7493 §2.2)."""

_CHARSET = re.compile(rb"charset([^;,]*)").findall
_UTF8 = re.compile(rb"\s*=\s*([\"']?)utf-?8\1\s*").fullmatch
_FORM = re.compile(rb"(?:^|,)\s*(?:application/x-www-form-urlencoded|multipart/)").search
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]").search
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*").fullmatch


class Unclear(ValueError):
    """What is written is no JSON, or some would read it otherwise; the text holds nothing of it."""


def read_json(text: bytes, kind: bytes = b"") -> JSON:
    """What a text says, which came with this ``Content-Type``. Raises Unclear where readers differ.

    They do about members named twice, ``NaN``, numbers that fit into no 64 bits, half of a surrogate pair, a byte order
    mark, every encoding but UTF-8, and what is said to be a form.
    """
    kind = kind.lower()
    if _FORM(kind):
        raise Unclear("its Content-Type says that it is a form")
    if not all(map(_UTF8, _CHARSET(kind))):
        raise Unclear("JSON is written in UTF-8")
    try:
        found = _decode(text.decode())
    except Unclear:
        raise
    except (ValueError, RecursionError):
        raise Unclear("it is no JSON") from None
    if text.count(b"[") + text.count(b"{") > _DEEPEST:
        _check_depth(found)
    if _SURROGATE(text):
        _check_text(found)
    return found


def _members(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unclear("a member is named twice")
    return members


def _no_number(text: str) -> float:
    raise Unclear("NaN and Infinity are no numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Unclear("a number is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise Unclear("a number is too large")
    return int(text)


_decode = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_no_number, parse_float=_finite, parse_int=_integer
).decode


def _check_depth(found: JSON) -> None:
    level = [found]
    for _ in range(_DEEPEST):
        level = [each for around in level for each in _within(around)]
    if level:
        raise Unclear("it is nested too deep")


def _within(value: JSON) -> list[JSON]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _check_text(found: JSON) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unclear("a text has half of a surrogate pair") from None


def steps_of(pointer: str) -> tuple[str, ...]:
    """The names and numbers a JSON Pointer leads by. Raises ValueError when it is none (RFC 6901 §3)."""
    if not _POINTER(pointer):
        raise ValueError("it is no JSON Pointer")
    return tuple(each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:])


def found_at(document: JSON, steps: tuple[str, ...]) -> JSON:
    """What stands there, None where nothing does. Raises Unclear where some would find another (RFC 6901 §4).

    Some readers tell the names of members apart without their case, and take the last that fits.
    """
    value = document
    for step in steps:
        if isinstance(value, dict):
            value = _member(value, step)
        elif isinstance(value, list) and _INDEX(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return _number(value) if type(value) in (int, float) else value


def _member(members: dict[str, JSON], name: str) -> JSON:
    folded = name.casefold()
    for each in members:
        if each != name and each.casefold() == folded:
            raise Unclear("a name differs from the one that is looked for by its case alone")
    return members.get(name)


def _number(value: float) -> float:
    """As one number whichever way it was written, ``1.0`` or ``1``."""
    if abs(value) > _SAFE_INTEGER:
        raise Unclear("a number is too large to be told apart from others")
    return int(value) if isinstance(value, float) and value.is_integer() else value
