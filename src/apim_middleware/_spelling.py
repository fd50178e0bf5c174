"""How keys, conditions and times are written here that people write otherwise."""

import difflib
import re
from collections.abc import Iterable
from types import FunctionType

from apim_middleware._http.statuses import statuses_named
from apim_middleware._synonyms import meant

_OURS = "apim_middleware."

_FUNCTION = re.compile(r"<function (.+?) at 0x[0-9a-f]+>")
"""What Python shows of a function, of which only the name says anything."""

KEYS = {
    "api": "by.api",
    "attribute": 'by.attribute("app.tenant")',
    "body": 'by.body("/model")',
    "both": "by.both(by.subscription, by.client)",
    "claim": 'by.claim("sub")',
    "client": "by.client",
    "cookie": 'by.cookie("session")',
    "either": "by.either(by.subscription, by.client)",
    "everyone": "by.everyone",
    "header": 'by.header("x-tenant")',
    "operation": "by.operation",
    "owner": "by.owner",
    "principal": "by.principal",
    "product": "by.product",
    "route": 'by.route(login=conditions.path("/login"))',
    "subscription": "by.subscription",
    "username": "by.username",
}
"""The keys of ``by``, each as one is written."""

CONDITIONS = ("authentication_failed", "failed", "is_websocket", "succeeded")
"""The conditions that are given as they are."""

_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3_600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    "ms": 0.001,
}

_DURATION = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})", re.IGNORECASE)

_ISO_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def seconds_in(text: str) -> str | None:
    """The seconds of a duration such as ``60s``, ``1 minute`` or ``PT1M`` (ISO 8601); None for what is none."""
    if match := _DURATION.fullmatch(text.strip()):
        return f"{float(match[1]) * _UNITS[match[2].lower()]:.15g}"
    match = _ISO_DURATION.fullmatch(text.strip().upper())
    if match is None or not any(match.groups()):
        return None
    parts = zip(match.groups(), (86_400, 3_600, 60, 1), strict=True)
    return f"{sum(float(part or 0) * unit for part, unit in parts):.15g}"


def condition_named(value: object, quote: str = '"') -> str | None:
    """The condition that a text means, or the number of a status, as it is written; None when it means none."""
    text = str(value).strip().removeprefix(_OURS) if isinstance(value, str | int) else ""
    if isinstance(value, int):
        return f"conditions.status({value})" if statuses_named(text) else None
    if text.startswith("/"):
        return f"conditions.path({quote}{text}{quote})"
    if statuses_named(text):
        return f"conditions.status({quote}{text}{quote})"
    plain = text.removeprefix("conditions.")
    return f"conditions.{plain}" if plain in CONDITIONS else None


def key_named(text: str) -> str | None:
    """The key of ``by`` that a text names, as it is written; None when it names none."""
    name = text.strip().removeprefix(_OURS).removeprefix("by.")
    if name.partition("(")[0] in KEYS and name.endswith(")"):
        return f"by.{name}"
    return KEYS.get(nearest(name, KEYS, cutoff=0.8) or "")


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """That of several names which was perhaps meant by another."""
    names = tuple(names)
    return meant(name, names) or next(iter(difflib.get_close_matches(name.lower(), names, n=1, cutoff=cutoff)), None)


def written(value: object) -> str:
    """A value as people write it: functions by their names, those of ``by`` and ``conditions`` as they are made."""
    if isinstance(value, FunctionType):
        home, name = (value.__module__ or "").removeprefix(_OURS), value.__name__.replace(_OURS, "")
        return f"{home}.{name}" if home in ("by", "conditions") else name
    if type(value) is tuple:
        return f"({', '.join(map(written, value))}{',' if len(value) == 1 else ''})"
    return _FUNCTION.sub(r"\1", repr(value))
