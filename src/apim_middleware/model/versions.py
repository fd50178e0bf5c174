"""Versions of an API, which callers choose, and revisions, which are how it is made today."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http.headers import is_token
from apim_middleware.model._values import MOST_REVISIONS, check_name, check_revisions, check_unique
from apim_middleware.model.operations import Deprecation, Operation
from apim_middleware.types import Layer


@dataclass(frozen=True)
class Revision(Configured):
    """Another state of an API or of a version, told apart by ``;rev=n`` behind its path; what is not given stays."""

    number: int
    """Counted from 1; what callers ask for with ``;rev=n``."""

    _: KW_ONLY
    backend: object | None = None
    """What stands behind it; None for what stands behind the API or version."""

    operations: tuple[Operation, ...] | None = None
    """What it can do; None for what the API or version can."""

    policies: tuple[Layer, ...] | None = None
    """In the place of the policies of the API or version; None for these."""

    online: bool = True
    """Whether it can be asked for while it is not the current one."""

    notes: str = ""
    """What has changed, for those who decide when it becomes the current one."""

    def __post_init__(self) -> None:
        """Revisions are counted from 1, and can be asked for."""
        if not 1 <= self.number <= MOST_REVISIONS:
            raise self.mistake("number", "is no revision", f"Count from 1, {MOST_REVISIONS} at most")


@dataclass(frozen=True)
class Version(Configured):
    """A version of an API; backend and operations that are not given are the API's."""

    name: str
    """What callers ask for, such as ``v1`` or ``2026-05-01``."""

    _: KW_ONLY
    backend: object | None = None
    """What stands behind it; None for the API's."""

    operations: tuple[Operation, ...] | None = None
    """What it can do; None for the API's operations."""

    policies: tuple[Layer, ...] = ()
    """In front of this version, behind those of the API."""

    inherit: bool = True
    """Whether the policies of wider scopes stand in front of its own."""

    deprecation: Deprecation | None = None
    """That it is going to end, told with every response; None for the API's."""

    retired: bool = False
    """Whether it is gone: every request is answered with 410 ``version-retired``."""

    revisions: tuple[Revision, ...] = ()
    """Its other states, which are asked for with ``;rev=n``."""

    revision: int = 1
    """The number of the current one."""

    title: str = ""
    """What people call it, in the place of its name."""

    def __post_init__(self) -> None:
        """It has a name, and a current revision."""
        check_name(self)
        check_revisions(self)


@dataclass(frozen=True)
class Versions(Configured):
    """The versions of an API, and how callers say which they want.

    ``Versions("path", (Version("v1"), Version("v2")))``: the segment behind the API's path, a header, or a parameter.
    """

    by: Literal["path", "header", "query"]
    """Where callers say it: in the segment behind the API's path, in a header, or in a query parameter."""

    versions: tuple[Version, ...]
    """There is at least one, and no name comes twice."""

    _: KW_ONLY
    parameter: str = "api-version"
    """The name of the header or of the query parameter."""

    default: str = ""
    """The version for those who name none; without one they get 404."""

    def __post_init__(self) -> None:
        """There are some, of different names, and the default is one of them."""
        names = [version.name for version in self.versions]
        if not names:
            raise self.mistake("versions", "holds none", 'Write Versions("path", (Version("v1"),))')
        check_unique(self, "versions", names)
        if self.default and self.default not in names:
            raise self.mistake("default", "is none of the versions", f"Give one of {', '.join(names)}")
        if not is_token(self.parameter.encode("latin-1", "replace")):
            raise self.mistake("parameter", "is no name of a header or parameter", 'Write parameter="api-version"')
