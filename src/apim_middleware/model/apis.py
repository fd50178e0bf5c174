"""An API, and each of its revisions with everything it has."""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from apim_middleware._config import Configured
from apim_middleware._http.url_templates import parsed
from apim_middleware.model._values import check_name, check_revisions
from apim_middleware.model.operations import Deprecation, Operation
from apim_middleware.model.versions import Revision, Version, Versions
from apim_middleware.types import Layer

_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True)
class Api(Configured):
    """An API: where callers find it, what stands behind it, and what it can do.

    ``Api("orders", "/orders", backend="http://orders:8000", operations=(Operation("GET", "/{id}"),))``.
    Its path is not part of what the backend gets: a backend that is mounted below a path of its own says so in its URL.
    """

    name: str
    """What it is called in products, subscriptions, traces and places of counters; one API has each name."""

    path: str = "/"
    """Where it begins, in whole segments of text; the longest that fits is chosen, and no other is tried then."""

    _: KW_ONLY
    backend: object | None = None
    """A URL, a ``Proxy``, a ``Pool`` or any ASGI app, which is mounted at the path."""

    hosts: tuple[str, ...] = ()
    """The host names it answers to, ``*.example.com`` for all below one; none for all. Those that are named win."""

    operations: tuple[Operation, ...] = ()
    """What it can do; without any, every method and path is passed on."""

    policies: tuple[Layer, ...] = ()
    """In front of all its operations, behind those of the product and the gateway."""

    inherit: bool = True
    """Whether the policies of wider scopes, the gateway's and the product's, stand in front of these."""

    subscription_required: bool = True
    """Whether only subscribers come in. A product without that requirement lets in others, too."""

    key_header: str | None = None
    """The header its subscription keys come in, if not the gateway's."""

    key_query: str | None = None
    """The query parameter its subscription keys may come in, if not the gateway's."""

    versions: Versions | None = None
    """Its versions, and how callers say which they want; None for an API without."""

    revisions: tuple[Revision, ...] = ()
    """Its other states, which are asked for with ``;rev=n`` behind its path."""

    revision: int = 1
    """The number of the current one."""

    deprecation: Deprecation | None = None
    """That it is going to end, told with every response; None while it is not."""

    title: str = ""
    """What published documents call it, in the place of its name."""

    description: str = ""
    """What it is for, in prose, for published documents."""

    tags: tuple[str, ...] = ()
    """Under which its operations stand in published documents, where they have none of their own."""

    document: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    """The OpenAPI document it was imported from."""

    def __post_init__(self) -> None:
        """Path and hosts are some, revisions have their numbers, and either API or versions have them."""
        check_name(self)
        try:
            shape = parsed(self.path)
        except ValueError as error:
            raise self.mistake("path", f"begins no path: {error}", 'Write path="/orders"') from None
        texts = [each for each in shape.segments if isinstance(each, str)]
        if len(texts) < len(shape.segments) or shape.rest is not None or shape.query or "" in texts or ";" in self.path:
            raise self.mistake("path", "is not plain text", 'Write path="/orders"; parameters belong to operations')
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise self.mistake("hosts", f"holds {host!r}, which is no host", 'Write "api.example.com", lower case')
        if self.versions is not None and self.revisions:
            raise self.mistake("revisions", "are given beside versions", "Give them to the versions")
        check_revisions(self)

    @property
    def segments(self) -> tuple[str, ...]:
        """The path, segment by segment."""
        return tuple(self.path.split("/")[1:]) if self.path != "/" else ()

    def promote(self, number: int, *, version: str = "") -> Self:
        """The same API with another revision current, of one of its versions if it has any; to roll back, too.

        ConfigError when there is no such revision or version.
        """
        if self.versions is None:
            return replace(self, revision=number)
        found = [each for each in self.versions.versions if each.name == version]
        if not found:
            raise self.mistake("versions", f"has no {version!r}", "Give version= one of its names")
        promoted = replace(found[0], revision=number)
        versions = tuple(promoted if each is found[0] else each for each in self.versions.versions)
        return replace(self, versions=replace(self.versions, versions=versions))


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One revision of an API, or of one of its versions, with everything it has from them: what a gateway compiles."""

    api: Api
    version: Version | None
    revision: int
    current: bool
    online: bool
    backend: object | None
    operations: tuple[Operation, ...]
    api_policies: tuple[Layer, ...]
    version_policies: tuple[Layer, ...]

    @cached_property
    def label(self) -> str:
        """How mistakes name it: ``orders``, ``orders v1``, ``orders v1;rev=2``."""
        words = self.api.name if self.version is None else f"{self.api.name} {self.version.name}"
        return words if self.current else f"{words};rev={self.revision}"


def definitions(api: Api) -> list[Definition]:
    """Every revision of every version of an API, the current ones first."""
    return [
        each
        for version in ([None] if api.versions is None else api.versions.versions)
        for each in _revised(api, version)
    ]


def _revised(api: Api, version: Version | None) -> list[Definition]:
    owner: Api | Version = api if version is None else version
    revisions = {each.number: each for each in owner.revisions} or {owner.revision: Revision(owner.revision)}
    numbers = sorted(revisions, key=lambda number: (number != owner.revision, number))
    return [_defined(api, version, revisions[number], current=number == owner.revision) for number in numbers]


def _defined(api: Api, version: Version | None, revision: Revision, *, current: bool) -> Definition:
    owner: Api | Version = api if version is None else version
    own = owner.policies if revision.policies is None else revision.policies
    backend = next((each for each in (revision.backend, owner.backend, api.backend) if each is not None), None)
    operations = next(
        (each for each in (revision.operations, owner.operations) if each is not None), api.operations
    )  # fmt: skip
    return Definition(
        api=api,
        version=version,
        revision=revision.number,
        current=current,
        online=revision.online or current,
        backend=backend,
        operations=operations,
        api_policies=own if version is None else api.policies,
        version_policies=() if version is None else own,
    )
