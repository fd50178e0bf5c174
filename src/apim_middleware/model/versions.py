"""Versions of an API, which callers choose, and revisions, which are how it is made today."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from apim_middleware._http.headers import is_token
from apim_middleware.model._values import Value, check_name, check_revisions, check_unique
from apim_middleware.model.operations import Deprecation, Operation
from apim_middleware.types import Layer


@dataclass(frozen=True, repr=False)
class Revision(Value):
    """Another state of an API or of a version, told apart by ``;rev=n`` behind its path; what is not given stays."""

    number: int
    _: KW_ONLY
    backend: object | None = None
    operations: tuple[Operation, ...] | None = None
    policies: tuple[Layer, ...] | None = None
    online: bool = True
    """Whether it can be asked for while it is not the current one."""

    notes: str = ""

    def __post_init__(self) -> None:
        """Revisions are counted from 1."""
        if self.number < 1:
            raise self.mistake("number", "is no revision", "Count from 1")


@dataclass(frozen=True, repr=False)
class Version(Value):
    """A version of an API; backend and operations that are not given are the API's."""

    name: str
    _: KW_ONLY
    backend: object | None = None
    operations: tuple[Operation, ...] | None = None
    policies: tuple[Layer, ...] = ()
    """In front of this version, behind those of the API."""

    inherit: bool = True
    deprecation: Deprecation | None = None
    retired: bool = False
    """Whether it is gone: every request is answered with 410 ``version-retired``."""

    revisions: tuple[Revision, ...] = ()
    revision: int = 1
    """The number of the current one."""

    title: str = ""

    def __post_init__(self) -> None:
        """It has a name, and a current revision."""
        check_name(self)
        check_revisions(self)


@dataclass(frozen=True, repr=False)
class Versions(Value):
    """The versions of an API, and how callers say which they want.

    ``Versions("path", (Version("v1"), Version("v2")))``: the segment behind the API's path, a header, or a parameter.
    """

    by: Literal["path", "header", "query"]
    versions: tuple[Version, ...]
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
