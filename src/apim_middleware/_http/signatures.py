"""HTTP message signatures (RFC 9421): what is signed of a request, and what the signer says of it.

``signatures`` reads the two fields, ``base`` makes the text that was signed. What is not understood is a BadSignature:
a component that a verifier cannot work out must fail, never pass unseen.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from apim_middleware._http.dictionaries import InnerList, Member, parse_dictionary, write, write_dictionary
from apim_middleware._http.fields import Bare, Item, item
from apim_middleware._http.headers import get_all
from apim_middleware.types import Scope

_PORTS = {"http": ":80", "https": ":443"}
_SECURE = {"ws": "http", "wss": "https"}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_OURS = frozenset({"sf", "key", "bs", "name"})
_MOST = 64  # components of one signature

DICTIONARIES = frozenset(
    (
        "accept-signature", "cache-status", "content-digest", "priority", "repr-digest", "signature", "signature-input",
        "want-content-digest", "want-repr-digest",
    )
)  # fmt: skip
"""Fields that are dictionaries, so that ``sf`` can write them anew."""

WIDER = {
    "@target-uri": frozenset({"@scheme", "@authority", "@request-target", "@path", "@query"}),
    "@request-target": frozenset({"@path", "@query"}),
}
"""What a component covers besides itself."""


class BadSignature(ValueError):
    """A signature that cannot be judged, or a request that does not have what it covers."""


class Signature(NamedTuple):
    """One signature of a request: its label, the components it covers in their order, its parameters, its bytes."""

    label: str
    components: InnerList
    value: bytes

    @property
    def parameters(self) -> dict[str, Bare]:
        """What the signer says of the signature: ``created``, ``expires``, ``keyid``, ``alg``, ``nonce``, ``tag``."""
        return self.components.parameters

    @property
    def covered(self) -> frozenset[str]:
        """The names it covers whole, and what those cover besides themselves."""
        names = [name for name, parameters in self.components.items if type(name) is str and not parameters]
        return frozenset(names).union(*(WIDER.get(name, frozenset()) for name in names))


def signatures(inputs: Iterable[bytes], values: Iterable[bytes]) -> list[Signature]:
    """The signatures of a request by its ``Signature-Input`` and ``Signature`` lines, in their order (RFC 9421 §4)."""
    try:
        described = parse_dictionary(b", ".join(inputs).decode("ascii"))
        signed = parse_dictionary(b", ".join(values).decode("ascii"))
    except ValueError as error:
        raise BadSignature(f"the fields cannot be read: {error}") from None
    found = []
    for label, components in described.items():
        member = signed.get(label)
        value = None if member is None or isinstance(member, InnerList) else member[0]
        if not isinstance(components, InnerList) or not isinstance(value, bytes):
            raise BadSignature(f"{label} is described in one field and not signed in the other")
        found.append(Signature(label, components, value))
    return found


def base(scope: Scope, components: InnerList) -> bytes:
    """The text that was signed (RFC 9421 §2.5)."""
    try:
        return _base(scope, components).encode("ascii")
    except UnicodeError:
        raise BadSignature("what is covered is no ASCII") from None


def _base(scope: Scope, components: InnerList) -> str:
    if len(components.items) > _MOST:
        raise BadSignature(f"it covers more than {_MOST} components")
    lines: list[str] = []
    seen: set[str] = set()
    for component in components.items:
        name = item(*component)
        if name in seen:
            raise BadSignature(f"{name} is covered twice")
        seen.add(name)
        lines.append(f"{name}: {_value(scope, component)}")
    lines.append(f'"@signature-params": {components}')
    return "\n".join(lines)


def _value(scope: Scope, component: Item) -> str:
    name, parameters = component
    if type(name) is not str or not parameters.keys() <= _OURS:  # a String, and no Token
        raise BadSignature(f"{item(*component)} is no component of a request that is known here")
    if name[:1] != "@":
        return _field(scope, name, parameters)
    if name == "@query-param":
        return _query_parameter(scope, parameters)
    derive = _DERIVED.get(name)
    if derive is None or parameters:
        raise BadSignature(f"{item(*component)} is no component of a request that is known here")
    return derive(scope)


# Fields (RFC 9421 §2.1)


def _field(scope: Scope, name: str, parameters: dict[str, Bare]) -> str:
    if _NAME.fullmatch(name) is None:
        raise BadSignature(f"{name!r} is no name of a field in lower case")
    lines = get_all(scope["headers"], name.encode())
    if not lines:
        raise BadSignature(f"the request has no {name}")
    if "bs" in parameters and len(parameters) == 1:
        return ", ".join(item(line.strip(b" \t")) for line in lines)
    text = ", ".join(line.strip(b" \t").decode("latin-1") for line in lines)
    if not text.isascii():
        raise BadSignature(f"{name} holds more than ASCII, which only bs can cover")
    if not parameters:
        return text
    return _member(name, text, parameters)


def _member(name: str, text: str, parameters: dict[str, Bare]) -> str:
    key, strict = parameters.get("key"), parameters.get("sf")
    if name not in DICTIONARIES or len(parameters) != 1 or not (isinstance(key, str) or strict is True):
        raise BadSignature(f"{item(name, parameters)} is covered in a way that is not known here")
    try:
        members = _members(text)
    except ValueError as error:
        raise BadSignature(f"{name} cannot be read: {error}") from None
    if not isinstance(key, str):
        return write_dictionary(members)
    if key not in members:
        raise BadSignature(f"{name} has no {key}")
    return write(members[key])


@lru_cache(maxsize=1)  # for the many components that one signature may have of one field
def _members(text: str) -> Mapping[str, Member]:
    return parse_dictionary(text)


# What is not a field (RFC 9421 §2.2)


def _scheme(scope: Scope) -> str:
    scheme: str = scope.get("scheme", "http")
    return _SECURE.get(scheme, scheme).lower()


def _authority(scope: Scope) -> str:
    hosts = get_all(scope["headers"], b"host")
    if len(hosts) != 1:
        raise BadSignature("the request names no host")
    return hosts[0].decode("latin-1").lower().removesuffix(_PORTS.get(_scheme(scope), "\n"))


def _path(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii") or "/"


def _query(scope: Scope) -> str:
    return f"?{scope.get('query_string', b'').decode('ascii')}"


def _request_target(scope: Scope) -> str:
    return _path(scope) + (_query(scope) if scope.get("query_string") else "")


def _query_parameter(scope: Scope, parameters: dict[str, Bare]) -> str:
    """The value of a parameter that comes once, encoded again (RFC 9421 §2.2.8)."""
    wanted = parameters.get("name")
    if not isinstance(wanted, str) or len(parameters) != 1:
        raise BadSignature("@query-param names no parameter")
    found = _query_parameters(scope.get("query_string", b"")).get(wanted, ())
    if len(found) != 1:
        raise BadSignature(f"the request has {len(found)} parameters named {wanted}")
    return _encoded(found[0])


@lru_cache(maxsize=1)  # for the many components that one signature may have of one query
def _query_parameters(query: bytes) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict"):
        found.setdefault(_encoded(name), []).append(value)
    return found


def _encoded(text: str) -> str:
    """A name or value as forms are encoded, but with %20 for a space."""
    return quote(text, safe="*").replace("~", "%7E")


_DERIVED: dict[str, Callable[[Scope], str]] = {
    "@method": lambda scope: str(scope.get("method", "GET")),
    "@target-uri": lambda scope: f"{_scheme(scope)}://{_authority(scope)}{_request_target(scope)}",
    "@authority": _authority,
    "@scheme": _scheme,
    "@request-target": _request_target,
    "@path": _path,
    "@query": _query,
}

COMPONENTS = frozenset(_DERIVED)
"""What can be covered besides fields and single parameters of the query."""
