"""Structured fields (RFC 9651): items, parameters and lists, as ``RateLimit`` and ``Cache-Status`` are made of.

Bare items are Python values: ``str`` a String, ``Token`` a Token, ``int`` an Integer, ``float`` and ``Decimal`` a
Decimal, ``bool`` a Boolean, ``bytes`` a Byte Sequence, ``datetime`` a Date. What cannot be said is a ValueError.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TypeAlias


class Token(str):
    """A short word that is written without quotes (RFC 9651 §3.3.4)."""

    __slots__ = ()


Bare: TypeAlias = str | int | float | Decimal | bytes | datetime
"""What an item can be; ``bool`` and ``Token`` are among them as kinds of ``int`` and ``str``."""

Item: TypeAlias = tuple[Bare, dict[str, Bare]]
"""A parsed item and its parameters."""

GREATEST_INTEGER = 999_999_999_999_999
"""Integers have at most fifteen digits (RFC 9651 §3.3.1)."""

KEY = r"[a-z*][a-z0-9_.*-]*"
_TOKEN = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"  # noqa: S105 - a grammar, not a password
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_DECIMAL = r"-?[0-9]{1,12}\.[0-9]{1,3}"
_INTEGER = r"-?[0-9]{1,15}"
BARE = rf"{_STRING}|{_TOKEN}|{_DECIMAL}|{_INTEGER}|\?[01]|:[A-Za-z0-9+/=]*:|@{_INTEGER}"
PARAMETERS = rf"(?:; *{KEY}(?:=(?:{BARE}))?)*"
ITEM = rf"(?:{BARE}){PARAMETERS}"

_is_key = re.compile(KEY).fullmatch
_is_token = re.compile(_TOKEN).fullmatch
_is_text = re.compile(r"[ -~]*").fullmatch
_is_list = re.compile(rf" *{ITEM}(?:[ \t]*,[ \t]*{ITEM})* *".encode()).fullmatch
_next_item = re.compile(rf"({BARE})({PARAMETERS})").match
_next_parameter = re.compile(rf"; *({KEY})(?:=({BARE}))?").finditer
_next_comma = re.compile(r"[ \t]*,[ \t]*").match


# Writing


def item(value: Bare, parameters: Mapping[str, Bare] | None = None) -> str:
    """An item with its parameters, as in ``"default";r=50;t=30`` (RFC 9651 §4.1.3)."""
    return item_parameters(_written(value), parameters or {})


def item_parameters(text: str, parameters: Mapping[str, Bare]) -> str:
    """What is written already, with parameters behind it (RFC 9651 §4.1.1.2)."""
    for key, value in parameters.items():
        if _is_key(key) is None:
            raise ValueError(f"not a parameter key of a structured field: {key!r}")
        text += f";{key}" if value is True else f";{key}={_written(value)}"
    return text


def members(items: Iterable[str]) -> str:
    """Items already written, as one list (RFC 9651 §4.1.1)."""
    return ", ".join(items)


def _written(value: Bare) -> str:
    match value:
        case Token():
            return _token(value)
        case str():
            return _string(value)
        case bool():
            return "?1" if value else "?0"
        case int():
            return str(_integer(value))
        case float() | Decimal():
            return _decimal(value)
        case bytes():
            return f":{base64.b64encode(value).decode()}:"
        case datetime():
            return f"@{_integer(_timestamp(value))}"
    raise ValueError(f"no structured field can hold a {type(value).__name__}")


def _token(value: Token) -> str:
    if _is_token(value) is None:
        raise ValueError(f"not a token of a structured field: {str(value)!r}")
    return str(value)


def _string(value: str) -> str:
    if _is_text(value) is None:
        raise ValueError("a string in a structured field holds only printable ASCII")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(value: int) -> int:
    if abs(value) > GREATEST_INTEGER:
        raise ValueError("an integer in a structured field has at most 15 digits")
    return value


def _decimal(value: float | Decimal) -> str:
    exact = Decimal(str(value))  # the shortest text of a float is what its writer meant: 0.0025 is a tie
    if not exact.is_finite() or abs(exact) >= 10**12:
        raise ValueError("a decimal in a structured field has at most 12 digits before the point")
    rounded = exact.quantize(Decimal("0.001"), ROUND_HALF_EVEN)
    if abs(rounded) >= 10**12:
        raise ValueError("a decimal in a structured field has at most 12 digits before the point")
    whole, _, fraction = f"{rounded:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def _timestamp(value: datetime) -> int:
    if value.tzinfo is None:
        raise ValueError("a date in a structured field needs a time zone")
    return int(value.timestamp() // 1)


# Reading


def is_list(value: bytes) -> bool:
    """Whether this is a list of items that can be read, so that more members may be written beside it."""
    return _is_list(value) is not None


def parse_list(text: str) -> list[Item]:
    """The items of a list (RFC 9651 §4.2.1); ValueError when malformed, or when it holds an inner list."""
    text = text.strip(" ")
    found: list[Item] = []
    at = 0
    while text:
        member = _next_item(text, at)
        if member is None:
            raise ValueError(f"not a list of items: something else at character {at}")
        text_of_bare, text_of_parameters = member.groups()
        found.append((bare(text_of_bare), parameters(text_of_parameters)))
        if member.end() == len(text):
            break
        comma = _next_comma(text, member.end())
        if comma is None:
            raise ValueError(f"not a list of items: no comma at character {member.end()}")
        at = comma.end()
    return found


def parameters(text: str) -> dict[str, Bare]:
    """The parameters that match ``PARAMETERS``."""
    # A key given again has its last value (RFC 9651 §4.2.3.2), at the place of its first.
    return {key: True if value is None else bare(value) for key, value in _parameter_pairs(text)}


def _parameter_pairs(text: str) -> list[tuple[str, str | None]]:
    return [(found[1], found[2]) for found in _next_parameter(text)]


def bare(text: str) -> Bare:
    """The value that matches ``BARE``."""
    match text[0]:
        case '"':
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        case "?":
            return text == "?1"
        case ":":
            return _parsed_bytes(text[1:-1])
        case "@":
            return _parsed_date(text[1:])
        case first if first == "-" or first.isdigit():
            return Decimal(text) if "." in text else int(text)
    return Token(text)


def _parsed_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("a byte sequence in a structured field is not base64") from error


def _parsed_date(text: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (OverflowError, OSError) as error:
        raise ValueError("a date in a structured field is out of range") from error
