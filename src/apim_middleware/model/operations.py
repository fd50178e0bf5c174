"""Operations of an API, and what is told of their end."""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any

from apim_middleware._config import Configured
from apim_middleware._http.url_templates import UrlTemplate, parsed
from apim_middleware.model._values import check_name
from apim_middleware.types import Layer

_METHOD = re.compile(r"[A-Z][A-Z0-9!#$%&'*+\-.^_`|~]{0,31}|\*")
_UNCLEAN = re.compile(r"[^A-Za-z0-9]+")
_FOREIGN = re.compile(r"/(?::([A-Za-z_]\w*)|<(?:\w+:)?([A-Za-z_]\w*)>)(?=[/?]|$)")
"""Parameters as other frameworks write them, which would be plain text here: ``:id``, ``<id>``, ``<int:id>``."""

_REFERENCE = re.compile(r"[!-~]+")

ANY = "*"
"""As a method: every one of them, WebSockets too; as the ``api`` of a subscription: every API."""

WEBSOCKET = "WEBSOCKET"
"""As a method: the handshake of a WebSocket, which is no plain GET."""


@dataclass(frozen=True, kw_only=True)
class Deprecation(Configured):
    """That something is going to end: told in ``Deprecation`` (RFC 9745), ``Sunset`` (RFC 8594) and ``Link``."""

    since: datetime
    """Since when it should not be used in new work, or from when on it should not; with a time zone."""

    sunset: datetime | None = None
    """When it is expected to work no more; with a time zone, and not before ``since``."""

    link: str = ""
    """Where the deprecation is explained (``rel="deprecation"``)."""

    sunset_link: str = ""
    """Where the policy of retirement is explained (``rel="sunset"``)."""

    successor: str = ""
    """What to use instead (``rel="successor-version"``, RFC 5829)."""

    def __post_init__(self) -> None:
        """Times are moments, in their order, and links can stand in a header."""
        for name in ("since", "sunset"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise self.mistake(name, "has no time zone", "Write datetime(..., tzinfo=UTC)")
        if self.sunset is not None and self.sunset < self.since:
            raise self.mistake("sunset", "is before the deprecation", "Give a later time (RFC 9745 §4)")
        for name in ("link", "sunset_link", "successor"):
            text = getattr(self, name)
            if text and (not _REFERENCE.fullmatch(text) or "<" in text or ">" in text):
                raise self.mistake(name, "cannot stand in a Link field", "Give a URL, percent-encoded")


@dataclass(frozen=True)
class Operation(Configured):
    """One method on one URL template of an API.

    A template is text with ``{parameters}`` in it: ``/orders/{id}``, ``/report.{format}``, ``/files/*`` (the rest of
    the path, also ``/files`` itself), ``/search?q={text}`` (a query that must have ``q``). Text goes before text with
    parameters, these before parameters, these before wildcards. GET answers HEAD too, unless HEAD has its own.
    """

    method: str
    """``GET`` and its like, ``"WEBSOCKET"`` for a handshake, or ``"*"`` for any."""

    template: str
    """The path below the API's."""

    _: KW_ONLY
    name: str = ""
    """Told in traces and places of counters; made of method and template unless given: ``get-orders-id``."""

    policies: tuple[Layer, ...] = ()
    """In front of this operation, behind those of the API."""

    inherit: bool = True
    """Whether the policies of wider scopes stand in front of these."""

    deprecation: Deprecation | None = None
    """That it is going to end, told with every response; None while it is not."""

    title: str = ""
    """Its summary in published documents."""

    description: str = ""
    """What it does, in prose, for published documents."""

    tags: tuple[str, ...] = ()
    """Under which it stands in published documents; those of the API where there are none."""

    document: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    """The OpenAPI operation it was imported from."""

    def __post_init__(self) -> None:
        """Method and template are some."""
        if not _METHOD.fullmatch(self.method):
            raise self.mistake("method", "is no method", 'Write it in capitals: "GET", "POST", "WEBSOCKET" or "*"')
        if found := _FOREIGN.search(self.template):
            raise self.mistake("template", f"holds {found[0][1:]} as text", f'Write "{{{found[1] or found[2]}}}"')
        try:
            self.__dict__["shape"] = parsed(self.template)
        except ValueError as error:
            cure = 'Write "/orders/{id}", "/files/*" or "/search?q={text}"'
            raise self.mistake("template", f"matches no path: {error}", cure) from None
        if not self.name:
            words = _UNCLEAN.sub("-", f"{self.method.replace('*', 'any')}-{self.template}").strip("-").lower()
            object.__setattr__(self, "name", words[:80].rstrip("-"))
        check_name(self)

    @property
    def url_template(self) -> UrlTemplate:
        """The template, taken apart."""
        shape: UrlTemplate = self.__dict__["shape"]
        return shape
