"""What a gateway has matched a request to, as policies, keys and traces read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from apim_middleware._http.problems import render
from apim_middleware._http.url_templates import UrlTemplate
from apim_middleware.errors import Refusal
from apim_middleware.types import RawHeaders


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a gateway has matched, the same for every request that takes it. Texts are empty where nothing matched."""

    template: str = ""
    """The path with its parameters, as callers see it: ``/orders/v1/{id}``."""

    api: str = ""
    version: str = ""
    revision: int = 1
    operation: str = ""
    product: str = ""
    """The product in whose context the call is made."""

    shape: UrlTemplate | None = None
    """The operation's own template, for what its parameters stand for."""

    render: Callable[[Refusal], tuple[RawHeaders, bytes]] = render
    """How refusals are written."""

    @cached_property
    def attributes(self) -> dict[str, str]:
        """What is worth observing of it, named as span attributes are."""
        named = {
            "http.route": self.template, "apim.api": self.api, "apim.api.version": self.version,
            "apim.operation": self.operation, "apim.product": self.product,
        }  # fmt: skip
        return {name: value for name, value in named.items() if value}


class Match:
    """What a gateway has matched for one request: the route, and the segments of the path behind the API's."""

    __slots__ = ("_route", "prefix", "refusal", "segments")

    def __init__(self, route: Route, segments: Sequence[str] = (), prefix: str | None = None) -> None:
        """``prefix`` is the API's path as it was sent, where that has a version or a revision in it."""
        self._route = route
        self.segments: Sequence[str] = segments
        self.prefix: str | None = prefix
        self.refusal: Refusal | None = None

    @property
    def route(self) -> Route:
        """What all requests that go this way have in common."""
        return self._route

    def parameters(self, query: bytes) -> dict[str, str]:
        """The decoded texts that the parameters of the operation's template stand for."""
        shape = self.route.shape
        return {} if shape is None else shape.values(self.segments, query)
