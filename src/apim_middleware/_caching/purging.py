"""Stored responses taken away or marked stale at run time, by people and by what acts for them."""

from abc import abstractmethod
from typing import NamedTuple
from weakref import WeakSet

from apim_middleware._caching.marks import Place, place_of, route_tag
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.policy import Policy


class CacheFigures(NamedTuple):
    """What one cache has done since it was built, in this process."""

    place: str
    """Where it stands."""

    hits: int
    """Requests answered with a stored response."""

    misses: int
    """Requests that the app was asked for, or is being asked for."""

    collapsed: int
    """Requests that waited for the answer to another one; among the misses."""

    refreshed: int
    """Requests made to the app by the cache itself while a stale response was given away."""

    stored: int
    """Responses that were kept."""

    evicted: int
    """Responses that had to make room for others."""

    held: int
    """Bytes of memory that are held now; 0 where responses are kept elsewhere."""


class Purgeable:
    """What a cache lets be done with its responses."""

    policy: object
    place: str

    @abstractmethod
    def as_kept(self, query: bytes) -> bytes:
        """What a query is in the keys of responses."""

    @abstractmethod
    async def purge_place(self, place: Place, *, soft: bool) -> None:
        """Take away what answers a URL, or all below one."""

    @abstractmethod
    async def purge_tag(self, tag: bytes, *, soft: bool) -> None:
        """Take away what has a tag."""

    @abstractmethod
    async def purge_everything(self, *, soft: bool) -> None:
        """Take away all there is."""

    @abstractmethod
    def figures(self) -> CacheFigures:
        """What it has done."""


def caches_of(env: Env) -> "WeakSet[Purgeable]":
    """Every response cache of an environment, for as long as a stack keeps it."""
    return env.kept("cache.keepers", WeakSet)


class CachedResponses:
    """The stored responses of an environment: take them away, mark them stale, see how many there are.

    A cache is named by its policy, wherever that stands, or by its place, as ``places()`` has it; by None, all are
    meant. With ``soft=True`` responses are stale from now on instead of gone: they may still be given away while the
    app is asked anew, or when it fails, if they allow it. Responses on their way meanwhile are not kept.
    A response with more than 64 tags, one tag of more than 1024 bytes, or more than 60 slashes in its path is not kept.
    Caches in memory are those of this process. In a store that others see too, what is taken away is gone, and what is
    marked stale is stale, for all at once; there a mark takes in all variants of a URL.
    Only caches that stand in front of an app are known: Starlette and FastAPI put them there at their first request.
    """

    def __init__(self, env: Env = default_env) -> None:
        """Look at the caches of this environment; without one, at those of stacks that have none of their own."""
        self._env = env

    def places(self) -> list[str]:
        """Where caches stand, sorted."""
        return sorted({cache.place for cache in caches_of(self._env)})

    def figures(self, cache: Policy | str | None = None) -> list[CacheFigures]:
        """What the caches have done in this process."""
        return sorted(each.figures() for each in self._meant(cache))

    async def purge_url(self, url: str, *, cache: Policy | str | None = None, soft: bool = False) -> None:
        """Take away every response to one URL, whoever owns it: ``https://shop.example/prices?page=2``.

        Each cache makes of the query what it makes of that of a request.
        Raises ConfigError for what is no whole URL, StoreError when the store cannot be told.
        """
        place = _place(url, below=False)
        for each in self._meant(cache):
            kept = place._replace(query=each.as_kept(place.query or b""))
            await each.purge_place(kept, soft=soft)

    async def purge_prefix(self, prefix: str, *, cache: Policy | str | None = None, soft: bool = False) -> None:
        """Take away every response below a URL that ends with a slash: ``https://shop.example/prices/``."""
        place = _place(prefix, below=True)
        for each in self._meant(cache):
            await each.purge_place(place, soft=soft)

    async def purge_tag(self, tag: str, *, cache: Policy | str | None = None, soft: bool = False) -> None:
        """Take away every response that named this in ``Cache-Tag`` or ``Surrogate-Key``."""
        await self._purge_tag(tag.encode("latin-1", "replace"), cache, soft=soft)

    async def purge_route(self, route: str, *, cache: Policy | str | None = None, soft: bool = False) -> None:
        """Take away every response of a route of the app, named by its path as the app has it: ``/prices/{name}``."""
        await self._purge_tag(route_tag(route), cache, soft=soft)

    async def purge_everything(self, *, cache: Policy | str | None = None, soft: bool = False) -> None:
        """Take away all responses."""
        for each in self._meant(cache):
            await each.purge_everything(soft=soft)

    async def _purge_tag(self, tag: bytes, cache: Policy | str | None, *, soft: bool) -> None:
        for each in self._meant(cache):
            await each.purge_tag(tag, soft=soft)

    def _meant(self, cache: Policy | str | None) -> list[Purgeable]:
        known = list(caches_of(self._env))
        meant = [each for each in known if cache is None or each.place == cache or each.policy == cache]
        if not meant and cache is not None:
            cure = "Give a policy that stands in front of an app in this environment, or one of places()"
            raise ConfigError("CachedResponses", "cache", f"{cache!r} keeps nothing here", cure)
        return meant


def _place(url: str, *, below: bool) -> Place:
    try:
        return place_of(url, below=below)
    except ValueError as error:
        cure = 'Give "https://shop.example/prices/"' if below else 'Give "https://shop.example/prices?page=2"'
        raise ConfigError("CachedResponses", "prefix" if below else "url", f"{url!r} {error}", cure) from None
