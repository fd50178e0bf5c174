"""What a cache says it did: the Cache-Status field (RFC 9211)."""

from functools import lru_cache

from apim_middleware._http.fields import Token, item


def answered(name: str) -> bytes:
    """The member for a stored response, but for the number of seconds it is still fresh."""
    return item(_own_name(name), {"hit": True}).encode() + b";ttl="


@lru_cache(maxsize=256)
def passed_on(name: str, fwd: str, outcome: str | None, *, status: int | None = None, collapsed: bool = False) -> bytes:
    """The member that says why a request went on, and that its response is ``stored``, or why it is not.

    ``status`` is what the app said, where the client is told something else; ``collapsed`` that it was asked once for
    several requests.
    """
    parameters: dict[str, str | bool | int] = {"fwd": Token(fwd)}
    if status is not None:
        parameters["fwd-status"] = status
    if outcome == "stored":
        parameters["stored"] = True
    if collapsed:
        parameters["collapsed"] = True
    if outcome is not None and outcome != "stored":
        parameters["detail"] = Token(outcome)
    return item(_own_name(name), parameters).encode()


def keyed(scheme: str, host: bytes, path: bytes, query: bytes) -> bytes:
    """The parameter that says what a response is kept under, or nothing when it cannot stand in a header."""
    text = f"{scheme}://{host.decode('latin-1')}{path.decode('latin-1')}{'?' if query else ''}{query.decode('latin-1')}"
    try:
        return b";key=" + item(text).encode()
    except ValueError:
        return b""


def _own_name(name: str) -> str:
    """A token where the name can be one, else a string."""
    try:
        item(Token(name))
    except ValueError:
        return name
    return Token(name)
