"""Who is in a pool: ``Member``, and ``Members`` for those that come and go."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TypeAlias

from apim_middleware._config import Configured, shown
from apim_middleware._http.addresses import parse_address
from apim_middleware.credentials.credential import Credential
from apim_middleware.errors import ConfigError
from apim_middleware.proxy._lookup import check_installed
from apim_middleware.proxy._writing import Upstream, upstream_of

MOST = 1000
"""Members of one pool."""

_DAY = 86_400.0
_HEAVIEST = 1_000_000


@dataclass(frozen=True)
class Member(Configured):
    """One upstream of a pool: ``Member("http://10.0.0.1:8000", weight=3)``."""

    url: str
    """Where its requests go, as in ``Proxy``: ``http://host``, ``https://host:8443``, or with a path."""

    _: KW_ONLY

    weight: float = 1
    """How much of the traffic it takes, compared with others: above 0, up to a million."""

    priority: int = 0
    """Its group: members are used only when none with a lower number is available."""

    name: str = ""
    """What it is called in traces and metrics, and what consistent hashes and affinity cookies are made of; by default
    its URL."""

    lookup: float | None = None
    """Seconds after which its host name is looked up again, and every address it has gets requests of its own, each as
    a member with this weight. None (the default): each new connection looks it up, and takes the first address that
    answers."""

    credential: Credential | None = None
    """What it is shown in the place of what callers show in ``Authorization`` and ``DPoP``, as by ``UpstreamAuth``, for
    members that each want another. None (the default): requests keep what the policies in front have put there."""

    def __post_init__(self) -> None:
        """The URL must be one, and the numbers must make sense."""
        _ = self.upstream
        if not 0 < self.weight <= _HEAVIEST:
            raise self.mistake("weight", "is out of range", f"Give a number above 0, up to {_HEAVIEST}")
        if self.priority < 0:
            raise self.mistake("priority", "is below 0", "Give 0 for those that come first, 1 for the next")
        if self.lookup is not None and not 1 <= self.lookup <= _DAY:
            raise self.mistake("lookup", "is out of range", f"Give seconds from 1 to {_DAY:g}")
        if not self.name.isprintable():
            raise self.mistake("name", "cannot be shown", "Give a word")

    @property
    def label(self) -> str:
        """Its name, or its URL."""
        return self.name or self.url

    @cached_property
    def upstream(self) -> Upstream:
        """The URL in its parts."""
        return upstream_of(self, "url", self.url, 'Write Member("http://host:8080")')


@dataclass(frozen=True)
class Service(Configured):
    """Members found by the SRV records of a name (RFC 2782): ``Service("_http._tcp.api.internal")``.

    Targets, ports, weights and priorities are those of the records; they are looked up again when their time to live
    is over. Needs the package dnspython (extra ``dns``).
    """

    record: str
    """The name whose SRV records say where requests go."""

    _: KW_ONLY

    scheme: str = "http"
    """How the members are spoken to: ``"http"``, or ``"https"``."""

    path: str = ""
    """A path that is put in front of every path."""

    every: float = 30.0
    """Seconds after which the records are looked up again at the latest, however long they say they hold, and after
    which a lookup that failed is tried again."""

    nameserver: str | None = None
    """The address of who is asked, with a port where that is not 53: ``"127.0.0.1:8600"``. None (the default) for the
    name servers of the system."""

    def __post_init__(self) -> None:
        """What it makes of a record must be a URL, and somebody must look it up."""
        check_installed()
        if self.scheme not in ("http", "https"):
            raise self.mistake("scheme", "is neither http nor https", 'Write scheme="https"')
        if (
            not self.record
            or not self.record.isascii()
            or not self.record.isprintable()
            or set(self.record) & set("/ :@")
        ):
            raise self.mistake("record", "is no name", 'Write Service("_http._tcp.api.internal")')
        if not 1 <= self.every <= _DAY:
            raise self.mistake("every", "is out of range", f"Give seconds from 1 to {_DAY:g}")
        if self.nameserver is not None and self.server is None:
            raise self.mistake("nameserver", "is no address", 'Write nameserver="127.0.0.1:8600"')
        upstream_of(self, "path", f"{self.scheme}://host{self.path}", 'Write path="/base"')
        if self.path and not self.path.startswith("/"):
            raise self.mistake("path", "does not begin with /", 'Write path="/base"')

    @cached_property
    def server(self) -> tuple[str, int] | None:
        """The address and port of the name server, if one is named."""
        host, colon, port = (self.nameserver or "").rpartition(":")
        if not colon or (":" in host and not host.startswith("[")):  # no port, or an IPv6 address without brackets
            host, port = self.nameserver or "", "53"
        host = host.strip("[]")
        known = parse_address(host) is not None and port.isdigit() and 0 < int(port) < 65536
        return (host, int(port)) if known else None

    @property
    def url(self) -> str:
        """What names it among the members."""
        return f"srv:{self.record}"

    @property
    def label(self) -> str:
        """What the service is called in logs and figures: its ``url``."""
        return self.url


Entry: TypeAlias = Member | Service


class Members:
    """The members of a pool, changed while requests come in; a change holds from the next request on.

    ``members = Members("http://10.0.0.1:8000")`` is given to ``Pool(members)``, of which there may be several, and then
    ``members.add("http://10.0.0.2:8000")`` brings another in. A member is named by its URL. Requests that are under way
    at a member come to their end there, whatever becomes of it.
    """

    def __init__(self, *members: Entry | str) -> None:
        """The members there are from the start."""
        self._entries: dict[str, Entry] = {}
        self._drained: set[str] = set()
        self._checks: list[weakref.WeakMethod[Callable[[Entry], None]]] = []
        self.version: int = 0
        """Another number after each change."""
        for each in members:
            entry = _entry_of(each)
            if entry.url in self._entries:
                raise ConfigError("Members", "members", f"{shown(entry.url)} is there twice", "Give it a weight of 2")
            self._put(entry)

    def __repr__(self) -> str:
        """Who is in."""
        return f"Members({', '.join(map(repr, self._entries.values()))})"

    def __len__(self) -> int:
        """How many there are, those that are drained included."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Each of them, in the order they came."""
        return iter(list(self._entries.values()))

    def add(self, member: Entry | str) -> None:
        """Bring a member in, or give one of the same URL other values.

        Raises ConfigError when there is no room, or a proxy that uses these could not ask it.
        """
        self._put(_entry_of(member))

    def remove(self, url: str) -> None:
        """Take a member out: it gets no more requests. Nothing happens when it is not in."""
        if self._entries.pop(url, None) is not None:
            self._drained.discard(url)
            self.version += 1

    def drain(self, url: str) -> None:
        """Send a member no more requests but those of clients that an affinity cookie keeps there."""
        self._known(url)
        self._drained.add(url)
        self.version += 1

    def resume(self, url: str) -> None:
        """Let a member that is drained have requests again."""
        self._known(url)
        self._drained.discard(url)
        self.version += 1

    def drained(self, url: str) -> bool:
        """Whether a member is drained."""
        return url in self._drained

    def admit_by(self, check: Callable[[Entry], None]) -> None:
        """Have a method see each member, those that come later too, for as long as its object is there.

        It raises ConfigError for one that cannot be admitted.
        """
        for each in self:
            check(each)
        self._checks = [*(known for known in self._checks if known() is not None), weakref.WeakMethod(check)]

    def __getstate__(self) -> dict[str, object]:
        """A copy is used by nobody yet, and what becomes of it is its own."""
        return {**self.__dict__, "_entries": {**self._entries}, "_drained": {*self._drained}, "_checks": []}

    def _put(self, entry: Entry) -> None:
        for known in self._checks:
            if (check := known()) is not None:
                check(entry)
        if any(each.label == entry.label for each in self if each.url != entry.url):
            raise ConfigError("Members", "members", f"there are two of the name {entry.label!r}", "Give each its own")
        if entry.url not in self._entries and len(self) >= MOST:
            raise ConfigError("Members", "members", f"there is room for {MOST} only", "Remove others first")
        self._entries[entry.url] = entry
        self.version += 1

    def _known(self, url: str) -> None:
        if url not in self._entries:
            raise ConfigError("Members", "url", f"{shown(url)} is no member", "Give the URL of one, as it was written")


def _entry_of(given: Entry | str) -> Entry:
    entry = Member(given) if isinstance(given, str) else given
    if not isinstance(entry, Member | Service):
        raise ConfigError("Members", "members", f"{shown(given)} is no member", 'Write Members("http://host:8080")')
    return entry
