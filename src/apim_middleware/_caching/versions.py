"""When resources change: so that nothing is kept, or given away, that shows what was before."""

from weakref import WeakValueDictionary

from apim_middleware._http.targets import Resource

VERSION_SIZE = 256
"""Bytes that knowing a version of a resource takes, and finding it by the resource."""

_SLOTS = 4096


class Version:
    """One state of a resource, ``current`` until something changes it."""

    __slots__ = ("__weakref__", "current")

    def __init__(self) -> None:
        """A state that nothing has changed yet."""
        self.current = True


class Versions:
    """The states of resources, without a list of them: callers invent as many as they like.

    Changes are numbered. The number of a resource's last one stands in a slot that it shares with others, so a change
    to one of those may keep a response that is on its way from being kept, and does nothing else. Versions are held
    by the responses that show them.
    """

    def __init__(self) -> None:
        """Begin with nothing changed."""
        self.changes = 0
        self._last = [0] * _SLOTS
        self._all = 0
        self._current: WeakValueDictionary[Resource, Version] = WeakValueDictionary()

    def of(self, resource: Resource) -> Version:
        """The state a resource is in."""
        version = self._current.get(resource)
        if version is None:
            version = self._current[resource] = Version()
        return version

    def end(self, resource: Resource) -> None:
        """Take the resource to be in another state from now on."""
        self.changes += 1
        self._last[hash(resource) % _SLOTS] = self.changes
        version = self._current.pop(resource, None)
        if version is not None:
            version.current = False

    def end_all(self) -> None:
        """Take every resource to be in another state from now on, as far as responses on their way go."""
        self.changes += 1
        self._all = self.changes

    def changed(self, resource: Resource, *, since: int) -> bool:
        """Whether the resource may have changed since there were so many changes."""
        return self._all > since or self._last[hash(resource) % _SLOTS] > since
