"""Which operation a method and the segments of a path mean: text first, then mixtures, parameters, wildcards.

A look-up costs a step for each segment, however many operations there are. Where text and a parameter stand side by
side and the text leads nowhere, it turns back; it never visits more nodes than there are.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from apim_middleware._http.url_templates import Mixed, UrlTemplate
from apim_middleware.model import ANY

T = TypeVar("T")


class Taken(ValueError):
    """The place of this template is taken by another: nobody could choose between them."""

    def __init__(self, template: str) -> None:
        """Keep the template that has it."""
        super().__init__(template)
        self.template = template


class _Leaves(Generic[T]):
    """What is told apart by the query only: those that ask for the most come first."""

    __slots__ = ("choices", "only")

    def __init__(self, template: UrlTemplate, leaf: T) -> None:
        self.choices = [(template, leaf)]
        self.only = None if template.query else leaf  # where no query need be looked at

    def add(self, template: UrlTemplate, leaf: T) -> None:
        for other, _ in self.choices:
            if other.shape == template.shape:
                raise Taken(other.text)
        self.only = None
        self.choices.append((template, leaf))
        self.choices.sort(key=lambda choice: -len(choice[0].query))

    def choose(self, query: bytes) -> T | None:
        if self.only is not None:
            return self.only
        for template, leaf in self.choices:
            if not template.query or template.asks(query):
                return leaf
        return None


class _Node(Generic[T]):
    __slots__ = ("forks", "methods", "mixed", "parameter", "rest", "texts")

    def __init__(self) -> None:
        self.forks = False  # whether there may be more than one way on from here
        self.texts: dict[str, _Node[T]] = {}
        self.mixed: list[tuple[Mixed, _Node[T]]] = []
        self.parameter: _Node[T] | None = None
        self.rest: dict[str, _Leaves[T]] | None = None
        self.methods: dict[str, _Leaves[T]] = {}


class Trie(Generic[T]):
    """Leaves under methods and templates."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        """Begin with none."""
        self._root: _Node[T] = _Node()

    def add(self, method: str, template: UrlTemplate, leaf: T) -> None:
        """Put a leaf under a method and a template. Raises Taken."""
        node = self._root
        for segment in template.segments:
            node = _child(node, segment)
        if template.rest is not None:
            if node.rest is None:
                node.rest = {}
            methods, node.forks = node.rest, True
        else:
            methods = node.methods
        if method in methods:
            methods[method].add(template, leaf)
        else:
            methods[method] = _Leaves(template, leaf)

    def find(self, method: str, segments: Sequence[str], query: bytes) -> T | None:
        """The leaf of a request, if there is one."""
        node = self._root
        for at, segment in enumerate(segments):  # straight on, as long as there is only one way
            if node.forks:
                return _find(node, segments, at, lambda methods: _of_method(methods, method, query))
            child = node.texts.get(segment) if node.texts else node.parameter if segment else None
            if child is None:
                return None
            node = child
        found = _of_method(node.methods, method, query)
        if found is None and node.rest is not None:
            found = _of_method(node.rest, method, query)
        return found

    def allowed(self, segments: Sequence[str], query: bytes) -> set[str]:
        """The methods that have a leaf for this path."""
        found = set[str]()

        def collect(methods: dict[str, _Leaves[T]]) -> None:
            found.update(method for method, leaves in methods.items() if leaves.choose(query) is not None)

        _find(self._root, segments, 0, collect)
        return found | {"HEAD"} if "GET" in found else found


def _child(node: _Node[T], segment: object) -> _Node[T]:
    if isinstance(segment, str):
        node.forks = node.forks or node.parameter is not None
        return node.texts.setdefault(segment, _Node())
    if segment is None:
        if node.parameter is None:
            node.parameter = _Node()
        node.forks = node.forks or bool(node.texts)
        return node.parameter
    assert isinstance(segment, Mixed)  # noqa: S101 - for the type checker: there is no fourth kind
    for mixed, child in node.mixed:
        if mixed.shape == segment.shape:
            return child
    child, node.forks = _Node(), True
    node.mixed.append((segment, child))
    node.mixed.sort(key=lambda each: (-sum(map(len, each[0].texts)), each[0].texts))  # the most text first
    return child


def _of_method(methods: dict[str, _Leaves[T]], method: str, query: bytes) -> T | None:
    leaves = methods.get(method)
    if leaves is None and method == "HEAD":
        leaves = methods.get("GET")  # RFC 9110 §9.3.2: the same, but for the body
    if leaves is not None and (found := leaves.choose(query)) is not None:
        return found
    leaves = methods.get(ANY)
    return None if leaves is None else leaves.choose(query)


def _find(
    node: _Node[T], segments: Sequence[str], at: int, take: Callable[[dict[str, _Leaves[T]]], T | None]
) -> T | None:
    """What ``take`` makes of the first node that it makes anything of, the most particular first."""
    if at == len(segments):
        if (found := take(node.methods)) is not None:
            return found
    else:
        segment = segments[at]
        child = node.texts.get(segment)
        if child is not None and (found := _find(child, segments, at + 1, take)) is not None:
            return found
        for mixed, child in node.mixed:
            if mixed.read(segment) is not None and (found := _find(child, segments, at + 1, take)) is not None:
                return found
        if node.parameter is not None and segment:
            found = _find(node.parameter, segments, at + 1, take)
            if found is not None:
                return found
    return None if node.rest is None else take(node.rest)
