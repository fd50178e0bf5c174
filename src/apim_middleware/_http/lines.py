"""Many header lines looked at in one go: what is done for every message must cost little."""

from collections.abc import Collection, Iterable

from apim_middleware._http.headers import NAME, VALUE, header_name, header_value
from apim_middleware.types import RawHeaders

NO_BREAKS = bytes(code for code in range(256) if code not in b"\0\r\n")
"""What ``translate`` takes out so that line breaks and null bytes are left."""

_VALUE = bytes(code for code in range(256) if code == 9 or (code >= 32 and code != 127))
_REMEMBERED = 2048
_LONGEST = 256
_names: set[bytes] = set()


class Checked(list[tuple[bytes, bytes]]):
    """Header lines of a request that were looked at, so that nobody need look again.

    Names are tokens in lower case, each on one line, ``host`` among them and nothing that frames a body; no value holds
    a control character. It is only for those who know that nobody can have changed it in the meantime.
    """

    __slots__ = ()


def checked(lines: RawHeaders) -> RawHeaders:
    """The lines, names in lower case; ValueError when a name is no token or a value holds a control character.

    The list that was given is given back when there was nothing to change.
    """
    if not _names.issuperset(map(NAME, lines)):
        lines = [(_checked_name(name), value) for name, value in lines]
    check_values(list(map(VALUE, lines)))
    return lines


def are_names(names: Collection[bytes]) -> bool:
    """Whether all of these are names as ASGI carries them: tokens in lower case."""
    if _names.issuperset(names):
        return True
    try:
        return all(_checked_name(name) == name for name in names)
    except ValueError:
        return False


def check_values(values: Iterable[bytes]) -> None:
    """See to it that no value holds a control character; else ValueError."""
    if b"".join(values).translate(None, _VALUE):
        for value in values:
            header_value(value)


def _checked_name(name: bytes) -> bytes:
    """The name in lower case; those written so are remembered, up to a bound."""
    lower = header_name(name)
    if lower == name and len(name) <= _LONGEST:
        if len(_names) >= _REMEMBERED:  # callers invent names; those of the others are back at once
            _names.clear()
        _names.add(name)
    return lower
