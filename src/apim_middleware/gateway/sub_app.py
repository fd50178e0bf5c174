"""One app of many behind a gateway: where callers find it, and where its document comes from."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from itertools import combinations, takewhile
from pathlib import PurePath
from typing import Any

from apim_middleware._config import Configured
from apim_middleware._jose.urls import Allowance, fault_of
from apim_middleware.errors import ConfigError
from apim_middleware.model import Api, Operation
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.types import Layer

_ANYWHERE = Allowance(http=True, private=True)


@dataclass(frozen=True)
class SubApp(Configured):
    """An app that becomes an API of an ``AppOfApps``.

    ``SubApp("orders", "/orders", backend=orders)`` is one of this process, with its lifespan;
    ``SubApp("stock", "/stock", backend="http://stock:8000")`` a remote one, whose document is fetched at the start.
    """

    name: str
    """What the API is called."""

    path: str
    """Where it begins; the app gets the path below it."""

    _: KW_ONLY
    backend: object
    """Any ASGI app, or the URL, ``Proxy`` or ``Pool`` of a remote one."""

    document: str | bytes | PurePath | Mapping[str, Any] | None = field(default=None, repr=False)
    """Its OpenAPI document: the URL of one, a ``Path``, bytes or a dict.

    Without it a FastAPI or Litestar app is asked itself, another app of this process has none and lets everything pass,
    and that of a URL is looked for at ``/openapi.json`` below it.
    """

    hosts: tuple[str, ...] = ()
    """The host names it answers to; none for all."""

    policies: tuple[Layer, ...] = ()
    """In front of this app, behind those of the gateway and of products."""

    operation_policies: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict, hash=False)
    """In front of single operations, by operation id."""

    subscription_required: bool = True
    """Whether only subscribers come in."""

    only_documented: bool | None = None
    """Whether what its document does not tell of is not found (404). None: it is not for a remote app, and passes to
    one of this process, with its WebSockets, static files and hidden routes."""

    required: bool = True
    """Whether the start fails without its document; else the app answers 503 ``app-unavailable`` until it is there."""

    server_path: str | None = None
    """What stands in front of the paths in its document; None: for a remote app the path of the document's servers,
    unless the URL of the backend has one; for an app of this process nothing."""

    timeout: float = 10.0
    """Seconds in which its document must be there."""

    def __post_init__(self) -> None:
        """Name, path and hosts are those of an API, and there is a document to be had."""
        Api(self.name, self.path, hosts=self.hosts)
        if not 0 < self.timeout <= 3600:
            raise self.mistake("timeout", "is no time", "Give seconds above 0, 3600 at most")
        self._check_backend()
        if isinstance(self.document, str):
            self._check_url()
        if self.document is None and self.is_remote and self.url is None:
            cure = 'Write document="http://stock:8000/openapi.json", or Path("stock.json")'
            raise ConfigError(f"SubApp {self.name}", "document", "is missing, and the backend is no URL", cure)

    def _check_backend(self) -> None:
        if isinstance(self.backend, str):
            try:
                Proxy(self.backend)
            except ConfigError as error:
                raise ConfigError(f"SubApp {self.name}", "backend", error.problem, error.cure) from error
        elif (not callable(self.backend) and not isinstance(self.backend, Pool)) or isinstance(self.backend, type):
            raise self.mistake("backend", "is no app", 'Give an ASGI app, or "http://stock:8000"')

    def _check_url(self) -> None:
        fault = fault_of(str(self.document), _ANYWHERE)
        if fault is not None:
            problem = fault.problem if fault.secret else f"{self.document!r} {fault.problem}"
            cure = 'Write document="http://stock:8000/openapi.json"; give a text as bytes'
            raise ConfigError(f"SubApp {self.name}", "document", problem, cure)

    @property
    def is_remote(self) -> bool:
        """Whether it is not of this process."""
        return isinstance(self.backend, str | Proxy | Pool)

    @property
    def url(self) -> str | None:
        """Where its document is fetched; None where it need not be."""
        if isinstance(self.document, str):
            return self.document
        if self.document is None and isinstance(self.backend, str):
            return f"{self.backend.rstrip('/')}/openapi.json"
        return None

    @property
    def keeps_to_document(self) -> bool:
        """Whether what its document does not tell of is not found."""
        return self.is_remote if self.only_documented is None else self.only_documented

    def mistaken(self, problem: str) -> ConfigError:
        """What is wrong with its document."""
        cure = "Look after the app, or write required=False so that the others need not wait for it"
        return ConfigError(f"SubApp {self.name}", "document", problem, cure)


def check_claims(apps: Iterable[SubApp]) -> None:
    """Refuse two apps with one name, or with one path. Raises ConfigError."""
    for first, second in combinations(apps, 2):
        if first.name == second.name:
            raise second.mistake("name", "is the name of two apps", "Give each a name of its own")
        if first.path == second.path and _meet(first.hosts, second.hosts):
            problem = f"{second.path!r} is the path of {first.name} already"
            raise ConfigError(
                f"SubApp {second.name}", "path", problem, "Give one of them another path, or another host"
            )


def check_operations(apis: Iterable[Api]) -> None:
    """Refuse an app that stands where another has documented operations. Raises ConfigError."""
    found = list(apis)
    standing = defaultdict[tuple[str, ...], list[Api]](list)
    for api in found:
        standing[api.segments].append(api)
    for outer, operation in ((api, operation) for api in found for operation in api.operations):
        for place in _places(outer, operation):
            inner = next((each for each in standing.get(place, ()) if _meet(outer.hosts, each.hosts)), None)
            if inner is not None:
                problem = f"{inner.path!r} stands where {outer.name} has {operation.method} {operation.template}"
                raise ConfigError(f"SubApp {inner.name}", "path", problem, "Give one of them another path")


def _places(api: Api, operation: Operation) -> Iterator[tuple[str, ...]]:
    """The paths of an operation below that of its API, up to its first parameter."""
    texts = api.segments
    for segment in takewhile(lambda each: isinstance(each, str), operation.url_template.segments):
        texts = (*texts, str(segment))
        yield texts


def _meet(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether a host may be meant by both; one that is named goes before any."""
    return first == second or bool(set(first) & set(second))
