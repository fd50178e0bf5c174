"""Which operation a method and the segments of a path mean: text first, then mixtures, parameters, wildcards.

A look-up costs a step for each segment, however many operations there are. Where text and a parameter stand side by
side and the text leads nowhere, it searches; it never visits more nodes than there are.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from apim_middleware._http import queries
from apim_middleware._http.url_templates import Mixed
from apim_middleware.errors import Refusal
from apim_middleware.model import ANY, Operation


class Leaf(Protocol):
    """What is looked for."""

    operation: Operation


T = TypeVar("T", bound=Leaf)


class Taken(ValueError):
    """The place of this template is taken by another: nobody could choose between them."""

    def __init__(self, template: str) -> None:
        """Keep the template that has it."""
        super().__init__(template)
        self.template = template


class _Asking(Generic[T]):
    """What is told apart by the query only: those that ask for the most come first."""

    __slots__ = ("leaves", "told_by")

    def __init__(self, leaves: Sequence[T]) -> None:
        self.leaves = sorted(leaves, key=lambda leaf: -len(leaf.operation.url_template.query))
        self.told_by = {name for leaf in leaves for name in leaf.operation.url_template.told_by}

    def choose(self, query: bytes) -> T | None:
        """The leaf a query means. Raises Refusal for one that has a parameter twice which tells them apart."""
        for name in self.told_by if query else ():
            if len(queries.values(query, name)) > 1:  # the backend may read another one of them than we do
                detail = "The query says more than once which operation is meant."
                raise Refusal(400, "operation-ambiguous", detail)
        for leaf in self.leaves:
            template = leaf.operation.url_template
            if not template.query or template.asks(query):
                return leaf
        return None


class Trie(dict[str, "Trie[T]"]):
    """Leaves under methods and templates. Each of its nodes is one, too: a dict of the texts that go on from there."""

    __slots__ = ("_asking", "_leaves", "_mixed", "_numbers", "_parameter", "_rest")

    def __init__(self) -> None:
        """Hold no leaves yet."""
        super().__init__()
        self._numbers = _numbered(())
        self._leaves: tuple[T, ...] = ()  # the one of each method that no other has to be told from
        self._asking: dict[str, _Asking[T]] = _NOBODY
        self._mixed: tuple[tuple[Mixed, Trie[T]], ...] = ()
        self._parameter: Trie[T] | None = None
        self._rest: Trie[T] | None = None

    def add(self, leaf: T) -> None:
        """Put a leaf under the method and the template of its operation. Raises Taken."""
        node, template = self, leaf.operation.url_template
        for segment in template.segments:
            node = node._child(segment)
        if template.rest is not None:
            node._rest = node = node._rest if node._rest is not None else Trie()
        node._put(leaf)

    def _child(self, segment: str | Mixed | None) -> "Trie[T]":
        if isinstance(segment, str):
            return self.setdefault(segment, Trie())
        if segment is None:
            self._parameter = self._parameter if self._parameter is not None else Trie()
            return self._parameter
        for mixed, child in self._mixed:
            if mixed.shape == segment.shape:
                return child
        child = Trie()
        mixtures = [*self._mixed, (segment, child)]
        self._mixed = tuple(sorted(mixtures, key=lambda each: (-sum(map(len, each[0].texts)), each[0].texts)))
        return child  # the most text is looked at first

    def _put(self, leaf: T) -> None:
        method, template = leaf.operation.method, leaf.operation.url_template
        alone = dict(zip(self._numbers, self._leaves, strict=True))
        asking = self._asking.get(method)
        others = [alone.pop(method)] if method in alone else [] if asking is None else asking.leaves
        for other in others:
            if other.operation.url_template.shape == template.shape:
                raise Taken(other.operation.template)
        if others or template.query:
            self._asking = {**self._asking, method: _Asking([*others, leaf])}
        else:
            alone[method] = leaf
        methods = tuple(sorted(alone))
        self._numbers, self._leaves = _numbered(methods), tuple(alone[each] for each in methods)

    def find(self, method: str, segments: Sequence[str], query: bytes) -> T | None:
        """The leaf of a request, if there is one. Raises Refusal when its query could mean several."""
        node = self
        for segment in segments:  # straight on as the search would go, which is needed when that leads nowhere
            child = node.get(segment)
            if child is None:
                child = node._parameter
                if child is None or node._mixed or not segment:
                    break
            node = child
        else:
            number = node._numbers.get(method)
            if number is not None:
                return node._leaves[number]
            if (found := node._of(method, query)) is not None:
                return found
        return self._search(segments, 0, lambda node: node._of(method, query))

    def allowed(self, segments: Sequence[str], query: bytes) -> set[str]:
        """The methods that have a leaf for this path."""
        found = set[str]()

        def collect(node: Trie[T]) -> None:
            found.update(each for each in (*node._numbers, *node._asking) if node._has(each, query))

        self._search(segments, 0, collect)
        return found | {"HEAD"} if "GET" in found else found

    def _search(self, segments: Sequence[str], at: int, take: "Callable[[Trie[T]], T | None]") -> T | None:
        """What ``take`` makes of the first node that it makes anything of, the most particular first."""
        if at == len(segments):
            if (found := take(self)) is not None:
                return found
        else:
            segment, behind = segments[at], at + 1
            child = self.get(segment)
            if child is not None and (found := child._search(segments, behind, take)) is not None:
                return found
            for mixed, child in self._mixed:
                if mixed.read(segment) is not None and (found := child._search(segments, behind, take)) is not None:
                    return found
            child = self._parameter
            if child is not None and segment and (found := child._search(segments, behind, take)) is not None:
                return found
        return None if self._rest is None else take(self._rest)

    def _of(self, method: str, query: bytes) -> T | None:
        """The leaf of a method here, or that of every method."""
        if method == "HEAD" and method not in self._numbers and method not in self._asking:
            method = "GET"  # RFC 9110 §9.3.2: the same, but for the body
        found = self._choose(method, query)
        return self._choose(ANY, query) if found is None else found

    def _choose(self, method: str, query: bytes) -> T | None:
        if method in self._numbers:
            return self._leaves[self._numbers[method]]
        asking = self._asking.get(method)
        return None if asking is None else asking.choose(query)

    def _has(self, method: str, query: bytes) -> bool:
        """Whether there is a leaf for a query, be it to say that it is ambiguous."""
        try:
            return self._choose(method, query) is not None
        except Refusal:
            return True


_NOBODY: dict[str, Any] = {}
"""Who asks, of most nodes; it is replaced, and never changed."""


@lru_cache(1024)
def _numbered(methods: tuple[str, ...]) -> dict[str, int]:
    """The places of methods. There are few sets of them, so that nodes share these and stay small."""
    return {method: number for number, method in enumerate(methods)}
