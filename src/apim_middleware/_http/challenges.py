"""Challenges: what a refused caller is told to come back with (RFC 9110 §11.6.1)."""

import re

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a grammar, not a password
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_PARAMETER = rf"{_TOKEN}=(?:{_TOKEN}|{_QUOTED})"
_challenge = re.compile(rf"({_TOKEN})(?: {_PARAMETER}(?:, ?{_PARAMETER})*)?").fullmatch
_parameter = re.compile(rf"({_TOKEN})=(?:{_TOKEN}|{_QUOTED})").finditer
_next_challenge = re.compile(
    rf"[ ,]*({_TOKEN}(?: {_PARAMETER}(?:, *{_PARAMETER})*| [A-Za-z0-9._~+/-]+=*(?=,|$))?)(?: *, *|$)"
).match
_quotable = re.compile(r"[ !#-\[\]-~]+").fullmatch


def is_quotable(text: str) -> bool:
    """Whether a text can stand between quotes as it is: printable ASCII without quotes and backslashes."""
    return _quotable(text) is not None


def scheme_of(challenge: str) -> str | None:
    """The scheme of a challenge in lower case, as in ``Bearer realm="api"``; None when it is no challenge."""
    match = _challenge(challenge)
    return None if match is None else match[1].lower()


def with_parameters(challenge: str, **parameters: str) -> str:
    """A challenge with more parameters; their values must be quotable."""
    more = ", ".join(f'{name}="{value}"' for name, value in parameters.items())
    glue = ", " if " " in challenge else " "
    return f"{challenge}{glue}{more}" if more else challenge


def has_parameter(challenge: str, name: str) -> bool:
    """Whether a challenge has a parameter of this lower-case name."""
    _, _, rest = challenge.partition(" ")
    return any(each[1].lower() == name for each in _parameter(rest))


def split(field: str) -> list[str]:
    """The challenges of a ``WWW-Authenticate`` field; the field itself, as the only one, when it cannot be read."""
    found: list[str] = []
    at = 0
    while (match := _next_challenge(field, at)) is not None:
        found.append(match[1])
        at = match.end()
    return found if found and at == len(field) else [field]
