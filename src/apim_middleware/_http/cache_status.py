"""What a cache says it did: the Cache-Status field (RFC 9211)."""

from functools import lru_cache

from apim_middleware._http.fields import Token, item


def answered(name: str) -> bytes:
    """The member for a stored response, with a ``%d`` for the seconds it is still fresh."""
    return item(_own_name(name), {"hit": True}).replace("%", "%%").encode() + b";ttl=%d"


@lru_cache(maxsize=256)
def passed_on(name: str, fwd: str, outcome: str | None) -> bytes:
    """The member that says why a request went on, and that its response is ``stored``, or why it is not."""
    parameters: dict[str, str | bool] = {"fwd": Token(fwd)}
    if outcome == "stored":
        parameters["stored"] = True
    elif outcome is not None:
        parameters["detail"] = Token(outcome)
    return item(_own_name(name), parameters).encode()


def _own_name(name: str) -> str:
    """A token where the name can be one, else a string."""
    try:
        item(Token(name))
    except ValueError:
        return name
    return Token(name)
